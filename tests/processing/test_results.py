"""The result object: what is kept of a stream, and what it becomes."""

import json

import numpy as np
import pytest
from kinetrack.processing.recording import NUM_KEY_FRAMES, AnalysisRecorder
from kinetrack.processing.results import SCHEMA, SCHEMA_VERSION
from kinetrack.processing.session_kinetrack import KineTrackFrameResult

ACTIONS = ["walk", "run", "sit"]
MODEL = {
    "name": "scripted",
    "trained": True,
    "actions": ACTIONS,
    "groups": {"fight": ["noFight", "fight"]},
    "object_classes": ["person", "dog"],
    "action_threshold": 0.5,
    "frame_rate": 12.5,
    "attention_window": 4,
}
SOURCE = {
    "name": "scripted.mp4",
    "width": 96,
    "height": 64,
    "frame_rate": 25.0,
    "duration": 0.8,
    "num_frames": 20,
    "has_audio": False,
    "codec": "h264",
    "rotation": 0,
}
SETTINGS = {"task": "both", "fps": None, "threshold": 0.4, "size": None, "device": "cpu"}


def frame_result(index: int, *, tracks=(1,), updated=True, actions=None, clip=(0.7, 0.2, 0.1), ticks=4):
    """A frame in which track i is at x = 10 i and walks right by one pixel a frame."""
    boxes = np.array([[10 * i + index, 5, 10 * i + index + 8, 25] for i in tracks], np.float32).reshape(-1, 4)
    probabilities = np.array([(actions or {}).get(i, (0.8, 0.1, 0.1)) for i in tracks], np.float32).reshape(-1, 3)
    return KineTrackFrameResult(
        frame=np.full((64, 96, 3), index % 256, np.uint8),
        frame_index=index,
        time=index / 25,
        height=64,
        width=96,
        track_ids=np.array(tracks, np.int64),
        boxes=boxes,
        scores=np.full(len(tracks), 0.75, np.float32),
        labels=np.array([i % 2 for i in tracks], np.int64),
        actions=probabilities,
        clip_action=np.array(clip, np.float32),
        group_actions={"fight": np.array([0.9, 0.1], np.float32)},
        spatial_attention=np.full((4, 6), 1 / 24, np.float32),
        temporal_attention=np.full(ticks, 1 / ticks, np.float32),
        window_times=np.arange(ticks) / 12.5,
        updated=updated,
        timings={"model": 0.01},
    )


def record(results, model=MODEL, settings=SETTINGS):
    recorder = AnalysisRecorder(dict(SOURCE), dict(model), dict(settings))
    for result in results:
        recorder.add(result)
    return recorder.finish()


def test_mot_lines_count_frames_from_one_and_give_left_top_width_height():
    analysis = record([frame_result(0), frame_result(4, tracks=(1, 2))])
    lines = analysis.to_mot().splitlines()
    assert lines[0] == "1,1,10.00,5.00,8.00,20.00,0.7500,-1,-1,-1"
    assert lines[2] == "5,2,24.00,5.00,8.00,20.00,0.7500,-1,-1,-1"
    assert len(lines) == 3


def test_track_action_is_the_mean_at_ticks_only():
    results = [
        frame_result(0, actions={1: (0.6, 0.4, 0.0)}),
        frame_result(1, actions={1: (0.0, 0.0, 1.0)}, updated=False),
        frame_result(2, actions={1: (0.8, 0.2, 0.0)}),
    ]
    track = record(results).tracks[0]
    assert track.action == "walk"
    assert track.confidence == pytest.approx(0.7)
    assert dict(track.actions) == pytest.approx({"walk": 0.7, "run": 0.3, "sit": 0.0})


def test_track_seen_only_between_ticks_still_has_an_action():
    analysis = record([frame_result(0), frame_result(1, tracks=(1, 2), actions={2: (0.1, 0.9, 0.0)}, updated=False)])
    assert [track.action for track in analysis.tracks] == ["walk", "run"]


def test_below_the_threshold_clip_and_track_are_uncertain():
    analysis = record([frame_result(0, actions={1: (0.4, 0.3, 0.3)}, clip=(0.45, 0.3, 0.25))])
    assert analysis.tracks[0].action == analysis.action == analysis.clip_actions[0].action == "uncertain"
    assert analysis.tracks[0].confidence == pytest.approx(0.4)
    assert analysis.actions[0] == ("walk", pytest.approx(0.45))
    assert analysis.to_pandas()["action"].tolist() == ["uncertain"]


