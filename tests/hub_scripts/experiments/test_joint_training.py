"""The package's model on cached maps is the package's model; tasks start alike, and their gradients are told apart."""

import dataclasses

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.annotations import FrameBoxes
from kinetrack.hub_scripts.evaluation_items import Sequence
from kinetrack.hub_scripts.experiments.clip_training import spread_frames
from kinetrack.hub_scripts.experiments.features import ClipFeatures, FrozenEncoder
from kinetrack.hub_scripts.experiments.joint_data import ActionBatches, SequenceBatches, SequenceMaps, clip_batch
from kinetrack.hub_scripts.experiments.joint_measures import best_threshold, mass_inside
from kinetrack.hub_scripts.experiments.joint_model import MAPS, SharedGradients, Start, attach_trained_stages, cosine
from kinetrack.hub_scripts.experiments.joint_training import PIECES, JointSettings, train_jointly

LABELS = ["golf", "run"]


def make_maps(frames, height, width, seed=0):
    rng = np.random.default_rng(seed)
    fine = rng.normal(size=(frames, 40, height // 8, width // 8)).astype(np.float16)
    return fine, rng.normal(size=(frames, 112, height // 16, width // 16)).astype(np.float16)


def make_clips():
    boxes = np.tile(np.array([8, 8, 40, 56], np.float32), (5, 1))
    return [ClipFeatures(f"{n}.mp4", str(n), n % 2, *make_maps(5, 64, 96, n), boxes) for n in range(4)]


class Source:
    """A person who walks to the right through 9 frames at 25 a second."""

    first = 0
    frames = type("Frames", (), {"frame_rate": 25.0})
    keypoints = None

    def __init__(self):
        left = np.arange(9, dtype=np.float32) * 8
        self.boxes = FrameBoxes(
            np.arange(9),
            np.column_stack([left, np.full(9, 20, np.float32), left + 40, np.full(9, 100, np.float32)]),
            np.full(9, 7),
            np.zeros(9, bool),
            np.ones(9, np.float32),
            np.zeros(9, np.int64),
        )


def make_sequences(seed):
    maps = SequenceMaps(Sequence("WALKER"), np.arange(9) / 25, 0.5, (64, 96), *make_maps(9, 64, 96))
    return SequenceBatches([maps], [Source()], 2, 3, (32, 64), seed)


@pytest.fixture(scope="module")
def start():
    return Start(0, None, LABELS, 16)


def test_cached_maps_give_what_the_whole_model_gives(start):
    model = start.build(("actions", "tracking")).eval()
    encoder = FrozenEncoder(None, (64, 96), out_indices=MAPS)
    inner = model.kinetrack.encoder.backbone._backbone
    encoder.network.load_state_dict({name: inner.state_dict()[name] for name in encoder.network.state_dict()})
    frames = torch.rand(1, 6, 3, 64, 96) * 2 - 1
    with torch.no_grad():
        whole = model(frames)
        fine, middle = encoder.maps(frames[0])
        stages = attach_trained_stages(model)
        stages.give(fine, middle)
        cached = model(torch.zeros_like(frames))
    assert stages.left == 0
    assert torch.allclose(whole.logits, cached.logits, atol=2e-3)
    assert torch.allclose(whole.heatmap_logits, cached.heatmap_logits, atol=5e-3)
    with pytest.raises(IndexError, match="maps of 0 are left"), torch.no_grad():
        model(torch.zeros_like(frames))


def test_all_trainings_of_a_seed_start_from_the_same_weights(start):
    joint = start.build(("actions", "tracking")).state_dict()
    for task, missing in (("actions", "tracking_head."), ("tracking", "action_head.")):
        single = start.build((task,)).state_dict()
        assert all(torch.equal(value, joint[name]) for name, value in single.items())
        assert any(name.startswith(missing) for name in joint) and not any(name.startswith(missing) for name in single)
    other = dataclasses.replace(start, seed=1).build(("actions",)).state_dict()
    assert not torch.equal(other["action_head.classifier.weight"], joint["action_head.classifier.weight"])


def test_the_gradient_of_each_task_is_told_from_their_sum(start):
    model = start.build(("actions", "tracking")).train()
    stages = attach_trained_stages(model)
    shared = SharedGradients(model)
    batches = [ActionBatches(make_clips(), 2, 3, 0).draw(), make_sequences(0).draw()]

    def backward(batch):
        torch.manual_seed(0)
        stages.give(batch.fine, batch.middle)
        model(batch.blank, **batch.arguments).loss.backward()
        return shared.read()

    shared.begin()
    first, second = map(backward, batches)
    model.zero_grad()
    shared.begin()
    alone = backward(batches[1])
    for part in shared.parts:
        assert first[part].any() and torch.allclose(second[part], alone[part], atol=1e-5)
    assert cosine(alone["neck"], 3 * second["neck"]) == pytest.approx(1, abs=1e-4)
    assert cosine(alone["neck"], torch.zeros_like(alone["neck"])) == 0


def test_windows_show_the_boxes_where_the_maps_have_the_person():
    batches = make_sequences(3)
    maps, source = batches.sequences[0]
    maps.fine[:] = 0
    for frame in range(9):  # a mark in the cell of the box's middle, at half the video's size
        x = (source.boxes.xyxy[frame, [0, 2]].mean()) * maps.scale
        maps.fine[frame, 0, int(60 * maps.scale) // 8, int(x) // 8] = 1
    for _ in range(10):
        batch = batches.draw()
        for marks, labels in zip(
            batch.fine[:, 0], [f for w in batch.arguments["frame_labels"] for f in w], strict=True
        ):
            for row, column in marks.nonzero().tolist():
                [box] = labels["boxes"].tolist()
                middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
                assert abs(middle[0] - 8 * (column + 0.5)) <= 4 and abs(middle[1] - 8 * (row + 0.5)) <= 4


def test_mirrored_clips_have_mirrored_maps():
    clips = make_clips()[:2]
    plain = clip_batch(clips, spread_frames(3))
    mirrored = clip_batch(clips, spread_frames(3), flip=np.array([False, True]))
    assert torch.equal(plain.fine[:3], mirrored.fine[:3]) and torch.equal(plain.fine[3:], mirrored.fine[3:].flip(-1))
    assert plain.blank.shape == (2, 3, 3, 64, 96)


@pytest.mark.parametrize("tasks", [("actions",), ("actions", "tracking")])
def test_training_is_watched_and_learns_the_weights_it_should(start, tasks):
    settings = JointSettings(steps=3, warmup_steps=1)
    model = start.build(tasks)
    stages = attach_trained_stages(model)
    sources = {"actions": ActionBatches(make_clips(), 2, 3, 0), "tracking": make_sequences(0)}
    found = train_jointly(model, stages, {task: sources[task] for task in tasks}, settings, len(tasks) > 1, 0)
    assert set(found["entropy"]) == {"beta on actions", *(f"alpha on {task}" for task in tasks)}
    assert len(found["loss"]["action"]) == min(PIECES, 3)
    if len(tasks) == 1:
        assert "cosine" not in found and found["weights"] == {"action": 1.0}
        return
    assert set(found["cosine"]) == {"across", *tasks} and all(-1 <= v <= 1 for v in found["cosine"]["across"]["neck"])
    assert len(found["cosine"]["actions"]["neck"]) == 2  # the first step has none before it
    assert found["weights"]["action"] != 1.0


def test_a_task_sees_the_same_batches_whatever_else_is_learned():
    first, second = ActionBatches(make_clips(), 3, 2, 5), ActionBatches(make_clips(), 3, 2, 5)
    make_sequences(5).draw()
    for _ in range(3):
        assert torch.equal(first.draw().fine, second.draw().fine)


def test_attention_within_boxes_is_measured_against_their_area():
    alpha = torch.zeros(4, 6)
    alpha[1, 2] = 0.75
    alpha[3, 5] = 0.25
    inside, area = mass_inside(alpha, np.array([[32.0, 16, 48, 32], [np.nan] * 4]))
    assert inside == pytest.approx(0.75) and area == pytest.approx(1 / 24)
    assert mass_inside(alpha, np.full((1, 4), np.nan)) is None


def test_the_threshold_is_that_of_the_best_f1():
    scores, hits = np.array([0.9, 0.8, 0.6, 0.4, 0.3]), np.array([True, True, True, False, False])
    assert best_threshold(scores, hits, 3) == (0.6, 1.0)
    assert best_threshold(scores, np.zeros(5, bool), 3) == (0.5, 0.0)
