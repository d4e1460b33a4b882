"""The Video tab in a real browser: from the upload to the files, and what goes wrong on the way."""

import csv
import json
import time

import pytest

OVERLAY = """() => {
  const canvas = document.querySelector('#kt-result .kt-overlay');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let seen = 0;
  for (let i = 3; i < pixels.length; i += 4) seen += pixels[i] > 0;
  return seen / (pixels.length / 4);
}"""


def test_the_page_can_be_used_within_three_seconds(visit, patience):
    visitor = visit()
    assert min(visitor.open() for _ in range(3)) < 3 * patience


def test_the_example_is_analysed_within_twenty_seconds(analysed, patience):
    assert analysed.seconds < 20 * patience


def test_the_video_plays(analysed):
    play = "document.querySelector('#kt-result .kt-screen video')"
    analysed.page.evaluate(f"{play}.currentTime = 1; {play}.play()")
    analysed.page.wait_for_function(f"{play}.currentTime > 2")
    analysed.page.evaluate(f"{play}.pause()")
    assert analysed.page.evaluate(f"{play}.duration") == pytest.approx(10, abs=0.15)
    now = analysed.page.locator("#kt-result .kt-now").inner_text()
    assert float(now.split()[0]) == pytest.approx(analysed.video_time(), abs=0.3)


def test_a_click_on_a_lane_makes_the_video_jump_there(analysed):
    area = analysed.page.locator("#kt-result .kt-lane .kt-area").first
    box = area.bounding_box()
    area.click(position={"x": 0.6 * box["width"], "y": box["height"] / 2})
    assert analysed.video_time() == pytest.approx(6.0, abs=0.15)
    assert "kt-chosen" in analysed.page.locator("#kt-result .kt-lane").first.get_attribute("class")
    playhead = analysed.page.locator("#kt-result .kt-playhead")
    analysed.page.wait_for_function("!document.querySelector('#kt-result .kt-screen video').seeking")
    analysed.page.wait_for_timeout(300)
    assert playhead.bounding_box()["x"] == pytest.approx(box["x"] + 0.6 * box["width"], abs=12)


def test_the_keyboard_jumps_to_where_a_track_begins(analysed):
    bar = analysed.page.locator("#kt-result .kt-bar").last
    bar.focus()
    bar.press("Enter")
    assert analysed.video_time() == pytest.approx(float(bar.get_attribute("data-time")), abs=0.05)


def test_attention_is_laid_over_the_video_and_taken_away_again(analysed):
    page, toggle = analysed.page, analysed.page.locator("#kt-result [data-action=attention]")
    page.locator("#kt-result .kt-counts .kt-area").click(position={"x": 300, "y": 10})  # no track is pointed out
    page.wait_for_function(f"({OVERLAY})() === 0")
    toggle.click()
    assert toggle.get_attribute("aria-pressed") == "true"
    page.wait_for_function(f"({OVERLAY})() > 0.002")
    assert "attention strongest" in page.locator("#kt-result .kt-now").inner_text()
    analysed.picture("5-attention")
    toggle.click()
    page.wait_for_function(f"({OVERLAY})() === 0")


def test_the_table_sorts_and_filters(analysed):
    page = analysed.page
    rows = page.locator("#kt-result .kt-people tbody tr")
    count = rows.count()
    assert count >= 5
    page.get_by_role("button", name="Confidence").click()
    sure = [float(row.get_attribute("data-confidence")) for row in rows.all()]
    assert sure == sorted(sure, reverse=True)
    page.get_by_role("button", name="Confidence").click()
    assert [float(row.get_attribute("data-confidence")) for row in rows.all()] == sorted(sure)
    field = page.locator("#kt-result .kt-filter")
    for text, fits in (
        ("#1", lambda row: row.get_attribute("data-id") == "1"),
        ("> 50", lambda row: float(row.get_attribute("data-confidence")) >= 0.5),
        ("uncertain", lambda row: "uncertain" in row.inner_text()),
    ):
        field.fill(text)
        expected = sum(fits(row) for row in rows.all())
        assert page.locator("#kt-result .kt-people tbody tr:visible").count() == expected
        assert page.locator("#kt-result .kt-shown").inner_text() == f"{expected} of {count}"
    field.fill("")
    page.get_by_role("button", name="Who", exact=True).click()


