"""The session: what a stream carries, what it forgets, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import (
    KineTrackForObjectTracking,
    KineTrackForVideoAnalysis,
    KineTrackForVideoClassification,
)
from kinetrack.processing.decoding_kinetrack import VideoFrame
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor


@pytest.fixture
def build(tiny_backbone):
    """`build(model_class=KineTrackForVideoAnalysis, **overrides)`: a model of a few thousand random weights."""

    def make(model_class=KineTrackForVideoAnalysis, **overrides):
        torch.manual_seed(0)
        settings = {
            "backbone_config": tiny_backbone,
            "hidden_size": 8,
            "embedding_size": 6,
            "attention_window": 4,
            "frame_rate": 12.5,
            "trained": True,
            "id2label": {0: "walk", 1: "run", 2: "sit"},
            "label_groups": {"fight": ["noFight", "fight"]},
        }
        model = model_class(KineTrackConfig(**(settings | overrides))).eval()
        if getattr(model, "tracking_head", None) is not None:
            # Random weights with a few confident peaks, so that there is something to track.
            with torch.no_grad():
                model.tracking_head.heatmap.weight.mul_(3)
                model.tracking_head.heatmap.bias.zero_()
        return model

    return make


@pytest.fixture
def model(build):
    return build()


@pytest.fixture
def processor():
    return KineTrackVideoProcessor(size={"height": 64, "width": 96})


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (64, 160, 3), dtype=np.uint8)
    return [np.ascontiguousarray(scene[:, 2 * t : 2 * t + 96]) for t in range(16)]


def listen(session, frames, fps=25.0):
    return list(session.run(frames, fps=fps))


def assert_same_results(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-4)
        np.testing.assert_allclose(one.clip_action, other.clip_action, atol=1e-5)
        np.testing.assert_allclose(one.actions, other.actions, atol=1e-5)


def test_there_is_something_to_track(model, processor, frames):
    results = listen(KineTrackSession(model, processor), frames)
    assert sum(len(result.track_ids) for result in results) > 20


def test_stream_equals_clip(model, processor, frames):
    """At a source rate of `frame_rate` every frame is a tick, and the stream is the clip."""
    results = listen(KineTrackSession(model, processor, size=(64, 96)), frames, fps=12.5)
    with torch.no_grad():
        clip = model(**processor([np.stack(frames)], return_tensors="pt"))
    expected = (clip.logits[0] / model.config.action_temperature).softmax(-1)
    np.testing.assert_allclose(results[-1].clip_action, expected, atol=1e-5)
    np.testing.assert_allclose(results[-1].temporal_attention, clip.temporal_attention[0, -4:], atol=1e-5)
    assert all(result.updated for result in results)


def test_temporal_part_ticks_at_its_own_rate(model, processor, frames):
    results = listen(KineTrackSession(model, processor), frames, fps=25.0)
    assert [result.updated for result in results] == [index % 2 == 0 for index in range(16)]
    assert len(results[-1].window_times) == 4
    np.testing.assert_allclose(np.diff(results[-2].window_times), 0.08)


@pytest.mark.parametrize("fps", [10.0, 30.0, 47.0])
def test_ticks_keep_their_average_rate(model, processor, frames, fps):
    results = listen(KineTrackSession(model, processor), frames * 4, fps=fps)
    ticks = sum(result.updated for result in results)
    assert ticks == pytest.approx(min(fps, 12.5) * len(results) / fps, abs=1.5)


def test_frames_between_ticks_leave_no_trace(model, processor, frames):
    """What is shown between two ticks must not change what the stream says afterwards."""
    session = KineTrackSession(model, processor)
    twice = [VideoFrame(frames[i // 2] if i % 2 == 0 else frames[-1], 0.04 * i, i) for i in range(16)]
    once = [VideoFrame(frames[i], 0.08 * i, i) for i in range(8)]
    full = [result.clip_action for result in session.run(twice)][::2]
    session.reset()
    sparse = [result.clip_action for result in session.run(once)]
    np.testing.assert_allclose(full, sparse, atol=1e-6)


def test_without_tracking_frames_between_ticks_repeat_the_last_tick(model, processor, frames):
    both = listen(KineTrackSession(model, processor), frames)
    actions = listen(KineTrackSession(model, processor, task="actions"), frames)
    for previous, between in zip(actions[::2], actions[1::2], strict=True):
        np.testing.assert_array_equal(between.clip_action, previous.clip_action)
    for one, other in zip(both[::2], actions[::2], strict=True):
        np.testing.assert_allclose(one.clip_action, other.clip_action, atol=1e-6)


def test_sessions_side_by_side_share_nothing(model, processor, frames):
    alone = listen(KineTrackSession(model, processor), frames)
    first, second = KineTrackSession(model, processor), KineTrackSession(model, processor)
    together, other = [], []
    for t, frame in enumerate(frames):
        together.append(first.step(frame, t / 25))
        other.append(second.step(frames[-1 - t], t / 25))
    assert_same_results(together, alone)
    assert min(result.track_ids.min() for result in other if len(result.track_ids)) == 1


def test_reset_starts_over(model, processor, frames):
    session = KineTrackSession(model, processor)
    first = listen(session, frames)
    session.reset()
    assert_same_results(listen(session, frames), first)


@pytest.mark.parametrize("broken", ["nan", "empty", "channels"])
def test_broken_frame_raises_and_leaves_the_session_as_it_was(model, processor, frames, broken):
    bad = {
        "nan": np.full((64, 96, 3), np.nan, np.float32),
        "empty": np.zeros((0, 96, 3), np.uint8),
        "channels": np.zeros((64, 96, 7), np.uint8),
    }[broken]
    expected = listen(KineTrackSession(model, processor), frames)
    session = KineTrackSession(model, processor)
    results = []
    for t, frame in enumerate(frames):
        if t in (0, 5):
            with pytest.raises(ValueError):
                session.step(bad, t / 25)
        results.append(session.step(frame, t / 25))
    assert_same_results(results, expected)


def test_time_must_move_forward(model, processor, frames):
    session = KineTrackSession(model, processor)
    session.step(frames[0], 1.0)
    with pytest.raises(ValueError, match="forward in time"):
        session.step(frames[1], 1.0)


def test_new_frame_size_starts_the_temporal_part_again_and_keeps_identities(model, processor, frames):
    session = KineTrackSession(model, processor)
    before = [session.step(frame, t / 25) for t, frame in enumerate(frames[:6])]
    last = max(result.track_ids.max() for result in before if len(result.track_ids))
    wide = np.concatenate([frames[6], frames[6]], axis=1)
    result = session.step(wide, 1.0)
    assert (result.height, result.width) == wide.shape[:2]
    assert len(result.window_times) == 1 and result.temporal_attention.sum() == pytest.approx(1)
    assert session.tracker.state_dict()["next_id"] > last


def test_bridged_gap_starts_the_temporal_part_again_and_keeps_identities(model, processor, frames):
    session = KineTrackSession(model, processor)
    before = [session.step(frame, t / 25) for t, frame in enumerate(frames[:8])]
    session.bridge(20.0)
    with pytest.raises(ValueError, match="forward in time"):
        session.step(frames[8], 0.4)
    after = session.step(frames[8], 20.32)
    assert len(after.window_times) == 1 and after.updated
    kept = np.intersect1d(before[-1].track_ids, after.track_ids)
    assert len(kept) >= len(before[-1].track_ids) / 2 > 0


@pytest.mark.parametrize("window", [4, None])
def test_memory_does_not_grow(build, processor, frames, window):
    model = build(attention_window=window)
    session = KineTrackSession(model, processor, tracker={"max_lost_seconds": 0.2})
    sizes = []
    for repeat in range(12):
        for t, frame in enumerate(frames):
            shown = np.roll(frame, 29 * repeat, axis=1)  # new people all the time
            session.step(shown, (repeat * 16 + t) / 25)
        table = session._memories.memory
        state = session._state
        sizes.append((state.scores.numel(), state.features.numel(), state.hidden[0].numel()))
        assert len(table.scores) == len(session._memories.track_ids) < 60
    assert len(set(sizes)) == 1


def test_each_person_is_seen_through_their_own_boxes(model, processor, frames):
    """A track's action is region attention over its boxes, window and all; checked against the model itself."""
    session = KineTrackSession(model, processor, size=(64, 96))
    results = listen(session, frames[:4], fps=12.5)
    ids = set.intersection(*(set(result.track_ids.tolist()) for result in results))
    assert ids
    videos = processor([np.stack(frames[:4])], return_tensors="pt")
    for identity in ids:
        boxes = [result.boxes[result.track_ids == identity][0] for result in results]
        with torch.no_grad():
            output = model(**videos, region_boxes=torch.from_numpy(np.stack(boxes))[None])
        expected = output.region_logits[0].softmax(-1)
        found = results[-1].actions[results[-1].track_ids == identity][0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_spatial_attention_covers_the_frame_only(model, processor):
    session = KineTrackSession(model, processor, size=(64, 96))
    result = session.step(np.full((40, 50, 3), 128, np.uint8), 0.0)
    assert result.spatial_attention.shape == (3, 4)  # 40 x 50 pixels in cells of 16
    assert result.spatial_attention.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("task", ["tracking", "actions"])
def test_one_task_only(model, processor, frames, task):
    results = listen(KineTrackSession(model, processor, task=task), frames)
    assert all((result.clip_action is None) == (task == "tracking") for result in results)
    assert any(len(result.track_ids) for result in results) == (task == "tracking")


@pytest.mark.parametrize(
    ("model_class", "task"),
    [(KineTrackForVideoClassification, "tracking"), (KineTrackForObjectTracking, "actions")],
)
def test_task_without_its_head_is_refused(build, processor, model_class, task):
    with pytest.raises(ValueError, match="head"):
        KineTrackSession(build(model_class), processor, task=task)


def test_untrained_model_is_refused_and_the_option_named(build, processor):
    model = build(trained=False)
    with pytest.raises(ValueError, match="allow_untrained"):
        KineTrackSession(model, processor)
    KineTrackSession(model, processor, allow_untrained=True)


def test_bidirectional_model_is_refused(build, processor):
    with pytest.raises(ValueError, match="bidirectional"):
        KineTrackSession(build(bidirectional=True), processor)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3, 2])
