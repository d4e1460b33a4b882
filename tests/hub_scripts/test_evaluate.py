"""Evaluation over whole videos with a tiny model: what is found, run, scored and written."""

import json

import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from PIL import Image

pytest.importorskip("trackeval")
pytest.importorskip("evaluate")

from kinetrack.hub_scripts import evaluation_items  # noqa: E402
from kinetrack.hub_scripts.evaluate import evaluate  # noqa: E402
from kinetrack.hub_scripts.evaluation_items import LabelledClip, Sequence, find_items, list_items  # noqa: E402
from kinetrack.hub_scripts.evaluation_runs import Stopwatch, classify_clip, track_sequence  # noqa: E402

WIDTH, HEIGHT, LENGTH = 96, 64, 12


@pytest.fixture(scope="module")
def model(tiny_backbone):
    """A model with random weights whose heatmap has a few confident peaks."""
    torch.manual_seed(0)
    config = KineTrackConfig(
        backbone_config=tiny_backbone,
        hidden_size=8,
        embedding_size=6,
        attention_window=4,
        trained=True,
        id2label={0: "walk", 1: "run"},
        label_groups={"fight": ["noFight", "fight"]},
    )
    network = KineTrackForVideoAnalysis(config).eval()
    with torch.no_grad():
        network.tracking_head.heatmap.weight.mul_(3)
        network.tracking_head.heatmap.bias.zero_()
    return network, KineTrackVideoProcessor(size={"height": 64, "width": 96})


def write_images(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / f"{number:06d}.png")


def write_sequence(folder, boxes_of, frames=None, video=None, length=LENGTH, width=WIDTH):
    """A MOT15 sequence of the moving rectangles, as images or as a video."""
    (folder / "gt").mkdir(parents=True)
    rows = [
        f"{t + 1},{i + 1},{x1:.1f},{y1:.1f},{x2 - x1:.1f},{y2 - y1:.1f},1,-1,-1,-1\n"
        for t in range(length)
        for i, (x1, y1, x2, y2) in enumerate(boxes_of(t))
    ]
    (folder / "gt" / "gt.txt").write_text("".join(rows))
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nframeRate=25\nseqLength={length}\nimWidth={width}\nimHeight={HEIGHT}\n"
    )
    if frames is not None:
        write_images(folder / "img1", frames)
    if video is not None:
        (folder / "video.mp4").write_bytes(video.read_bytes())
    return folder


def rectangles(t):
    """Where conftest draws its two rectangles."""
    w, h, step = WIDTH // 6, HEIGHT // 4, 1
    left, right, top, low = 4 + step * t, WIDTH - 4 - w - step * t, HEIGHT // 10, HEIGHT - HEIGHT // 10 - h
    return [(left, top, left + w, top + h), (right, low, right + w, low + h)]


@pytest.fixture
def data(tmp_path, video_path):
    root = tmp_path / "data"
    write_sequence(root / "mot" / "STREET-1", rectangles, video=video_path)
    for label in ("walk", "run", "fight"):
        (root / "actions" / label).mkdir(parents=True)
        (root / "actions" / label / "clip.mp4").write_bytes(video_path.read_bytes())
    return root


def test_scores_both_tasks_and_writes_them(model, data, tmp_path):
    output = tmp_path / "report"
    report = evaluate(model, data, output=output)
    assert set(report["tracking"]) == {"STREET-1", "COMBINED"}
    assert set(report["actions"]) == {"actions", "fight"}
    assert report["actions"]["actions"]["clips"] == 2 and report["actions"]["actions"]["top1"] == 50
    assert report["speed"]["frames"] == 4 * LENGTH and report["speed"]["frames_per_second"] > 0
    assert json.loads((output / "evaluation.json").read_text()) == report
    page = (output / "evaluation.md").read_text()
    assert "| STREET-1 |" in page and "| HOTA |" in page and "Actions: fight" in page
    rows = np.loadtxt(output / "tracks" / "STREET-1.txt", delimiter=",", ndmin=2)
    assert rows.shape[1] == 10 and rows[:, 0].min() >= 1 and rows[:, 0].max() <= LENGTH
    names = {"confusion_actions.png", "confusion_fight.png", "failures_STREET-1.jpg"}
    assert {path.name for path in output.iterdir()} == names | {"evaluation.json", "evaluation.md", "tracks"}


