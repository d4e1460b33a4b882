"""The demo as a person starts it, and Debian's Chromium driven by Playwright.

Set KINETRACK_CHROMIUM to use another Chromium, KINETRACK_SCREENSHOTS to a folder to keep pictures of every stage, and
KINETRACK_DEMO_URL to test a demo that is running already (started with --max-seconds 20 and the models of `demo_url`).
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from fractions import Fraction
from pathlib import Path

import pytest
from kinetrack.processing.loading import DEFAULT_MODEL, SHIPPED_MODELS
from PIL import Image

EXAMPLE = Path(__file__).resolve().parents[2] / "hub_scripts" / "examples" / "pets2009.mp4"
# Nothing of the browser may ask other servers, and the webcam is a film of people crossing a square.
# Containers have neither a sandbox nor room in /dev/shm.
ARGUMENTS = [
    *("--no-sandbox", "--disable-dev-shm-usage"),
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required"),
    *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
]
SIZE = {"width": 1360, "height": 900}
STRICT = 0.6  # from which score the second checkpoint reports somebody
PHONE = {"width": 390, "height": 844}


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.browser)


def stretch() -> float:
    """How many times slower than an idle machine this one is; limits in seconds are stretched by it."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture
def patience() -> float:
    """`stretch` at the beginning of a test."""
    return stretch()


