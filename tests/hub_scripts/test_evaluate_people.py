"""Measurements of people's actions with a tiny model: regions, two actors, other frame rates, detection, ablations."""

import json

import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.decoding_kinetrack import VideoFrame, iter_video_frames
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor

pytest.importorskip("trackeval")
pytest.importorskip("evaluate")

from kinetrack.hub_scripts.ablation import ablated  # noqa: E402
from kinetrack.hub_scripts.evaluate import evaluate  # noqa: E402
from kinetrack.hub_scripts.evaluation_actions import (  # noqa: E402
    draw_pairs,
    follow_people,
    label_stability,
    read_actor,
    resample,
    stitch,
    two_actors,
)
from kinetrack.hub_scripts.evaluation_items import LabelledClip, Sequence, list_items  # noqa: E402
from kinetrack.hub_scripts.evaluation_runs import RegionSession, Stopwatch, classify_clip, classify_people  # noqa: E402

WIDTH, HEIGHT, LENGTH = 96, 64, 12
NAMES = ["walk", "run", "sit"]


@pytest.fixture(scope="module")
def model():
    """A model with random weights whose heatmap has a few confident peaks and whose answers differ between places."""
    torch.manual_seed(0)
    backbone = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 12, 16], "depths": [1, 1, 1, 1]}
    config = KineTrackConfig(
        backbone_config={**backbone, "layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]},
        hidden_size=8,
        embedding_size=6,
        motion_channels=4,
        attention_window=4,
        trained=True,
        id2label=dict(enumerate(NAMES)),
        label_groups={"fight": ["noFight", "fight"]},
    )
    network = KineTrackForVideoAnalysis(config).eval()
    with torch.no_grad():
        network.tracking_head.heatmap.weight.mul_(3)
        network.tracking_head.heatmap.bias.zero_()
        for parameter in network.action_head.parameters():
            parameter.normal_()
        network.kinetrack.attention.spatial_projection.weight.mul_(50)
        network.kinetrack.attention.temporal_projection.weight.mul_(50)
    return network, KineTrackVideoProcessor(size={"height": 64, "width": 96})


def boxes_at(t):
    """Where conftest draws the red rectangle."""
    return np.array([4 + t, 6, 20 + t, 22], float)


@pytest.fixture(scope="module")
def data(tmp_path_factory, video_path):
    """Two clips a class, the actor's boxes beside them."""
    root = tmp_path_factory.mktemp("people")
    for label in NAMES:
        for name in ("a", "b"):
            clip = root / "actions" / "set" / "train" / label / f"{name}.mp4"
            clip.parent.mkdir(parents=True, exist_ok=True)
            clip.write_bytes(video_path.read_bytes())
            lines = [
                f"{t + 1},1,{x1},{y1},{x2 - x1},{y2 - y1},1,1,1\n"
                for t, (x1, y1, x2, y2) in enumerate(map(boxes_at, range(LENGTH)))
            ]
            file = root / "actions" / "set" / "train_boxes" / label / f"{name}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def actors(data):
    return [read_actor(item, NAMES.index(item.label)) for item in list_items(data)]


def test_a_given_box_is_seen_as_a_track_with_that_box_is(model, video_path, monkeypatch):
    boxes = np.stack([np.stack([boxes_at(t), boxes_at(t) + 40]) for t in range(LENGTH)])
    session = KineTrackSession(*model, task="both")

    def track(output, result):
        result.track_ids, result.boxes = np.array([1, 2]), boxes[result.frame_index].astype(np.float32)

    monkeypatch.setattr(session, "_track", track)
    monkeypatch.setattr(type(session.tracker), "known_ids", np.array([1, 2]))
    expected = [result.actions for result in session.run(video_path) if result.updated]
    given = RegionSession(*model)
    ours = [result.actions for result in given.run_with(video_path, boxes) if result.updated]
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert np.abs(expected[0][0] - expected[0][1]).max() > 1e-3, "both boxes look the same: this test sees nothing"


def test_people_do_not_change_the_clip_and_absent_ones_keep_their_last_answer(model, video_path):
    boxes = np.stack([np.stack([boxes_at(t)] * 2) for t in range(LENGTH)])
    boxes[6:, 1] = np.nan
    session = RegionSession(*model)
    clip, people = classify_people(session, video_path, boxes, Stopwatch())
    alone = classify_clip(KineTrackSession(*model, task="actions"), video_path, Stopwatch())
    np.testing.assert_allclose(clip["actions"], alone["actions"], atol=1e-6)
    ticks = [result.actions for result in session.run_with(video_path, boxes) if result.updated]
    assert [len(tick) for tick in ticks] == [2, 2, 2, 1, 1, 1], "two frames a tick"
    np.testing.assert_allclose(people[0], (ticks[3][0] + ticks[5][0]) / 2, atol=1e-6)
    np.testing.assert_allclose(people[1], ticks[2][1], atol=1e-6)
    assert classify_people(session, video_path, np.full((LENGTH, 1, 4), np.nan), Stopwatch())[1] == [None]
    with pytest.raises(ValueError, match="boxes for 3 frames"):
        classify_people(session, video_path, boxes[:3], Stopwatch())


def test_pairs_are_of_different_classes_and_use_every_clip_twice():
    labels = np.random.default_rng(0).integers(0, 5, 60)
    pairs = draw_pairs(labels, seed=3)
    assert all(labels[a] != labels[b] for a, b in pairs)
    assert [a for a, _ in pairs] == list(range(60)) and sorted(b for _, b in pairs) == list(range(60))
    assert pairs == draw_pairs(labels, seed=3) != draw_pairs(labels, seed=4)


def test_pairs_that_cannot_be_are_left_out():
    assert draw_pairs([1, 1, 1]) == []
    pairs = draw_pairs([0, 0, 0, 0, 1])
    assert sorted(map(sorted, pairs)) == [[pairs[0][0], 4]] * 1 + [
        [pairs[1][0] if pairs[1][0] != 4 else pairs[1][1], 4]
    ]


def test_stitched_clips_are_side_by_side_at_one_height_and_cut_to_the_shorter(data, make_video, draw_frames, tmp_path):
    left = read_actor(list_items(data)[0], 0)
    folder = tmp_path / "set" / "train" / "run"
    folder.mkdir(parents=True)
    make_video(folder / "tall.mp4", draw_frames(9, 80, 128))
    boxes = tmp_path / "set" / "train_boxes" / "run" / "tall.txt"
    boxes.parent.mkdir(parents=True)
    boxes.write_text("".join(f"{t + 1},1,10,20,30,40,1,1,1\n" for t in range(9)))
    right = read_actor(LabelledClip(folder / "tall.mp4", "run"), 1)
    stitched = list(stitch(left, right))
    assert len(stitched) == 9
    frame, pair = stitched[2]
    assert frame.image.shape == (64, 96 + 40, 3) and frame.time == pytest.approx(0.08)
    np.testing.assert_allclose(pair[0], boxes_at(2))
    np.testing.assert_allclose(pair[1], [96 + 5, 10, 96 + 20, 30])
    original = list(iter_video_frames(left.clip.path))[2].image
    np.testing.assert_array_equal(frame.image[:, :96], original)


def test_two_actors_are_scored_one_by_one(model, actors):
    scores = two_actors(*model, actors, seed=1, tracked=True)
    assert scores["pairs"] == 6 and scores["copied_clip_label"] == 0
    assert 0 <= scores["both_right"] <= scores["person_right"] <= 100
    assert scores["gain"] == scores["both_right"]
    assert {"tracked_both_right", "tracked_person_right"} <= set(scores)
    with pytest.raises(ValueError, match="at least two classes"):
        two_actors(*model, actors[:2])


def test_two_actors_are_right_when_each_answer_is(model, actors, monkeypatch):
    """The bookkeeping: answers that are right for the left person only give half of all people and no pair."""
    from kinetrack.hub_scripts import evaluation_actions

    asked = iter(draw_pairs([actor.label for actor in actors], 0))

    def answer(session, frames, boxes, stopwatch):
        left, _ = next(asked)
        sure = np.eye(3)[actors[left].label]
        return {"actions": sure}, [sure, sure]

    monkeypatch.setattr(evaluation_actions, "classify_people", answer)
    scores = two_actors(*model, actors, seed=0)
    assert (scores["both_right"], scores["person_right"], scores["clip_label_is_one_of_them"]) == (0, 50, 100)


def test_a_person_belongs_to_the_track_that_overlaps_them(model, video_path):
    session = KineTrackSession(*model, task="both")
    results = list(session.run(video_path))
    wanted = results[-1].track_ids[0]
    boxes = np.full((LENGTH, 2, 4), np.nan)
    for result in results:
        for row in np.flatnonzero(result.track_ids == wanted):
            boxes[result.frame_index, 0] = result.boxes[row]
    boxes[:, 1] = [300, 300, 310, 310]
    first, second = follow_people(session, video_path, boxes)
    ticks = [r for r in results if r.updated]
    expected = [tick.actions[list(tick.track_ids).index(wanted)] for tick in (ticks[3], ticks[5])]
    np.testing.assert_allclose(first, np.mean(expected, axis=0), atol=1e-5)
    assert second is None


def test_resampling_shows_what_is_on_the_screen():
    frames = [VideoFrame(np.full((1, 1, 3), n, np.uint8), n / 25, n) for n in range(10)]  # 0.4 s
    for rate, expected in ((10.0, [0, 2, 5, 7]), (50.0, [n // 2 for n in range(20)]), (25.0, list(range(10)))):
        shown = list(resample(frames, rate))
        assert [int(frame.image[0, 0, 0]) for frame in shown] == expected
        np.testing.assert_allclose([frame.time for frame in shown], np.arange(len(expected)) / rate)
        assert [frame.index for frame in shown] == list(range(len(expected)))


def test_stability_compares_the_same_clips(model, data):
    clips = [(item.path, NAMES.index(item.label)) for item in list_items(data)]
    scores = label_stability(*model, clips, rates=(25.0, 25.0, 12.5))
    assert scores["clips"] == 6 and set(scores["top1"]) == {"25", "12.5"}
    assert scores["spread"] == max(scores["top1"].values()) - min(scores["top1"].values())
    assert label_stability(*model, clips, rates=(25.0, 25.0))["agreement"] == 100


@pytest.mark.parametrize("kind", ["reset", "uniform"])
def test_an_ablation_changes_answers_and_leaves_the_model_as_it_was(model, video_path, kind):
    network, processor = model
    boxes = np.stack([boxes_at(t)[None] for t in range(LENGTH)])

    def answers():
        session = RegionSession(network, processor)
        return [result.actions for result in session.run_with(video_path, boxes) if result.updated]

    before, window = answers(), network.config.attention_window
    with ablated(network, kind):
        without = answers()
    np.testing.assert_array_equal(before, answers())
    assert network.config.attention_window == network.kinetrack.attention.window == window
    assert np.abs(np.array(before) - np.array(without)).max() > 1e-4
    if kind == "reset":
        frames = list(iter_video_frames(video_path))[::2]
        with torch.inference_mode():
            for frame, answer in zip(frames, without, strict=True):
                pixels = processor.preprocess_frame(frame.image, (64, 96))
                region = torch.from_numpy(boxes_at(frame.index)).float()[None, None]
                output = network(pixels, region_boxes=region)
                np.testing.assert_allclose(output.region_logits.softmax(-1), answer, atol=1e-5)


def test_an_unknown_ablation_is_refused(model):
    with pytest.raises(ValueError, match="reset, uniform"), ablated(model[0], "blind"):
        pass


def test_a_detailed_report_has_everything_and_draws_it(model, data, tmp_path):
    output = tmp_path / "report"
    report = evaluate(
        model, data, "actions", output, detailed=True, ablations=("reset", "uniform"), tracked_actors=True
    )
    assert report["people"]["clips"] == 6
    assert report["people"]["relative_to_clip"] == report["people"]["top1"] - report["actions"]["actions"]["top1"]
    assert report["two_actors"]["pairs"] == 6 and report["label_stability"]["clips"] == 6
    detection = report["action_detection"]
    assert 0 <= detection["frame_map"] <= 1 and detection["frames"] == 6 * LENGTH
    assert set(report["ablations"]) == {"reset", "uniform"}
    page = (output / "evaluation.md").read_text()
    for text in ("per-person top-1", "two actors side by side", "frame-mAP@0.5", "played at other rates", "uniform"):
        assert text in page
    written = json.loads((output / "evaluation.json").read_text())
    assert written["action_detection"]["frame_map"] == detection["frame_map"]
    assert "curves" not in written["action_detection"]
    pictures = sorted(path.name for path in output.glob("*.png"))
    assert pictures == ["confusion_actions.png", "confusion_people.png", "precision_recall.png"]


def test_people_of_a_sequence_are_counted_by_label(model, tmp_path, video_path):
    folder = tmp_path / "STREET"
    (folder / "gt").mkdir(parents=True)
    (folder / "gt" / "gt.txt").write_text("".join(f"{t},1,10,10,20,40,1,-1,-1,-1\n" for t in range(1, LENGTH + 1)))
    (folder / "video.mp4").write_bytes(video_path.read_bytes())
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname=STREET\nframeRate=25\nseqLength={LENGTH}\nimWidth={WIDTH}\nimHeight={HEIGHT}\n"
    )
    report = evaluate(model, [Sequence(folder)], "tracking", detailed=True)
    counts = report["people_labels"]["STREET"]
    assert counts["identities"] > 0 and sum(counts["labels"].values()) == counts["identities"]
    plain = evaluate(model, [Sequence(folder)], "tracking")
    assert plain["tracking"] == report["tracking"] and "people_labels" not in plain


def test_halves_are_those_of_the_field(tmp_path):
    """MOT17-02 has 600 frames; CenterTrack trains on 0 to 300 and tests on 301 to 599, counted from 0."""
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt" / "gt.txt").write_text("1,1,1,1,5,5,1,1,1\n")
    (tmp_path / "seqinfo.ini").write_text("[Sequence]\nframeRate=30\nseqLength=600\nimWidth=96\nimHeight=64\n")
    assert list_items(tmp_path, half="train")[0].part == (1, 301)
    assert list_items(tmp_path, half="val")[0].part == (302, 600)
    with pytest.raises(ValueError, match="listed in part already"):
        list_items([Sequence(tmp_path, (1, 5))], half="val")
    with pytest.raises(ValueError, match="half must be one of 'train', 'val'"):
        list_items(tmp_path, half="test")