def test_the_tracks_are_those_of_the_session(model, data, video_path):
    session = KineTrackSession(*model, task="tracking")
    (rows,), _ = track_sequence(session, Sequence(data / "mot" / "STREET-1"), [0], Stopwatch())
    expected = []
    for number, result in enumerate(KineTrackSession(*model, task="tracking").run(video_path), start=1):
        for identity, (x1, y1, x2, y2), score in zip(result.track_ids, result.boxes, result.scores, strict=True):
            expected.append([number, identity, x1, y1, x2 - x1, y2 - y1, score])
    assert len(expected) > LENGTH
    np.testing.assert_allclose(rows, np.array(expected), rtol=1e-5, atol=1e-4)


def test_images_and_video_of_a_sequence_are_both_read(model, tmp_path, frames):
    folder = write_sequence(tmp_path / "IMAGES", rectangles, frames=frames)
    report = evaluate(model, [Sequence(folder)], task="tracking")
    assert report["speed"]["frames"] == LENGTH and "actions" not in report


def test_a_part_runs_and_scores_only_its_frames(model, tmp_path, frames):
    folder = write_sequence(tmp_path / "S", rectangles, frames=frames)
    session = KineTrackSession(*model, task="tracking")
    (rows,), _ = track_sequence(session, Sequence(folder, (5, 9)), [0], Stopwatch())
    assert rows[:, 0].min() == 5 and rows[:, 0].max() == 9
    report = evaluate(model, [Sequence(folder, (5, 9))], task="tracking")
    assert report["speed"]["frames"] == 5
    assert report["tracking"]["S"]["FN"] <= 10


def test_a_clip_is_the_mean_of_its_windows(model, video_path):
    session = KineTrackSession(*model, task="actions")
    ours = classify_clip(session, video_path, Stopwatch())
    ticks = [r for r in KineTrackSession(*model, task="actions").run(video_path) if r.updated]
    assert len(ticks) == 6, "12 frames at 25 Hz are 6 ticks at 12.5 Hz: a window of 4, and half a window"
    expected = (ticks[3].clip_action + ticks[5].clip_action) / 2
    np.testing.assert_allclose(ours["actions"], expected, rtol=1e-6)
    assert ours["fight"].sum() == pytest.approx(1, abs=1e-5)


def test_one_detector_copy_of_a_sequence_is_taken(tmp_path):
    for name in ("MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-02-SDP", "MOT17-04-SDP"):
        write_sequence(tmp_path / name, rectangles)
    found = [item.folder.name for item in find_items(tmp_path)]
    assert found == ["MOT17-02-DPM", "MOT17-04-SDP"]


def test_a_sequence_folder_itself_may_be_given(tmp_path):
    folder = write_sequence(tmp_path / "S", rectangles)
    assert find_items(folder) == [Sequence(folder)]


def test_a_split_takes_only_what_it_lists(data, tmp_path, monkeypatch):
    monkeypatch.setattr(
        evaluation_items, "read_split", lambda split: ["actions/walk/clip.mp4", "mot/STREET-1:3-8", "gone/x.mp4"]
    )
    items = list_items(data, "dev")
    assert items == [
        LabelledClip(data / "actions" / "walk" / "clip.mp4", "walk"),
        Sequence(data / "mot" / "STREET-1", (3, 8)),
    ]


def test_another_length_than_the_ground_truth_is_an_error(model, tmp_path, frames, video_path):
    short = write_sequence(tmp_path / "SHORT", rectangles, frames=frames[:7])
    with pytest.raises(ValueError, match="SHORT: seqinfo.ini says 12 frames, the video gave 7"):
        evaluate(model, [Sequence(short)], task="tracking")
    long = write_sequence(tmp_path / "LONG", rectangles, video=video_path, length=9)
    with pytest.raises(ValueError, match="video.mp4 has 12 frames, seqinfo.ini says 9"):
        evaluate(model, [Sequence(long)], task="tracking")


def test_another_picture_size_is_an_error(model, tmp_path, frames):
    folder = write_sequence(tmp_path / "S", rectangles, frames=frames, width=192)
    with pytest.raises(ValueError, match="the video is 96×64, but seqinfo.ini says 192×64"):
        evaluate(model, [Sequence(folder)], task="tracking")