@pytest.mark.parametrize(
    ("ticks", "windows"),
    [
        (3, [(0, 2)]),  # shorter than a window: all there is
        (4, [(0, 3)]),
        (5, [(0, 3)]),  # a remainder below half a window does not count
        (6, [(0, 3), (4, 5)]),
        (8, [(0, 3), (4, 7)]),
    ],
)
def test_windows_part_the_ticks(ticks, windows):
    analysis = record([frame_result(index) for index in range(ticks)])
    found = [(round(window.start * 25), round(window.end * 25)) for window in analysis.clip_actions]
    assert found == windows
    assert len(analysis.tick_attention) == len(analysis.tick_times) == ticks


def test_action_of_the_video_is_the_mean_of_its_windows():
    clips = [(0.2, 0.8, 0.0)] * 3 + [(0.9, 0.1, 0.0)] + [(0.0, 1.0, 0.0)] * 3 + [(0.5, 0.5, 0.0)]
    analysis = record([frame_result(index, clip=clip) for index, clip in enumerate(clips)])
    assert dict(analysis.actions)["walk"] == pytest.approx(0.7)
    assert analysis.groups == {"fight": [("noFight", pytest.approx(0.9)), ("fight", pytest.approx(0.1))]}
    assert analysis.group_phrases == ["fight: noFight 90%"]
    analysis.model = analysis.model | {"action_threshold": 0.95}
    assert analysis.group_phrases == ["fight: uncertain"]


def test_uniform_attention_is_one_everywhere_also_in_a_cut_window():
    analysis = record([frame_result(index, ticks=min(4, index + 1)) for index in range(6)])
    np.testing.assert_allclose(analysis.tick_attention, 1, rtol=1e-6)


def test_track_that_was_away_has_two_visits():
    results = [frame_result(i, tracks=(1,) if i < 5 or i > 30 else ()) for i in range(40)]
    track = record(results).tracks[0]
    assert track.visits == ((0.0, pytest.approx(4 / 25)), (pytest.approx(31 / 25), pytest.approx(39 / 25)))
    assert (track.first_frame, track.last_frame, track.frames) == (0, 39, 14)


def test_json_follows_the_schema_and_agrees_with_the_dictionary():
    analysis = record([frame_result(index, tracks=(1, 2)) for index in range(6)])
    content = json.loads(analysis.to_json())
    assert (content["schema"], content["schema_version"]) == (SCHEMA, SCHEMA_VERSION)
    assert content["source"] == SOURCE
    assert content["timeline"][0]["probabilities"] == pytest.approx({"walk": 0.7, "run": 0.2, "sit": 0.1})
    track = content["tracks"][1]
    assert (track["id"], track["class"], track["frames"]) == (2, "person", 6)
    assert track["observations"]["box"][3] == [23.0, 5.0, 31.0, 25.0]
    assert track["observations"]["frame_index"] == list(range(6))
    assert {len(column) for column in track["observations"].values()} == {6}
    assert content.keys() == analysis.to_dict().keys()
    assert content["temporal_attention"]["times"] == pytest.approx(analysis.tick_times)


def test_json_of_an_unseen_action_head_has_nulls_not_nan():
    result = frame_result(0)
    result.actions = result.clip_action = None
    result.group_actions = {}
    model = MODEL | {"actions": [], "groups": {}}
    content = json.loads(record([result], model, SETTINGS | {"task": "tracking"}).to_json())
    assert content["action"] is None and content["timeline"] == []
    assert content["tracks"][0]["observations"]["confidence"] == [None]


def test_names_that_are_not_ascii_survive():
    model = MODEL | {"actions": ["läuft", "跑", "sitzt"]}
    assert json.loads(record([frame_result(0)], model).to_json())["action"] == "läuft"


def test_pandas_has_one_row_a_box():
    frame = record([frame_result(0, tracks=(1, 2)), frame_result(3)]).to_pandas()
    assert frame["frame_index"].tolist() == [0, 0, 3]
    assert frame["track_id"].tolist() == [1, 2, 1]
    assert frame["class"].tolist() == ["dog", "person", "dog"]
    assert frame.loc[2, ["x1", "y1", "x2", "y2"]].tolist() == [13.0, 5.0, 21.0, 25.0]