def test_threshold_outside_its_range_is_refused(model, processor, threshold):
    with pytest.raises(ValueError, match="threshold"):
        KineTrackSession(model, processor, threshold=threshold)


def test_tuned_tracker_settings_are_picked_up_but_yield_to_what_is_asked_for(build, processor):
    tuned = build(detection_threshold=0.35, tracker_settings={"new_track_threshold": 0.6, "min_hits": 4})
    session = KineTrackSession(tuned, processor)
    assert (session.tracker.high_threshold, session.tracker.new_track_threshold) == (0.35, 0.6)
    assert session.tracker.min_hits == 4
    asked = KineTrackSession(tuned, processor, threshold=0.2, tracker={"min_iou_low": 0.7}).tracker
    assert (asked.high_threshold, asked.new_track_threshold, asked.min_hits, asked.min_iou_low) == (0.2, 0.2, 4, 0.7)


def test_gray_and_rgba_frames_are_understood(model, processor, frames):
    gray = frames[0][..., 0]
    rgba = np.concatenate([np.repeat(gray[..., None], 3, axis=2), np.zeros((64, 96, 1), np.uint8)], axis=2)
    one = KineTrackSession(model, processor).step(gray, 0.0)
    other = KineTrackSession(model, processor).step(rgba, 0.0)
    np.testing.assert_array_equal(one.boxes, other.boxes)


def test_weights_are_never_touched(model, processor, frames):
    before = copy.deepcopy(model.state_dict())
    listen(KineTrackSession(model, processor), frames)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_results_come_one_by_one_with_times_and_timings(model, processor, make_video, tmp_path):
    session = KineTrackSession(model, processor)
    stream = session.run(str(make_video(tmp_path / "clip.mp4")))
    first = next(stream)
    assert first.frame_index == 0 and first.frame.dtype == np.uint8
    rest = list(stream)
    assert [result.frame_index for result in rest] == list(range(1, len(rest) + 1))
    assert set(first.timings) == {"decode", "preprocess", "model", "association"}


def test_fps_thins_the_frames_of_a_file(model, processor, make_video, tmp_path):
    path = str(make_video(tmp_path / "clip.mp4"))
    everything = list(KineTrackSession(model, processor).run(path))
    some = list(KineTrackSession(model, processor).run(path, fps=12.5))
    assert len(some) == -(-len(everything) // 2)
    with pytest.raises(ValueError, match="fps"):
        next(KineTrackSession(model, processor).run(path, fps=0))