def test_what_cannot_be_evaluated_is_said_before_anything_runs(model, data, tmp_path):
    with pytest.raises(ValueError, match="task must be one of"):
        evaluate(model, data, task="detect")
    with pytest.raises(ValueError, match="split must be"):
        evaluate(model, data, split="final")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        evaluate(model, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="Nothing to evaluate"):
        evaluate(model, tmp_path / "empty")
    strange = LabelledClip(data / "actions" / "walk" / "clip.mp4", "juggle")
    with pytest.raises(ValueError, match="no class 'juggle'.*walk, run, noFight, fight"):
        evaluate(model, [strange])
    (data / "mot" / "STREET-1" / "seqinfo.ini").write_text("[Sequence]\nseqLength=12\n")
    with pytest.raises(ValueError, match="seqinfo.ini.*missing"):
        evaluate(model, data)


def test_sequences_of_one_name_are_refused_before_anything_runs(model, tmp_path, video_path, monkeypatch):
    first, second = (write_sequence(tmp_path / site / "cam1", rectangles, video=video_path) for site in ("A", "B"))

    def run(*_, **__):
        raise AssertionError("nothing may run")

    monkeypatch.setattr("kinetrack.hub_scripts.evaluate.track_sequence", run)
    with pytest.raises(ValueError, match="same folder name.*told apart by it. Rename one") as error:
        evaluate(model, tmp_path, task="tracking", output=tmp_path / "report")
    assert str(first) in str(error.value) and str(second) in str(error.value)
    assert not (tmp_path / "report").exists()


def test_classes_of_ones_own_are_scored_each_by_itself(model, tmp_path, video_path, monkeypatch):
    """In CVAT's files the first class need not be people."""
    folder = write_sequence(tmp_path / "GAME", rectangles, video=video_path)
    rows = np.loadtxt(folder / "gt/gt.txt", delimiter=",")
    rows[:, 7] = rows[:, 1]  # the first rectangle is a ball, the second a person
    np.savetxt(folder / "gt/gt.txt", rows, delimiter=",", fmt="%g")
    (folder / "gt/labels.txt").write_text("ball\nperson\n")
    balls, people = (rows[rows[:, 1] == number, :7] for number in (1, 2))

    def run(session, sequence, objects, stopwatch):
        assert objects == [0, 1]
        return [people, balls], {}

    monkeypatch.setattr("kinetrack.hub_scripts.evaluate.track_sequence", run)
    monkeypatch.setattr(model[0].config, "object_classes", ["person", "ball"])
    report = evaluate(model, tmp_path, task="tracking", output=tmp_path / "report")
    assert {name: scores["MOTA"] for name, scores in report["tracking"].items()} == dict.fromkeys(
        ("GAME (person)", "GAME (ball)", "COMBINED"), 100
    )
    assert (tmp_path / "report/tracks/GAME (ball).txt").is_file()
    monkeypatch.setattr(model[0].config, "object_classes", ["car"])
    with pytest.raises(ValueError, match="labels.txt names ball, person; this model detects car"):
        evaluate(model, tmp_path, task="tracking")


def test_an_actors_boxes_lie_beside_the_clip_or_beside_its_part(tmp_path):
    clip = LabelledClip(tmp_path / "train/walk/a.mp4", "walk")
    assert clip.boxes_file is None
    for place in ("train_boxes/walk/a.txt", "train/walk/a.txt"):  # the latter goes first, as in training
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text("1,1,4,6,16,16,1,1,1\n")
        assert clip.boxes_file == tmp_path / place


def test_test_clips_of_a_table_that_holds_them(tmp_path, video_path, monkeypatch):
    from datasets import Dataset, DatasetDict, Features, Value, Video

    monkeypatch.setattr(evaluation_items, "CACHE", tmp_path / "cache")
    features = Features({"video": Video(decode=False), "label": Value("string")})
    rows = [{"video": {"bytes": video_path.read_bytes(), "path": None}, "label": "walk"}]
    table = Dataset.from_list(rows, features=features)
    DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    (clip,) = list_items(tmp_path / "saved", "test")
    assert clip.label == "walk" and clip.path.read_bytes() == video_path.read_bytes()


def test_a_failed_run_leaves_no_report(model, tmp_path, frames):
    output = tmp_path / "report"
    folder = write_sequence(tmp_path / "S", rectangles, frames=frames[:5])
    with pytest.raises(ValueError, match="says 12 frames"):
        evaluate(model, [Sequence(folder)], task="tracking", output=output)
    assert not output.exists()