def test_every_file_can_be_downloaded_and_opened(analysed, tmp_path):
    import av
    from PIL import Image

    files = {}
    for link in analysed.page.locator("#kt-result .kt-download").all():
        with analysed.page.expect_download() as waiting:
            link.click()
        name = waiting.value.suggested_filename
        files[name] = tmp_path / name
        waiting.value.save_as(files[name])
    analysis = json.loads(files["analysis.json"].read_text())
    assert analysis["schema"] == "kinetrack.analysis" and len(analysis["tracks"]) >= 5
    boxes = sum(len(track["observations"]["box"]) for track in analysis["tracks"])
    lines = files["tracks.txt"].read_text().splitlines()
    assert len(lines) == boxes and all(len(line.split(",")) == 10 for line in lines)
    with files["boxes.csv"].open(newline="") as file:
        assert len(list(csv.DictReader(file))) == boxes
    with Image.open(files["summary.png"]) as picture:
        assert picture.width > 1000
    with av.open(str(files["annotated.mp4"])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 768, 576)
        assert sum(1 for _ in container.decode(stream)) == 100


def test_both_themes_can_be_read(analysed):
    page = analysed.page
    worst = {}
    for theme in ("light", "dark"):
        if page.evaluate("document.body.classList.contains('dark')") != (theme == "dark"):
            page.locator(".kt-theme").click()
        page.wait_for_timeout(400)
        analysed.picture(f"6-{theme}", full_page=True)
        worst[theme] = page.evaluate(CONTRAST)
        assert (sum(analysed.color_at(2, 2)) < 200) == (theme == "dark")
    page.locator(".kt-theme").click()
    assert all(ratio >= 4.5 for ratio, _ in worst.values()), worst


# The lowest contrast (WCAG 2) of any text of the result with what lies behind it.
CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const part = (v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = numbers(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] > 0.5) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ''];
  for (const node of document.querySelectorAll('#kt-result .kt-result *, #kt-header *')) {
    const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!text || !node.checkVisibility() || node.closest('.kt-said, option')) continue;
    const [a, b] = [light(numbers(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < worst[0]) worst = [ratio, `${node.className}: ${node.textContent.slice(0, 30)}`];
  }
  return worst;
}"""


def test_cancelling_stops_the_worker_within_two_seconds(visit, example, patience):
    visitor = visit()
    visitor.open()
    visitor.give(example)
    visitor.page.locator("#kt-run").click()
    visitor.page.locator(".kt-progress").wait_for()
    started = time.perf_counter()
    visitor.page.locator("#kt-cancel").click()
    # The words come when the worker has ended, not when it has been asked to.
    visitor.page.get_by_text("Cancelled.").wait_for()
    assert time.perf_counter() - started < 2 * patience
    visitor.picture("7-cancelled")
    assert visitor.page.locator("#kt-result .kt-result").count() == 0
    assert visitor.page.locator("#kt-run").is_enabled()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"This is a text, not a video.\n" * 40, "cannot be opened as a video"),
        (b"ffconcat version 1.0\nfile pets2009.mp4\n", "is a playlist"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n/etc/passwd\n#EXT-X-ENDLIST\n", "cannot be opened as a video"),
    ],
    ids=["text", "concat", "hls"],
)
def test_what_is_no_video_is_answered_with_a_sentence(visit, tmp_path, content, message):
    path = tmp_path / "holiday.mp4"
    path.write_bytes(content)
    visitor = visit()
    visitor.open()
    visitor.page.locator("#kt-video input[type=file]").first.set_input_files(str(path))
    visitor.page.locator("#kt-video video, #kt-video .file-name, #kt-video button[aria-label=Clear]").first.wait_for()
    visitor.page.locator("#kt-run").click()
    notice = visitor.page.locator("#kt-status .kt-error")
    notice.wait_for()
    assert message in notice.inner_text()
    assert "Traceback" not in notice.inner_text() and "/tmp" not in notice.inner_text()
    visitor.picture("8-no-video")


def test_an_address_within_the_network_is_answered_with_a_sentence(visit):
    visitor = visit()
    visitor.open()
    visitor.page.get_by_role("button", name="From an address").click()
    visitor.page.locator("#kt-address textarea, #kt-address input").fill("http://169.254.169.254/holiday.mp4")
    visitor.page.locator("#kt-fetch").click()
    visitor.page.locator("#kt-status .kt-error").wait_for()
    assert "leads to a private network" in visitor.page.locator("#kt-status").inner_text()


def test_the_start_is_seen_without_scrolling(visit):
    visitor = visit(viewport={"width": 1280, "height": 720})
    visitor.open()
    button = visitor.page.locator("#kt-run").bounding_box()
    assert button["y"] + button["height"] <= 720


def test_a_video_that_is_too_long_is_refused_before_any_work(visit, make_video, draw_frames, tmp_path):
    path = make_video(tmp_path / "long.mp4", draw_frames(50), frame_rate=2)
    visitor = visit()
    visitor.open()
    assert "Up to 20 s" in visitor.page.locator(".kt-limits").first.inner_text()
    visitor.give(path)
    visitor.page.locator("#kt-run").click()
    notice = visitor.page.locator("#kt-status .kt-error")
    notice.wait_for()
    assert "25 s long; the limit here is 20 s" in notice.inner_text()


def test_two_pages_at_once_get_their_own_results(visit, long_video_path, sound_video_path, patience):
    pages = {visit(): long_video_path, visit(): sound_video_path}
    for visitor, path in pages.items():
        visitor.open()
        visitor.give(path)
    for visitor in pages:
        visitor.page.locator("#kt-run").click()
    for visitor, path in pages.items():
        visitor.page.locator("#kt-result .kt-result video").wait_for(timeout=120_000 * patience)
        assert path.name in visitor.page.locator("#kt-result .kt-headline").inner_text()
    links = [v.page.locator("#kt-result video").get_attribute("src") for v in pages]
    assert links[0].rsplit("/", 4)[0] != links[1].rsplit("/", 4)[0]


def test_a_full_queue_is_answered_with_a_sentence(visit, long_video_path):
    """The server's own answer is put in place of the real one; `tests/demo` holds that there is a bound."""
    visitor = visit()
    visitor.open()
    visitor.give(long_video_path)
    full = {"detail": "Queue is full. Max size is 12 and size is 12."}
    visitor.page.route("**/queue/join*", lambda route: route.fulfill(status=503, json=full))
    visitor.page.locator("#kt-run").click()
    visitor.page.get_by_text("Too many people are waiting").wait_for()
    assert visitor.page.locator("#kt-run").is_enabled()