@pytest.fixture(scope="session")
def phone() -> dict:
    """What makes a browser one of a phone."""
    return {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


@pytest.fixture(scope="session")
def example() -> Path:
    """Ten seconds of people crossing a square."""
    return EXAMPLE


@pytest.fixture(scope="session")
def second_checkpoint(tmp_path_factory) -> Path:
    """The shipped model under another name, and with another threshold of its own."""
    folder = tmp_path_factory.mktemp("models") / "kinetrack-strict"
    shutil.copytree(SHIPPED_MODELS / DEFAULT_MODEL, folder)
    config = json.loads((folder / "config.json").read_text())
    config["detection_threshold"] = STRICT
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def demo_url(second_checkpoint):
    """Address of `kinetrack demo` with two models, started in a process of its own."""
    if os.environ.get("KINETRACK_DEMO_URL"):
        yield os.environ["KINETRACK_DEMO_URL"]
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "kinetrack.hub_scripts.cli", "demo", "--port", str(port), "--max-seconds", "20"]
    command += ["--device", "cpu", "--model", DEFAULT_MODEL, "--model", str(second_checkpoint)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    url = f"http://127.0.0.1:{port}/"
    deadline = time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                pytest.fail(f"The demo did not start:\n{server.stdout.read().decode()}")
            time.sleep(0.2)
    yield url
    server.terminate()
    said = server.communicate(timeout=60)[0].decode()
    assert "Traceback" not in said, said


@pytest.fixture(scope="session")
def webcam_file(example, tmp_path_factory) -> Path:
    """The example as Motion JPEG, which Chromium plays as a fake webcam."""
    import av

    path = tmp_path_factory.mktemp("webcam") / "people.mjpeg"
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 640, 480, "yuvj420p", Fraction(1, 10)
    with av.open(str(example)) as source, path.open("wb") as output:
        for index, frame in enumerate(source.decode(video=0)):
            frame = frame.reformat(640, 480, "yuvj420p")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            output.writelines(map(bytes, encoder.encode(frame)))
        output.writelines(map(bytes, encoder.encode(None)))
    return path


@pytest.fixture(scope="session")
def chromium(webcam_file):
    """A headless browser."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("KINETRACK_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.fail("There is no Chromium here. Install it (Debian: apt install chromium) or set KINETRACK_CHROMIUM.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*ARGUMENTS, f"--use-file-for-fake-video-capture={webcam_file}"]
        )
        yield browser
        browser.close()


class Visitor:
    """A person with a browser.

    Args:
        page: of Playwright.
        url: of the demo.
    """

    def __init__(self, page, url: str):
        self.page, self.url = page, url
        self.problems, self.requests = [], []
        page.set_default_timeout(30_000 * stretch())
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def open(self, query: str = "") -> float:
        """Opens the page; returns the seconds until it can be used."""
        started = time.perf_counter()
        self.page.goto(self.url + query)
        self.page.locator("#kt-run").wait_for()
        self.page.get_by_text("Loading...").first.wait_for(state="hidden")
        return time.perf_counter() - started

    def tab(self, name: str) -> None:
        """Goes to a tab; where the page is too narrow for it, through the menu."""
        tab = self.page.get_by_role("tab", name=name, exact=True)
        if not tab.is_visible():
            self.page.get_by_role("button", name="More tabs", exact=True).click()
            tab = self.page.locator(".overflow-dropdown").get_by_role("button", name=name, exact=True)
        tab.click()

    def give(self, path: Path, place: str = "#kt-video") -> None:
        """Uploads a video."""
        field = self.page.locator(f"{place} input[type=file]").first
        field.set_input_files(str(path))
        self.page.locator(f"{place} video").wait_for()

    def choose(self, place: str, option: str) -> None:
        """Picks an entry of a dropdown."""
        self.page.locator(f"{place} input").click()
        self.page.locator(place).get_by_role("option", name=option, exact=True).click()

    def analyse(self, seconds: float = 120) -> float:
        """Presses the button; returns the seconds until the result is there."""
        started = time.perf_counter()
        self.page.locator("#kt-run").click()
        result, error = self.page.locator("#kt-result .kt-result video"), self.page.locator("#kt-status .kt-error")
        result.or_(error).first.wait_for(timeout=1000 * seconds * stretch())
        assert not error.is_visible(), error.inner_text()
        return time.perf_counter() - started

    def wait_for_frame(self, place: str = "#kt-result") -> None:
        """Waits until the annotated video can be shown."""
        self.page.wait_for_function(f"document.querySelector('{place} .kt-screen video').readyState === 4")
        if os.environ.get("KINETRACK_SCREENSHOTS"):
            self.page.wait_for_timeout(800)  # until the browser's own spinner has faded

    def video_time(self) -> float:
        """Seconds where the annotated video is."""
        return self.page.evaluate("document.querySelector('#kt-result .kt-screen video').currentTime")

    def color_at(self, x: int, y: int) -> tuple[int, int, int]:
        """The colour of a pixel as a person sees it, whatever element it belongs to."""
        shot = self.page.screenshot(clip={"x": x, "y": y, "width": 1, "height": 1})
        with Image.open(io.BytesIO(shot)) as pixel:
            return pixel.convert("RGB").getpixel((0, 0))

    def picture(self, name: str, **options) -> None:
        """Keeps a picture of the page, where somebody asked for them."""
        folder = os.environ.get("KINETRACK_SCREENSHOTS")
        if folder:
            self.page.screenshot(path=f"{folder}/{name}.png", **options)


@pytest.fixture
def visit(chromium, demo_url):
    """Makes new visitors: `visit()`, `visit(viewport=PHONE)`; afterwards none of them may have seen a script fail."""
    visitors = []

    def make(viewport=SIZE, **options) -> Visitor:
        context = chromium.new_context(viewport=viewport, permissions=["camera"], **options)
        visitors.append(Visitor(context.new_page(), demo_url))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.page.context.close()
        assert visitor.problems == []
        assert not [url for url in visitor.requests if not url.startswith((demo_url, "data:", "blob:"))]


@pytest.fixture(scope="session")
def analysed(chromium, demo_url, example):
    """A visitor who has uploaded the example and got its result; `seconds` is how long that took."""
    context = chromium.new_context(viewport=SIZE, accept_downloads=True)
    visitor = Visitor(context.new_page(), demo_url)
    visitor.open()
    visitor.picture("1-empty")
    visitor.give(example)
    visitor.picture("2-uploaded")
    visitor.page.locator("#kt-run").click()
    started = time.perf_counter()
    visitor.page.locator(".kt-progress").wait_for()
    visitor.picture("3-progress")
    visitor.page.locator("#kt-result .kt-result video").wait_for(timeout=300_000 * stretch())
    visitor.seconds = time.perf_counter() - started
    visitor.wait_for_frame()
    visitor.picture("4-result", full_page=True)
    yield visitor
    context.close()
    assert visitor.problems == []
