"""Files of a stream that was killed fit the state again."""

import json

import pytest
from kinetrack.processing import stream_files
from kinetrack.processing.stream_files import take_up


@pytest.fixture(params=[1 << 20, 40], ids=["at once", "in blocks"])
def folder(tmp_path, request, monkeypatch):
    """Ten frames, each with the track of its number and one that is always there, an event, and half a line."""
    monkeypatch.setattr(stream_files, "_BLOCK", request.param)
    lines = [{"frame_index": frame, "tracks": [{"id": 3}, {"id": 10 + frame}]} for frame in range(10)]
    lines.insert(4, {"event": "disconnected"})
    lines.insert(7, {"event": "reconnected"})
    (tmp_path / "frames.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"frame_in')
    boxes = "".join(f"{frame + 1},{track},1,2,3,4,1,-1,-1,-1\n" for frame in range(10) for track in (3, 10 + frame))
    (tmp_path / "tracks.txt").write_text(boxes + "11,3")
    return tmp_path


def test_frames_that_come_again_are_removed(folder):
    assert take_up(folder, 6, again=True) == (6, 1)
    lines = [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]
    assert [line.get("frame_index", line.get("event")) for line in lines] == [
        0,
        1,
        2,
        3,
        "disconnected",
        4,
        5,
        "reconnected",
    ]
    assert (folder / "tracks.txt").read_text().splitlines()[-1].startswith("6,15,")


def test_frames_of_a_camera_stay_and_their_numbers_are_taken(folder):
    assert take_up(folder, 6, again=False) == (10, 20)
    assert (folder / "frames.jsonl").read_text().count("frame_index") == 10
    assert (folder / "tracks.txt").read_text().splitlines()[-1].startswith("10,19,")


@pytest.mark.parametrize("again", [True, False])
def test_files_that_fit_stay_as_they_are(folder, again):
    take_up(folder, 6, again=True)
    before = [(folder / name).read_bytes() for name in ("frames.jsonl", "tracks.txt")]
    assert take_up(folder, 6, again)[0] == 6
    assert [(folder / name).read_bytes() for name in ("frames.jsonl", "tracks.txt")] == before


def test_all_may_be_newer_and_none_may_be_there(folder, tmp_path):
    take_up(folder, 0, again=True)
    assert (folder / "frames.jsonl").read_text() == (folder / "tracks.txt").read_text() == ""
    assert take_up(folder / "nowhere", 5, again=True) == (5, 1)
