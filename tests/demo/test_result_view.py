"""What the page says of a result: true, complete, escaped, and readable without seeing it."""

import json
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from kinetrack.demo.compare_tab import compare_view, differences
from kinetrack.demo.evidence import ATTENTION, VIEW
from kinetrack.demo.explain_tab import beta_at, explain_clip, people_share
from kinetrack.demo.jobs import Choices, Finished, Progress
from kinetrack.demo.markup import clock_time, escape, short_names, spoken_action, spoken_rate, spoken_task
from kinetrack.demo.people import people_table
from kinetrack.demo.result_view import (
    command_line,
    headline,
    notice,
    progress_view,
    result_view,
    settings_query,
)
from kinetrack.demo.timeline import Span, timeline
from kinetrack.processing.drawing import in_words
from kinetrack.processing.results import KeyFrame
from PIL import Image

VOID = {"img", "input", "br", "i", "path", "rect", "line", "polyline", "polygon", "circle", "option"}


class Elements(HTMLParser):
    """All elements of a page with their attributes, and whether every one is closed."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def page(finished):
    return Elements(result_view(finished))


def test_every_element_is_closed(page):
    assert page.open == []


def test_everything_that_is_seen_has_words(page):
    assert all(image.get("alt") for image in page.of("img"))
    assert all(drawing.get("aria-label") and drawing.get("role") == "img" for drawing in page.of("svg"))
    assert all(video.get("aria-label") for video in page.of("video"))
    assert all(field.get("aria-label") for field in page.of("input"))


def test_there_is_a_lane_a_bar_and_a_row_for_every_track(page, finished):
    tracks = finished.analysis.tracks
    assert tracks
    rows = [attributes["data-track"] for attributes in page.of("tr") if "data-track" in attributes]
    assert sorted(map(int, rows)) == sorted(track.id for track in tracks)
    bars = [button for button in page.of("button") if button.get("class") == "kt-bar"]
    visits = [(track.id, start) for track in tracks for start, _ in track.visits]
    drawn = np.array(sorted((int(bar["data-track"]), float(bar["data-time"])) for bar in bars))
    assert drawn == pytest.approx(np.array(sorted(visits)), abs=1e-4)


def test_bars_stand_where_their_time_is(page, finished):
    end = Span(finished.analysis).end
    for bar in (button for button in page.of("button") if button.get("class") == "kt-bar"):
        left = float(re.search(r"left:([\d.]+)%", bar["style"])[1])
        assert left == pytest.approx(100 * float(bar["data-time"]) / end, abs=0.01)


def test_files_of_the_result_are_offered_and_exist(page, finished):
    links = {link["download"]: link for link in page.of("a") if "download" in link}
    assert set(links) == {"annotated.mp4", "tracks.txt", "analysis.json", "boxes.csv", "summary.png"}
    for name, link in links.items():
        assert (finished.analysis.output / name).stat().st_size > 0
        assert link["href"] == f"gradio_api/file={finished.analysis.output / name}"


def test_the_csv_holds_the_boxes_of_the_tracks(finished):
    import pandas as pd

    read = pd.read_csv(finished.analysis.output / "boxes.csv")
    assert len(read) == len(finished.analysis.observations.track_ids)
    assert list(read.columns[:4]) == ["frame_index", "time", "track_id", "class"]


def test_the_overlay_has_a_tile_for_every_frame(finished):
    view = json.loads((finished.analysis.output / VIEW).read_text())
    layout = view["attention"]
    assert len(view["times"]) == len(view["strongest"]) == 75
    with Image.open(finished.analysis.output / ATTENTION) as sheet:
        assert sheet.width == layout["columns"] * layout["width"]
        assert sheet.height == -(-75 // layout["columns"]) * layout["height"]
        opacity = np.asarray(sheet.convert("RGBA"))[..., 3]
    for index in (0, 40, 74):
        row, column = divmod(index, layout["columns"])
        height, width = layout["height"], layout["width"]
        tile = opacity[row * height : (row + 1) * height, column * width : (column + 1) * width]
        level = finished.evidence.attention(index)
        assert np.unravel_index(tile.argmax(), tile.shape) == np.unravel_index(level.argmax(), level.shape)
        assert ((tile == 0) == (level == 0)).all()


def test_boxes_of_the_page_are_those_of_the_analysis(finished):
    view = json.loads((finished.analysis.output / VIEW).read_text())
    found = finished.analysis.observations
    assert sum(map(len, view["tracks"].values())) == len(found.track_ids)
    position, *box = view["tracks"][str(found.track_ids[0])][0]
    assert position == found.position[0]
    assert box == pytest.approx(found.boxes[0], abs=0.51)


def test_a_hostile_file_name_is_only_text(finished):
    name = '${alert(1)}{{value}}"><img src=x onerror=alert(1)>.mp4'
    source = finished.analysis.source | {"name": name}
    import dataclasses

    hostile = Finished(dataclasses.replace(finished.analysis, source=source), finished.evidence, finished.choices)
    for text in (result_view(hostile), explain_clip(hostile), compare_view(hostile, hostile)):
        assert "<img src=x" not in text and "${" not in text and "{{" not in text
        assert Elements(text).open == []


def test_the_headline_says_how_many_and_what(finished):
    text = headline(finished.analysis)
    assert f"<b>{len(finished.analysis.tracks)}</b>" in text
    assert "75 frames" in text and "160×96" in text


@pytest.mark.parametrize("task", ["tracking", "actions"])
def test_one_task_alone_is_shown_alone(task, context, long_video_path, tmp_path):
    import threading

    from kinetrack.demo.jobs import run_job
    from kinetrack.demo.result_view import save_extras

    *_, last = run_job(
        long_video_path, context.networks.get(), Choices("tiny", task=task), tmp_path, threading.Event(), 600
    )
    save_extras(last)
    text = result_view(last) + explain_clip(last) + compare_view(last, last)
    assert Elements(text).open == []
    rows = timeline(last.analysis)
    assert ("What happens" in rows) == (task == "actions")
    assert ("How many" in rows) == (task == "tracking")
    assert bool(people_table(last.analysis, last.evidence.portraits)) == (task == "tracking")


def test_the_command_gives_the_same_settings():
    choices = Choices("me/model", task="tracking", fps=10.0, threshold=0.5, size=(256, 448))
    command = command_line("my video.mp4", choices)
    assert shlex.split(command) == [
        *("kinetrack", "analyze", "my video.mp4", "--model", "me/model", "--task", "tracking"),
        *("--fps", "10", "--threshold", "0.5", "--size", "256x448"),
    ]


def test_the_link_carries_the_settings():
    choices = Choices("me/model", task="actions", fps=10.0, threshold=0.5, size=(256, 448))
    assert settings_query(choices) == "task=actions&fps=10&threshold=0.5&model=me%2Fmodel&size=256x448"
    assert settings_query(Choices("kinetrack-nano")) == "task=both"


def test_progress_says_frames_and_seconds_left():
    assert "frame 50 of 100" in progress_view(Progress(50, 100, 5.0))
    assert "about 5 s left" in progress_view(Progress(50, 100, 5.0))
    assert "writing the files" in progress_view(Progress(100, 100, 5.0))
    assert "estimating" in progress_view(Progress(1, None, 5.0))
    assert 'role="alert"' in notice("No.", "error")


def test_differences_name_what_differs(finished):
    import dataclasses

    other = Finished(finished.analysis, finished.evidence, dataclasses.replace(finished.choices, fps=5.0))
    rows = {name: (left, right) for name, left, right in differences(finished, other)}
    assert rows["Frames a second"] == ("every frame", "5")
    assert rows["Identities"][0] == rows["Identities"][1] == str(len(finished.analysis.tracks))


def test_models_are_called_by_what_tells_them_apart(tmp_path):
    folders = [tmp_path / run / "model" for run in ("one", "two")]
    for folder in folders:
        folder.mkdir(parents=True)
    names = ["kinetrack-nano", "me/model", *map(str, folders)]
    assert list(short_names(names).values()) == ["kinetrack-nano", "me/model", "one/model", "two/model"]
    assert short_names([str(folders[0])]) == {str(folders[0]): "model"}


def test_the_share_of_attention_on_people_is_measured():
    attention = np.zeros((4, 4), np.float32)
    attention[1, 1], attention[3, 3] = 0.75, 0.25
    image = np.zeros((64, 64, 3), np.uint8)
    frame = KeyFrame(image, 0.0, 0, np.array([[16, 16, 32, 32]], np.float32), np.array([1]), attention)
    assert people_share(frame) == pytest.approx((0.75, 1 / 16))


def test_the_clip_is_explained_with_its_own_numbers(finished):
    text = explain_clip(finished)
    analysis = finished.analysis
    assert f"<b>{analysis.tick_attention.max():.2f}</b> times the average" in text
    assert text.count("<figure>") == 2
    assert beta_at(analysis, float(analysis.tick_times[3])) == analysis.tick_attention[3]


def test_words():
    assert [clock_time(value) for value in (5.25, 65.25)] == ["5.2 s", "1:05.2"]
    assert [in_words(label) for label in ("shoot_ball", "noFight", "walk")] == ["shoot ball", "no fight", "walk"]
    assert [spoken_task(task) for task in ("both", "tracking")] == ["actions and tracking", "tracking"]
    assert [spoken_rate(fps) for fps in (None, 10.0)] == ["every frame", "10"]
    assert spoken_action("walk", 0.71) == "walk 71%"
    assert spoken_action("uncertain", 0.31, [("walk", 0.31)]) == "uncertain (walk 31%)"
    assert escape("<a href='{$}'>") == "&lt;a href=&#x27;&#123;&#36;&#125;&#x27;&gt;"


def test_assets_ask_no_other_server_for_anything():
    folder = Path(result_view.__globals__["__file__"]).parent / "assets"
    texts = [path.read_text(encoding="utf-8") for path in folder.iterdir() if path.suffix in (".css", ".js", ".html")]
    assert texts
    assert not [text for text in texts if re.search(r"""(?:src|href|url|import|fetch)\s*[=(]\s*["']?https?:""", text)]
