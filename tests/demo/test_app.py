"""The running demo, through the doors that programs use: its API, its files, and what it refuses."""

import dataclasses
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from kinetrack.demo.app import _settings_of
from kinetrack.demo.context import UNKNOWN_ERROR, sentence
from kinetrack.demo.controls import read_choices, read_page, read_size
from kinetrack.demo.jobs import Choices, Finished
from kinetrack.demo.limits import Refused
from kinetrack.demo.result_view import result_view
from kinetrack.demo.work import work
from kinetrack.processing.analyze import analyze


def without_timing(found: dict) -> dict:
    return {key: value for key, value in found.items() if key != "performance"}


def test_analyze_returns_the_json_of_the_command_line(client, long_video_path, model_folder, tmp_path):
    found = client.predict(video=handle_file(long_video_path), task="both", fps=10, api_name="/analyze")
    analyze(long_video_path, model=model_folder, fps=10.0, device="cpu", output=tmp_path, video=False)
    expected = json.loads((tmp_path / "long" / "analysis.json").read_text())
    assert without_timing(found) == without_timing(expected)
    assert set(found["performance"]) == set(expected["performance"])


def test_annotate_returns_a_video(client, long_video_path):
    import av

    answer = client.predict(video=handle_file(long_video_path), task="tracking", api_name="/annotate")
    path = answer["video"] if isinstance(answer, dict) else answer
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 160, 96)
        assert sum(1 for _ in container.decode(stream)) == 75


def test_endpoints_are_named_documented_and_typed(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/analyze", "/annotate", "/limits"}
    for name in ("/analyze", "/annotate"):
        parameters = endpoints[name]["parameters"]
        assert [p["parameter_name"] for p in parameters] == ["video", "task", "fps", "threshold", "size", "model"]
        assert all(p["python_type"]["type"] for p in parameters)
        assert [p["parameter_has_default"] for p in parameters] == [False] + 5 * [True]
        assert "frames a second" in endpoints["/analyze"]["description"]
    assert not client.view_api(return_format="dict")["unnamed_endpoints"]


def test_limits_are_told(client, options):
    told = client.predict(api_name="/limits")
    assert (told["max_seconds"], told["models"]) == (4, list(options.models))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 3}, "number between 0 and 1"),
        ({"fps": -5}, "0.1 to 240"),
        ({"size": "100x100"}, "multiples of 32"),
    ],
)
def test_bad_settings_are_a_sentence(client, video_path, changes, message):
    with pytest.raises(AppError, match=message):
        client.predict(video=handle_file(video_path), api_name="/analyze", **changes)


@pytest.mark.parametrize("model", ["../../../etc", "/etc", "somebody/else"])
def test_no_other_model_is_loaded(client, video_path, model):
    with pytest.raises(AppError):
        client.predict(video=handle_file(video_path), model=model, api_name="/analyze")


def test_what_is_no_video_is_a_sentence_and_is_logged_without_its_name(client, tmp_path, capfd, caplog, video_path):
    text = tmp_path / "Jane-Doe.mp4"
    text.write_text("This is text.\n" * 50)
    playlist = tmp_path / "Jane-Doe-2.mp4"
    playlist.write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    damaged = tmp_path / "Jane-Doe-3.mp4"
    damaged.write_bytes(video_path.read_bytes()[:2500])
    for path, message in ((text, "cannot be opened as a video"), (playlist, "playlist"), (damaged, ".")):
        with pytest.raises(AppError, match=message) as caught:
            client.predict(video=handle_file(path), api_name="/analyze")
        assert "Traceback" not in str(caught.value) and "/" not in str(caught.value).replace("MKV/", "")
    out, err = capfd.readouterr()
    assert "Jane" not in out + err + caplog.text


def test_a_damaged_video_is_told_to_the_visitor_and_not_to_the_log(context, make_video, draw_frames, tmp_path, caplog):
    caplog.set_level("INFO", logger="kinetrack")
    path = make_video(tmp_path / "Jane-Doe.mkv", draw_frames(60))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    *_, last = work(context, "damaged", "video", str(path), Choices(context.options.models[0]))
    assert 5 < len(last.analysis.times) < 60
    assert "Parts of this video are damaged" in result_view(last)
    assert "Analysed" in caplog.text and "Jane" not in caplog.text


