"""`kinetrack data check`: says what is there, what is broken and why, and draws what is whole."""

import gc
import shutil
from pathlib import Path

import pytest
from kinetrack.hub_scripts.data.check import check_data
from PIL import Image
from typer.testing import CliRunner


def problems(report):
    return {(problem.severity, problem.where): problem.what for problem in report.problems}


@pytest.fixture
def clips(tmp_path, video_path, corrupt_video_path, draw_frames, make_video):
    """Two classes of five clips each, and then some that are not as they should be."""
    for label, count in (("jump", 20), ("walk", 9)):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for number in range(5):
            make_video(folder / f"{'vwxyz'[number]}.mp4", draw_frames(count + number))
    shutil.copy(corrupt_video_path, tmp_path / "train/walk/broken.mp4")
    (tmp_path / "test/walk").mkdir(parents=True)
    shutil.copy(tmp_path / "train/walk/v.mp4", tmp_path / "test/walk/again.mp4")
    make_video(tmp_path / "test/walk/short.mp4", draw_frames(3))
    (tmp_path / "test/rare").mkdir()
    shutil.copy(video_path, tmp_path / "test/rare/a.mp4")
    (tmp_path / "train/jump/v.txt").write_text("1,1,10,10,20,20,1,1,1\n")
    (tmp_path / "train/jump/w.txt").write_text("one,two\n")
    (tmp_path / "train/jump/x.txt").write_text("1,1,10,10,20,20\n")
    return tmp_path


def test_clips_are_counted_and_what_is_wrong_is_named(clips, tmp_path):
    report = check_data(clips, tmp_path / "pictures")
    text = report.text()
    assert "labelled clips (layout folders), 3 classes" in text
    assert "train 9 clips: jump 4, walk 5" in text
    assert "dev   2 clips (set aside from train by their names): jump 1, walk 1" in text
    assert "3 to 24 frames at 25 Hz, 96 wide, 64 high; 1 with boxes of the actor" in text
    found = problems(report)
    assert "broken.mp4" in found["error", "train/walk/broken.mp4"]
    assert "expected lines `frame,id,x,y,w,h,...`" in found["error", "train/jump/w.mp4"]
    assert "x.txt: expected at least 7 columns" in found["error", "train/jump/x.mp4"]
    assert any("is the same video as" in what for (kind, _), what in found.items() if kind == "error")
    assert "3 frames are less than" in found["warning", "test/walk/short.mp4"]
    assert found["error", "rare"] == "this class has no clips to train on."
    assert report.failed
    with Image.open(tmp_path / "pictures" / "actions.png") as picture:
        assert picture.width > 3 * 288 - 1 and picture.height > 200


def test_clips_within_a_table_are_looked_at_like_files(tmp_path, make_video, draw_frames, monkeypatch):
    from datasets import Dataset, Features, Value, Video

    contents = [make_video(tmp_path / f"{n}.mp4", draw_frames(12 + n)).read_bytes() for n in range(5)]
    rows = [{"clip": {"bytes": content, "path": None}, "action": "wave"} for content in [*contents, b"no video"]]
    features = Features({"clip": Video(decode=False), "action": Value("string")})
    Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    report = check_data(tmp_path / "saved", tmp_path / "pictures")
    assert [problem.where for problem in report.problems] == ["train/000005"], report.text()
    assert "12 to 16 frames at 25 Hz, 96 wide, 64 high" in report.text()
    assert (tmp_path / "pictures" / "actions.png").is_file()
    assert all(Path(source.frames.path).is_file() for source in report.healthy["actions"])
    del report
    gc.collect()
    assert not list((tmp_path / "temporary").iterdir()), "what was written goes with the report"


def test_sequences_have_to_fit_their_ground_truth(data_root, tmp_path):
    whole = tmp_path / "WALKER"
    shutil.copytree(data_root / "mot/train/WALKER", whole)
    report = check_data(tmp_path, tmp_path / "pictures")
    assert (
        not report.problems and "12 frames of 96x64 at 25 Hz, 12 boxes of 1 identities, 36 pixels high" in report.text()
    )
    assert "Nothing is wrong" in report.text() and (tmp_path / "pictures/tracking.png").is_file()

    truth = (whole / "gt/gt.txt").read_text()
    (whole / "gt/gt.txt").write_text(
        truth + "13,1,4,4,9,9,1,-1,-1,-1\n3,1,4,4,9,9,1,-1,-1,-1\n4,2,400,4,0,9,1,-1,-1,-1\n"
    )
    ini = (whole / "seqinfo.ini").read_text()
    (whole / "seqinfo.ini").write_text(ini.replace("seqLength=12", "seqLength=99"))
    shutil.copytree(whole, tmp_path / "NOTHING", ignore=shutil.ignore_patterns("video.mp4"))
    said = [f"{p.severity} {p.where} {p.what}" for p in check_data(tmp_path).problems]
    for expected in (
        "error WALKER 1 rows of gt.txt are not in frames 1 to 12; it has 1 to 13.",
        "error WALKER identity 1 is twice in frame 3; 1 such cases.",
        "error WALKER 1 boxes have no width or height, the first in frame 4.",
        "warning WALKER 7% of the boxes lie outside the 96x64 pictures: are they in pixels of another size?",
        "error WALKER seqinfo.ini says seqLength=99, the pictures say 12.",
    ):
        assert expected in said
    assert any(line.startswith("error NOTHING") and "neither video.mp4 nor img1/" in line for line in said)


def test_the_command_prints_the_report_and_fails_on_errors(clips, tmp_path):
    from kinetrack.hub_scripts.cli import app

    result = CliRunner().invoke(app, ["data", "check", str(clips), "-o", str(tmp_path / "out"), "--quick"])
    assert result.exit_code == 1 and "broken.mp4" in result.output and "errors" in result.output
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path / "nowhere")])
    assert result.exit_code == 1 and isinstance(result.exception, FileNotFoundError)


def test_a_malformed_seqinfo_is_named(data_root, tmp_path):
    shutil.copytree(data_root / "mot/train/WALKER", tmp_path / "WALKER")
    ini = tmp_path / "WALKER/seqinfo.ini"
    for content in ("frameRate=25\n", "[Video]\nframeRate=25\n"):
        ini.write_text(content)
        (problem,) = check_data(tmp_path).problems
        assert problem.severity == "error" and f"{ini} is malformed" in problem.what and "[Sequence]" in problem.what
    ini.write_text("[Sequence]\nframeRate=fast\n")
    (problem,) = check_data(tmp_path).problems
    assert "frameRate must be a number, got 'fast'" in problem.what
