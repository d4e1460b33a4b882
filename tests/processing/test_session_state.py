"""A session that is saved and restored goes on as if nothing had happened."""

import numpy as np
import pytest
import torch
from kinetrack.processing.loading import load_model
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.session_state_kinetrack import read_states, write_states


@pytest.fixture(scope="module")
def network(model_folder):
    return load_model(model_folder, device="cpu")


@pytest.fixture(scope="module")
def frames():
    scene = np.random.default_rng(0).integers(0, 255, (64, 160, 3), dtype=np.uint8)
    return [np.ascontiguousarray(scene[:, 2 * t : 2 * t + 96]) for t in range(20)]


def look(session, frames, start=0):
    return [session.step(frame, (start + t) / 25) for t, frame in enumerate(frames)]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert (one.frame_index, one.time, one.updated) == (other.frame_index, other.time, other.updated)
        for name in ("track_ids", "boxes", "scores", "actions", "clip_action", "temporal_attention", "window_times"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("split", [1, 7, 12])
def test_restored_session_goes_on_to_the_bit(network, frames, tmp_path, split):
    whole = look(KineTrackSession(*network), frames)
    first = KineTrackSession(*network)
    before = look(first, frames[:split])
    write_states(tmp_path / "state.safetensors", {"door": first.state_dict()})
    second = KineTrackSession(*network)
    second.load_state_dict(read_states(tmp_path / "state.safetensors")[0]["door"])
    assert_same(before + look(second, frames[split:], split), whole)


@pytest.mark.parametrize("task", ["tracking", "actions"])
def test_every_task_can_be_restored(network, frames, task):
    whole = look(KineTrackSession(*network, task=task), frames)
    first, second = (KineTrackSession(*network, task=task) for _ in range(2))
    look(first, frames[:9])
    second.load_state_dict(first.state_dict())
    for one, other in zip(look(second, frames[9:], 9), whole[9:], strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        if task == "actions":
            np.testing.assert_array_equal(one.clip_action, other.clip_action)


def test_state_of_a_session_that_has_not_begun_can_be_restored(network, frames):
    session = KineTrackSession(*network)
    session.load_state_dict(KineTrackSession(*network).state_dict())
    assert_same(look(session, frames), look(KineTrackSession(*network), frames))


def test_state_is_a_copy(network, frames):
    session = KineTrackSession(*network)
    look(session, frames[:6])
    state = session.state_dict()
    kept = {name: tensor.clone() for name, tensor in state["temporal"].items()}
    rows = state["tracker"]["table"]["mean"].copy()
    look(session, frames[6:], 6)
    assert all(torch.equal(kept[name], tensor) for name, tensor in state["temporal"].items())
    np.testing.assert_array_equal(rows, state["tracker"]["table"]["mean"])


def test_state_of_another_size_is_refused_and_the_session_usable(network, frames):
    session = KineTrackSession(*network)
    look(session, frames[:6])
    other = KineTrackSession(*network, size=(32, 64))
    with pytest.raises(ValueError, match="options that it was saved with"):
        other.load_state_dict(session.state_dict())
    look(other, frames)


def test_file_holds_no_pickle_and_large_identities_survive(network, frames, tmp_path):
    session = KineTrackSession(*network)
    look(session, frames[:2])
    state = session.state_dict()
    state["tracker"]["next_id"] = 2**53 + 1  # more than a double can count
    write_states(tmp_path / "s.safetensors", {"a/b": state, "c": state})
    states, _ = read_states(tmp_path / "s.safetensors")
    assert set(states) == {"a/b", "c"} and states["c"]["tracker"]["next_id"] == 2**53 + 1
    session.load_state_dict(states["c"])
    shifted = [np.roll(frame, 41, axis=1) for frame in frames]
    found = np.concatenate([result.track_ids for result in look(session, shifted, 200)])
    assert found.dtype == np.int64
    new = np.unique(found[found > 100])
    assert new[0] == 2**53 + 1 and len(new) > 1
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("content", [b"", b"not a state", None])
def test_what_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "s.safetensors"
    if content is None:
        from safetensors.torch import save_file

        save_file({"weight": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"s\.safetensors"):
        read_states(path)
    with pytest.raises(FileNotFoundError, match="no saved state"):
        read_states(tmp_path / "missing")
