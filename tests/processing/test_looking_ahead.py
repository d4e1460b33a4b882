"""The model looks at the next frames while this one is worked on: faster, and otherwise not to be noticed."""

import threading

import numpy as np
import pytest
import torch
from kinetrack.processing import session_kinetrack
from kinetrack.processing.decoding_kinetrack import VideoFrame
from kinetrack.processing.loading import load_model
from kinetrack.processing.session_kinetrack import TASKS, KineTrackSession

FIELDS = ("track_ids", "boxes", "scores", "actions", "clip_action", "spatial_attention", "temporal_attention")


@pytest.fixture(scope="module")
def network(model_folder):
    return load_model(model_folder, device="cpu")


class BegunAhead:
    """PyTorch's model as one that can begin frames before it is their turn, which only some other runtimes' can.

    Attributes:
        begun: how many frames were.
        fails_at: number of the call of `begin` that fails.
    """

    runs_beside, side_by_side = True, 2

    def __init__(self, model):
        self._model, self.begun, self.fails_at = model, 0, None

    def __getattr__(self, name):
        return getattr(self._model, name)

    def eval(self):
        return self

    def begin(self, pixels, pixel_mask):
        self.begun += 1
        if self.begun == self.fails_at:
            raise RuntimeError("out of memory")
        return pixels.clone(), pixel_mask

    def __call__(self, pixels, pixel_mask, state, begun=None):
        assert begun is None or torch.equal(begun[0], pixels)
        return self._model(pixels, pixel_mask=pixel_mask if begun is None else begun[1], state=state)


@pytest.fixture(params=[1, 2])
def beside(network, monkeypatch, request):
    """PyTorch's model, run so many frames ahead, which only other runtimes' are, and the processor."""
    if request.param == 2:
        return BegunAhead(network[0]), network[1]
    monkeypatch.setattr(type(network[0]), "runs_beside", True, raising=False)
    return network


@pytest.fixture
def begun_ahead(network):
    return BegunAhead(network[0]), network[1]


def clip(count=12, height=64, width=96):
    scene = np.random.default_rng(1).integers(0, 255, (height, width + 2 * count, 3), dtype=np.uint8)
    images = [np.ascontiguousarray(scene[:, 2 * t : 2 * t + width]) for t in range(count)]
    return [VideoFrame(image, t / 25, 3 * t, decode_seconds=0.25) for t, image in enumerate(images)]


def frames_with_a_gap_and_another_size():
    frames = clip()
    frames[5].unseen = 0.5
    frames[5:] = [VideoFrame(f.image, f.time + 1.0, f.index, unseen=f.unseen) for f in frames[5:]]
    for frame in frames[8:]:
        frame.image = np.ascontiguousarray(frame.image[:48])
    return frames


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.frame_index, one.time, one.updated) == (other.frame_index, other.time, other.updated)
        for name in FIELDS:
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        np.testing.assert_array_equal(one.window_times, other.window_times)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("make", [clip, frames_with_a_gap_and_another_size])
def test_results_are_those_of_one_frame_after_the_other(network, beside, task, make):
    one_by_one = KineTrackSession(*network, task=task, threshold=0.02)
    ahead = KineTrackSession(*beside, task=task, threshold=0.02)
    wanted = [one_by_one.look(frame) for frame in make()]
    found = list(ahead.run(make()))
    assert_equal(found, wanted)
    assert [result.timings["decode"] for result in found] == [result.timings["decode"] for result in wanted]
    state, expected = ahead.state_dict(), one_by_one.state_dict()
    assert (state["frame_index"], state["time"]) == (expected["frame_index"], expected["time"])
    for name, tensor in expected["temporal"].items():
        np.testing.assert_array_equal(state["temporal"][name], tensor)


def look_elsewhere(session):
    session.step(np.full((48, 96, 3), 99, np.uint8), session.state_dict()["time"] + 0.01)


CHANGES = [KineTrackSession.reset, lambda session: session.bridge(0.01), look_elsewhere]


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_caller_does_in_between_holds_for_the_next_frame(network, beside, change):
    frames = clip()

    def results(session, run):
        for index, result in enumerate(run):
            yield result
            if index == 4:
                change(session)

    one_by_one, ahead = (KineTrackSession(*model, threshold=0.02) for model in (network, beside))
    wanted = list(results(one_by_one, map(one_by_one.look, frames)))
    assert_equal(list(results(ahead, ahead.run(frames))), wanted)