def test_a_recording_of_the_webcam_is_analysed(visit, patience):
    visitor = visit()
    visitor.open()
    recorder = visitor.page.locator("#kt-video")
    recorder.get_by_role("button", name="Capture from camera").click()
    recorder.get_by_text("Click to Access Webcam").click()
    recorder.get_by_role("button", name="start recording").click()
    recorder.get_by_text("Stop").wait_for()
    visitor.page.wait_for_timeout(1500 * min(4, patience))
    recorder.get_by_role("button", name="start recording").click()  # Gradio calls it so also while it records
    recorder.locator("video[src]").wait_for()
    visitor.analyse()
    assert "tracked" in visitor.page.locator("#kt-result .kt-headline").inner_text()


def test_a_link_brings_the_settings_back(visit, long_video_path):
    visitor = visit()
    visitor.open("?task=tracking&fps=10&threshold=0.3")
    visitor.page.locator("#kt-task input[value=tracking]:checked").wait_for()
    visitor.give(long_video_path)
    visitor.analyse()
    command = visitor.page.locator("#kt-result .kt-copy code").inner_text()
    assert command == "kinetrack analyze long.mp4 --model kinetrack-nano --task tracking --fps 10 --threshold 0.3"
    assert visitor.page.locator("#kt-result .kt-actions").count() == 0


def test_it_fits_a_phone(visit, phone):
    visitor = visit(**phone)
    visitor.open()
    wider = f"document.scrollingElement.scrollWidth - {phone['viewport']['width']}"  # innerWidth grows with the page
    assert visitor.page.evaluate(wider) <= 0
    visitor.page.locator("#kt-example").click()
    visitor.page.locator("#kt-video video").wait_for()
    visitor.analyse()
    visitor.wait_for_frame()
    visitor.picture("9-phone", full_page=True)
    assert visitor.page.evaluate(wider) <= 0
    for name in ("Live", "Compare", "How it works"):
        visitor.tab(name)
        visitor.page.wait_for_timeout(400)
        visitor.picture(f"13-phone-{name.split()[0].lower()}", full_page=True)
        assert visitor.page.evaluate(wider) <= 0, name