def test_a_video_over_the_limit_is_refused_before_any_work(client, make_video, draw_frames, tmp_path, monkeypatch):
    from kinetrack.demo import jobs

    monkeypatch.setattr(jobs, "analyze", lambda *a, **k: pytest.fail("work began"))
    path = make_video(tmp_path / "long.mp4", draw_frames(130))
    with pytest.raises(AppError, match="5 s long; the limit here is 4 s"):
        client.predict(video=handle_file(path), api_name="/analyze")


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../../../../etc/passwd", "{upload}/../../etc/passwd", "file:///etc/passwd"]
)
def test_files_of_the_machine_are_neither_served_nor_analysed(demo, path):
    target = path.format(upload=demo.context.workspaces.root)
    served = httpx.get(f"{demo.url}gradio_api/file={target}")
    assert served.status_code in (403, 404) and b"root:" not in served.content
    assert "root" not in str(call(demo, {"path": target, "meta": {"_type": "gradio.FileData"}}))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/secret.mp4", "https://example.org/a.mp4", "HTTP://example.org/a.mp4"]
)
def test_gradios_own_ways_of_fetching_addresses_are_closed(demo, url, monkeypatch):
    from gradio import processing_utils, routes

    monkeypatch.setattr(processing_utils, "async_ssrf_protected_get", lambda *a: pytest.fail("fetched"))
    monkeypatch.setattr(routes, "secure_url_stream_response", lambda *a: pytest.fail("fetched"))
    answer = httpx.get(f"{demo.url}gradio_api/file={url}")
    assert (answer.status_code, answer.text) == (403, "Only files of this demo are served.")
    told = call(demo, {"path": url, "meta": {"_type": "gradio.FileData"}})
    assert "addresses are not fetched here" in told or not url.startswith("http")


def call(demo, video: dict) -> str:
    """The answer of `/analyze` to a file that no upload made."""
    body = {"data": [video, "both", None, None, "", demo.context.options.models[0]]}
    event = httpx.post(f"{demo.url}gradio_api/call/analyze", json=body).json()["event_id"]
    answer = httpx.get(f"{demo.url}gradio_api/call/analyze/{event}", timeout=60).text
    assert "event: error" in answer
    return answer


def test_two_visitors_at_once_do_not_disturb_each_other(demo, long_video_path, sound_video_path):
    alone = [one_visit(demo, path) for path in (long_video_path, sound_video_path)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda path: one_visit(demo, path), (long_video_path, sound_video_path)))
    assert together == alone


def one_visit(demo, path) -> dict:
    visitor = Client(demo.url, verbose=False)
    found = visitor.predict(video=handle_file(path), api_name="/analyze")
    visitor.close()
    # Else the page's end might be noticed when the next visitor has uploaded the same file, which has the same place.
    demo.context.workspaces.close(visitor.session_hash)
    return without_timing(found)


def test_two_calls_of_one_visitor_do_not_delete_each_others_files(context, video_path, monkeypatch):
    from kinetrack.demo import work as module
    from kinetrack.demo.app import build_app

    (annotate,) = [call.fn for call in build_app(context).fns.values() if call.api_name == "annotate"]
    run, turns = module.run_job, iter("12")
    written, begun = threading.Event(), threading.Event()

    def run_in_turns(*arguments):
        first = next(turns) == "1"
        if not first:
            begun.set()
        for news in run(*arguments):
            if first and isinstance(news, Finished):  # its files are written: now the other call begins
                written.set()
                assert begun.wait(60)
            yield news

    monkeypatch.setattr(module, "run_job", run_in_turns)
    with ThreadPoolExecutor(2) as pool:
        call = (annotate, str(video_path), "tracking")
        request = SimpleNamespace(session_hash="a")
        first = pool.submit(*call, request=request)
        assert written.wait(60)
        second = pool.submit(*call, request=request)
        paths = [Path(first.result()), Path(second.result())]
    assert paths[0] != paths[1] and all(path.is_file() for path in paths)
    context.workspaces.close("a")
    assert not any(path.exists() for path in paths)


def test_files_of_a_call_stay_only_where_they_are_still_to_be_served(demo, client, video_path):
    folder = demo.context.workspaces.of(client.session_hash).folder
    video = handle_file(video_path)
    client.predict(video=video, api_name="/analyze")
    with pytest.raises(AppError):
        client.predict(video=video, threshold=3, api_name="/analyze")
    assert folder.is_dir() and not list(folder.iterdir())
    client.predict(video=video, task="tracking", api_name="/annotate")
    client.predict(video=video, api_name="/analyze")
    (kept,) = folder.iterdir()
    assert list(kept.rglob("annotated.mp4"))