def test_state_saved_in_between_knows_nothing_of_the_next_frame(network, beside):
    frames = clip()
    ahead, resumed = (KineTrackSession(*model, threshold=0.02) for model in (beside, network))
    states, found = [], []
    for result in ahead.run(frames):
        found.append(result)
        states.append(ahead.state_dict())
    resumed.load_state_dict(states[6])
    assert_equal([resumed.look(frame) for frame in frames[7:]], found[7:])


def broken_file(frames):
    yield from frames
    raise OSError("the disk is gone")


def bad_values(frames):
    picture = np.full((64, 96, 3), np.nan, np.float32)
    yield from [*frames, VideoFrame(picture, frames[-1].time + 1, 99)]


def back_in_time(frames):
    yield from [*frames, VideoFrame(frames[0].image, 0.0, 99)]


@pytest.mark.parametrize("ending", [broken_file, bad_values, back_in_time])
def test_error_comes_after_the_results_of_all_frames_before(beside, ending):
    frames = clip(4)
    session = KineTrackSession(*beside)
    results = session.run(ending(frames))
    assert [next(results).frame_index for _ in frames] == [0, 3, 6, 9]
    before = session.state_dict()
    with pytest.raises((OSError, ValueError), match="disk is gone|not finite|finite|forward in time"):
        next(results)
    assert session.state_dict()["time"] == before["time"] == frames[-1].time


def test_error_of_a_frame_begun_ahead_comes_at_its_turn(begun_ahead):
    begun_ahead[0].fails_at = 3
    results = KineTrackSession(*begun_ahead).run(clip(6))
    assert [next(results).frame_index for _ in range(2)] == [0, 3]
    with pytest.raises(RuntimeError, match="out of memory"):
        next(results)


def test_no_more_frames_are_taken_than_can_be_begun(beside):
    taken = []
    source = (taken.append(1) or frame for frame in clip())
    ahead = getattr(beside[0], "side_by_side", 1)
    for count, _ in enumerate(KineTrackSession(*beside).run(source), start=1):
        assert len(taken) == min(count + ahead, 12)


def test_every_frame_is_begun_once(begun_ahead):
    assert len(list(KineTrackSession(*begun_ahead).run(frames_with_a_gap_and_another_size()))) == 12
    assert begun_ahead[0].begun == 12


def test_frames_that_may_not_be_looked_at_are_not_begun(begun_ahead):
    results = list(KineTrackSession(*begun_ahead, task="actions").run(clip()))
    assert not all(result.updated for result in results)
    assert not begun_ahead[0].begun


def test_threads_end_with_the_results(beside):
    results = KineTrackSession(*beside).run(clip())
    next(results)
    assert model_threads()
    results.close()
    assert not model_threads()


def model_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("kinetrack-model")]


@pytest.mark.parametrize(("policy", "expected"), [("every", True), ("latest", False)])
def test_only_what_may_be_late_is_run_ahead(beside, monkeypatch, video_path, policy, expected):
    used = []
    original = session_kinetrack.look_ahead
    monkeypatch.setattr(session_kinetrack, "look_ahead", lambda *args: used.append(1) or original(*args))
    assert next(KineTrackSession(*beside).run(str(video_path), policy=policy)).frame_index == 0
    assert bool(used) == expected


@pytest.mark.parametrize(("is_beside", "expected"), [(True, {1}), (False, {2})])
def test_pytorch_leaves_the_cores_to_another_runtime(network, monkeypatch, is_beside, expected):
    monkeypatch.setattr(type(network[0]), "runs_beside", is_beside, raising=False)
    before, used = torch.get_num_threads(), set()
    original = type(network[1]).preprocess_frame
    monkeypatch.setattr(
        type(network[1]), "preprocess_frame", lambda *args: used.add(torch.get_num_threads()) or original(*args)
    )
    torch.set_num_threads(2)
    try:
        for _ in KineTrackSession(*network).run(clip(4)):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert used == expected


def test_pytorch_runs_one_frame_after_the_other(network, monkeypatch):
    monkeypatch.setattr(session_kinetrack, "look_ahead", None)
    assert len(list(KineTrackSession(*network).run(clip(3)))) == 3