def test_detections_of_a_frame_are_supervisions():
    analysis = record([frame_result(0), frame_result(2, tracks=(1, 2)), frame_result(4, tracks=())])
    found = analysis.to_detections(2)
    assert type(found).__module__.startswith("supervision")
    assert found.tracker_id.tolist() == [1, 2]
    assert found.data["class_name"].tolist() == ["dog", "person"]
    assert found.data["action"].tolist() == ["walk", "walk"]
    assert len(analysis.to_detections(4)) == 0


@pytest.mark.parametrize("missing", [1, 3, 99, -1])
def test_a_frame_that_was_not_looked_at_is_an_error(missing):
    with pytest.raises(ValueError, match="not looked at"):
        record([frame_result(0), frame_result(2)]).to_detections(missing)


def test_nothing_seen_gives_empty_outputs():
    analysis = record([frame_result(index, tracks=()) for index in range(3)])
    assert analysis.to_mot() == "" and analysis.tracks == [] and len(analysis.to_pandas()) == 0
    assert json.loads(analysis.to_json())["tracks"] == []
    assert analysis.plot().get_axes()


def test_repr_says_what_was_found():
    analysis = record([frame_result(0, tracks=(1, 2))])
    assert repr(analysis) == "VideoAnalysis(scripted.mp4: 1 frames, 0.8 s, 2 tracks, action walk (70%))"
    assert "<td>walk</td>" in analysis._repr_html_()


def test_a_long_stream_keeps_a_handful_of_small_frames():
    recorder = AnalysisRecorder(dict(SOURCE), dict(MODEL), dict(SETTINGS))
    large = np.zeros((720, 1280, 3), np.uint8)
    for index in range(2000):
        result = frame_result(index, updated=False)
        result.frame, result.height, result.width = large, 720, 1280
        recorder.add(result)
        assert len(recorder._key_frames.kept) <= 4 * NUM_KEY_FRAMES
    kept = recorder.finish().key_frames
    assert len(kept) == NUM_KEY_FRAMES and max(kept[0].image.shape) == 640
    gaps = np.diff([frame.frame_index for frame in kept])
    assert gaps.min() > 200  # spread over the whole stream
    assert kept[0].boxes[0, 2] == pytest.approx((10 + kept[0].frame_index + 8) * 0.5)


def test_dollar_signs_in_names_are_no_formulas(tmp_path):
    recorder = AnalysisRecorder(SOURCE | {"name": "price_$5_to_$10.mp4"}, dict(MODEL), dict(SETTINGS))
    recorder.add(frame_result(0))
    recorder.finish().save(tmp_path)
    assert (tmp_path / "summary.png").is_file()


def test_saving_writes_three_files_that_agree_with_the_object(tmp_path):
    analysis = record([frame_result(index) for index in range(5)])
    assert analysis.save(tmp_path / "new" / "folder") == analysis.output
    assert sorted(path.name for path in analysis.output.iterdir()) == ["analysis.json", "summary.png", "tracks.txt"]
    assert (analysis.output / "tracks.txt").read_text() == analysis.to_mot()
    assert (analysis.output / "analysis.json").read_text(encoding="utf-8") == analysis.to_json()
    assert (analysis.output / "summary.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("task", ["both", "tracking", "actions"])
def test_plot_shows_the_panels_of_the_task(task):
    results = [frame_result(index, tracks=() if task == "actions" else (1, 2)) for index in range(6)]
    model = dict(MODEL)
    if task == "tracking":
        model |= {"actions": [], "groups": {}}
        for result in results:
            result.actions = result.clip_action = None
            result.group_actions = {}
    titles = [axes.get_title(loc="left") for axes in record(results, model, SETTINGS | {"task": task}).plot().axes]
    assert any(title.startswith("What happens") for title in titles) == (task != "tracking")
    assert any(title.startswith("Who does what") for title in titles) == (task != "actions")
    assert any(title.startswith("Which moments") for title in titles)


def test_plot_of_a_single_frame_and_of_a_hundred_tracks():
    assert record([frame_result(0)]).plot().axes
    figure = record([frame_result(index, tracks=tuple(range(1, 101))) for index in range(3)]).plot()
    assert any("30 longest of 100" in axes.get_title(loc="left") for axes in figure.axes)
    assert figure.get_figheight() < 25