@pytest.mark.parametrize("place", ["kt-video", "kt-compare-video"])
def test_an_upload_is_its_pages_own_as_soon_as_the_page_shows_it(context, tmp_path, place):
    from kinetrack.demo.app import build_app

    app = build_app(context)
    (number,) = [key for key, block in app.blocks.items() if getattr(block, "elem_id", None) == place]
    (claim,) = [dependency for dependency in app.fns.values() if (number, "change") in dependency.targets]
    assert not claim.queue and claim.api_visibility == "private"
    spaces = context.workspaces
    upload = spaces.root / "same" / "clip.mp4"
    upload.parent.mkdir(parents=True)
    upload.touch()
    for session in "ab":
        claim.fn(str(upload), SimpleNamespace(session_hash=session))
    claim.fn(None, SimpleNamespace(session_hash="b"))  # the video is taken away again
    spaces.close("a")
    assert upload.exists()
    spaces.close("b")
    assert not upload.exists()


def test_files_of_a_visitor_are_deleted_when_the_visitor_leaves(demo, video_path, tmp_path):
    own = tmp_path / "left-behind.mp4"
    own.write_bytes(video_path.read_bytes() + b"\0")  # another content, so another upload than anybody else's
    visitor = Client(demo.url, verbose=False)
    visitor.predict(video=handle_file(own), api_name="/analyze")
    root = demo.context.workspaces.root
    assert list(root.rglob("left-behind*"))
    visitor.close()
    demo.context.workspaces.close(visitor.session_hash)
    assert not [path for path in root.rglob("left-behind*") if path.is_file()]


def test_an_upload_that_is_gone_is_a_sentence(context, tmp_path):
    with pytest.raises(Refused, match="no longer here.*Upload it again"):
        next(work(context, "a", "video", str(tmp_path / "gone.mp4"), Choices(context.options.models[0])))
    with pytest.raises(Refused, match="Choose a video first"):
        next(work(context, "a", "video", None, Choices(context.options.models[0])))


def test_leaving_the_page_closes_the_workspace(demo):
    spaces = demo.context.workspaces
    workspace = spaces.of("leaving")
    with httpx.stream("GET", f"{demo.url}gradio_api/heartbeat/leaving", timeout=5) as heartbeat:
        next(heartbeat.iter_lines())
    deadline = time.monotonic() + 20
    while workspace.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workspace.cancelled.is_set() and not workspace.folder.exists()


def test_the_page_itself_asks_no_other_server(demo):
    text = httpx.get(demo.url).text
    assert "fonts.googleapis" not in text


def test_a_queue_that_is_full_turns_visitors_away(options):
    from kinetrack.demo.app import build_app, make_context

    app = build_app(make_context(dataclasses.replace(options, queue_size=3)))
    assert app._queue.max_size == 3


@pytest.mark.parametrize("allowed", [True, False])
def test_addresses_are_asked_for_only_where_they_are_allowed(options, allowed):
    from kinetrack.demo.app import build_app, make_context

    app = build_app(make_context(dataclasses.replace(options, allow_urls=allowed)))
    found = [block for block in app.blocks.values() if getattr(block, "elem_id", None) in ("kt-address", "kt-fetch")]
    assert len(found) == (2 if allowed else 0)


def test_errors_that_nobody_expects_are_logged_by_place_alone(caplog):
    folders, name = {}, "Jane Doe"
    try:
        folders[name]
    except KeyError as error:
        assert sentence(error) == UNKNOWN_ERROR
    assert "Doe" not in caplog.text and "test_app.py" in caplog.text


def test_settings_of_a_link_are_read_and_nonsense_is_not(context):
    model = context.options.models[0]
    values = _settings_of(context, {"task": "tracking", "fps": "10", "threshold": "0.3", "size": "256x448"})
    assert values == [model, "tracking", 10, 0.3, "256x448"]
    for wrong in ({"task": "steal"}, {"fps": "many"}, {"model": "../etc"}, {"size": "1x1"}, {"threshold": "9"}):
        assert all(isinstance(value, dict) for value in _settings_of(context, wrong))  # nothing is changed


def test_the_slider_where_it_begins_means_the_models_own_threshold(context):
    model = context.options.models[0]
    own = round(context.networks.get()[0].config.detection_threshold, 2)
    assert read_page(context.networks, model, "both", 0, own, "") == Choices(model)
    assert read_page(context.networks, model, "both", 5, 0.9, "").threshold == 0.9
    assert read_choices(context.networks, "", "both", None, own, None).threshold == own


@pytest.mark.parametrize("text", ["100x100", "256", "256x", "0x0", "99999x32", "x" * 5000, "256x448; rm"])
def test_model_inputs_that_cannot_be_are_refused(text):
    with pytest.raises(Refused, match="256x448"):
        read_size(text)
    assert read_size(" 256 × 448 ") == (256, 448) and read_size("") is None


def test_models_are_loaded_once_for_all(context):
    with ThreadPoolExecutor(4) as pool:
        networks = list(pool.map(lambda _: context.networks.get(), range(4)))
    assert all(network is networks[0] for network in networks)
    assert threading.active_count() < 200
