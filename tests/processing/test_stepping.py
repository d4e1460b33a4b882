"""Several streams in one batch: each gets what it would get alone."""

import numpy as np
import pytest
from kinetrack.processing.loading import load_model
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.stepping_kinetrack import step_sessions


@pytest.fixture(scope="module")
def network(model_folder):
    return load_model(model_folder, device="cpu")


def scenes(count, height=64, width=96, frames=14):
    rng = np.random.default_rng(1)
    for _ in range(count):
        scene = rng.integers(0, 255, (height, width + 2 * frames, 3), dtype=np.uint8)
        yield [np.ascontiguousarray(scene[:, 2 * t : 2 * t + width]) for t in range(frames)]


def assert_alike(one, other):
    np.testing.assert_array_equal(one.track_ids, other.track_ids)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
    np.testing.assert_allclose(one.clip_action, other.clip_action, atol=1e-5)
    np.testing.assert_allclose(one.actions, other.actions, atol=1e-5)
    assert one.updated == other.updated and one.time == other.time


@pytest.mark.parametrize("sizes", [((64, 96),) * 3, ((64, 96), (48, 80), (64, 96))], ids=["one size", "two sizes"])
def test_batch_of_streams_equals_streams_alone(network, sizes):
    """The second stream starts later and runs slower, so states of all ages and ticks of all kinds meet in a batch."""
    streams = [next(scenes(1, *size)) for size in sizes]
    alone = [KineTrackSession(*network, size=(64, 96)) for _ in sizes]
    together = [KineTrackSession(*network, size=(64, 96)) for _ in sizes]
    for t in range(14):
        now = [0, 2] if t < 3 else [0, 1, 2]
        times = [t / (12.5 if index == 1 else 25.0) for index in now]
        frames = [streams[index][t] for index in now]
        found = step_sessions([together[index] for index in now], frames, times)
        for index, frame, time, result in zip(now, frames, times, found, strict=True):
            assert_alike(result, alone[index].step(frame, time))


def test_streams_of_one_input_size_are_one_forward_pass(network, monkeypatch):
    model, processor = network
    batches = []
    original = type(model).forward

    def counted(self, pixels, *args, **kwargs):
        batches.append(pixels.shape[0])
        return original(self, pixels, *args, **kwargs)

    monkeypatch.setattr(type(model), "forward", counted)
    sessions = [KineTrackSession(model, processor) for _ in range(4)]
    step_sessions(sessions, [stream[0] for stream in scenes(4)])
    assert batches == [4]


def test_broken_frame_of_one_stream_leaves_all_as_they_were(network):
    good, bad = next(scenes(1)), np.full((64, 96, 3), np.nan, np.float32)
    sessions = [KineTrackSession(*network) for _ in range(2)]
    expected = [KineTrackSession(*network).step(good[0], 0.0) for _ in range(2)]
    with pytest.raises(ValueError, match="finite"):
        step_sessions(sessions, [good[0], bad], [0.0, 0.0])
    for result, wanted in zip(step_sessions(sessions, [good[0]] * 2, [0.0, 0.0]), expected, strict=True):
        assert_alike(result, wanted)


def test_actions_between_ticks_stand_without_a_pass(network):
    frames = next(scenes(1))
    sessions = [KineTrackSession(*network, task="actions") for _ in range(2)]
    first = step_sessions(sessions, [frames[0]] * 2, [0.0, 0.0])
    second = step_sessions(sessions, [frames[1]] * 2, [0.01, 0.2])
    assert [result.updated for result in second] == [False, True]
    np.testing.assert_array_equal(second[0].clip_action, first[0].clip_action)
