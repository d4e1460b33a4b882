"""A stream equals its clip: the whole model, one frame at a time or in chunks, with carried state."""

import copy
import itertools

import pytest
import torch
from kinetrack.modeling.modeling_kinetrack import (
    KineTrackForObjectTracking,
    KineTrackForVideoAnalysis,
    KineTrackForVideoClassification,
    KineTrackModel,
    KineTrackState,
)

FRAMES = 9
TOLERANCE = {torch.float64: {"rtol": 1e-9, "atol": 1e-12}, torch.float32: {"rtol": 1e-4, "atol": 1e-5}}
# One value a frame, so a stream's are joined; the others are seen from the last frame.
PER_FRAME = ("spatial_attention", "last_hidden_state", "heatmap_logits", "distances", "embeddings", "pyramid_features")


def tensors(state: KineTrackState) -> list[torch.Tensor]:
    return [*state.hidden, *state.cache, state.scores, state.features, state.motion]


def run_stream(model, clip, split, **inputs):
    """Outputs of every chunk."""
    outputs, state = [], None
    for part in clip.split(split, dim=1):
        with torch.no_grad():
            outputs.append(model(part, state=state, **inputs))
        state = outputs[-1].state
    return outputs


def assert_stream_equals_clip(model, clip, split, **inputs):
    tolerance = TOLERANCE[clip.dtype]
    outputs = run_stream(model, clip, split, **inputs)
    with torch.no_grad():
        whole = model(clip, **inputs)
    for name in PER_FRAME:
        if whole.get(name) is not None:
            joined = torch.cat([output[name] for output in outputs], dim=1)
            torch.testing.assert_close(joined, whole[name], **tolerance, msg=lambda m, name=name: f"{name}: {m}")
    for name in ("logits", "pooler_output"):
        if whole.get(name) is not None:
            torch.testing.assert_close(outputs[-1][name], whole[name], **tolerance)
    for name, logits in (whole.get("group_logits") or {}).items():
        torch.testing.assert_close(outputs[-1].group_logits[name], logits, **tolerance)
    for now, then in zip(tensors(outputs[-1].state), tensors(whole.state), strict=True):
        torch.testing.assert_close(now, then, **tolerance)
    return outputs


@pytest.mark.parametrize("split", [[1] * FRAMES, [1, 8], [4, 5], [2, 3, 1, 3]], ids=str)
@pytest.mark.parametrize("window", [None, 1, 4, FRAMES, 20])
def test_stream_equals_clip_in_float64(make_model, make_clip, window, split):
    assert_stream_equals_clip(make_model(attention_window=window), make_clip(2, FRAMES), split)


@pytest.mark.parametrize("split", [[1] * FRAMES, [4, 5]], ids=str)
@pytest.mark.parametrize("window", [None, 4])
def test_stream_equals_clip_in_float32(make_model, make_clip, window, split):
    model = make_model(attention_window=window, dtype=torch.float32)
    assert_stream_equals_clip(model, make_clip(2, FRAMES, dtype=torch.float32), split)


@pytest.mark.parametrize(
    "overrides",
    [
        {"scan": "chunked", "scan_chunk_size": 4},
        {"temporal_kernel_size": 1},
        {"temporal_kernel_size": 5},
        {"num_propagation_layers": 0},
        {"num_propagation_layers": 3},
        {"spatial_attention": False},
        {"temporal_attention": False},
        {"spatial_attention": False, "temporal_attention": False, "attention_window": 4},
    ],
    ids=str,
)
def test_stream_equals_clip_in_every_configuration(make_model, make_clip, overrides):
    model = make_model(**overrides)
    for split in ([1] * FRAMES, [4, 5]):
        assert_stream_equals_clip(model, make_clip(1, FRAMES), split)


@pytest.mark.parametrize(
    "model_class",
    [KineTrackModel, KineTrackForVideoClassification, KineTrackForObjectTracking, KineTrackForVideoAnalysis],
)
def test_stream_equals_clip_in_every_class(make_model, make_clip, model_class):
    assert_stream_equals_clip(make_model(model_class, attention_window=4), make_clip(1, FRAMES), [1] * FRAMES)


@pytest.mark.parametrize("overrides", [{}, {"attention_window": 4}, {"temporal_kernel_size": 1}], ids=str)
def test_initial_state_is_the_same_as_none(make_model, make_clip, overrides):
    model, clip = make_model(**overrides), make_clip(2, FRAMES)
    with torch.no_grad():
        first, second = model(clip), model(clip, state=model.initial_state(2, *clip.shape[-2:]))
    torch.testing.assert_close(first.logits, second.logits, **TOLERANCE[clip.dtype])
    for one, other in zip(tensors(first.state), tensors(second.state), strict=True):
        torch.testing.assert_close(one, other, **TOLERANCE[clip.dtype])


def test_states_of_streams_join_and_part(make_model, make_clip):
    model = make_model(attention_window=4)
    clips = [make_clip(1, 3), make_clip(1, 3) + 1, make_clip(1, 3) - 1]
    states = [model(clip).state for clip in clips]
    joined = KineTrackState.join(states)
    for index, state in enumerate(states):
        for one, other in zip(tensors(joined.rows(slice(index, index + 1))), tensors(state), strict=True):
            assert torch.equal(one, other)


def test_stream_equals_clip_on_a_padded_canvas(make_model, make_clip):
    pixel_mask = torch.zeros(1, 64, 96, dtype=torch.bool)
    pixel_mask[:, :50, :72] = True
    assert_stream_equals_clip(make_model(attention_window=4), make_clip(1, FRAMES), [1] * FRAMES, pixel_mask=pixel_mask)


@pytest.mark.parametrize("window", [None, 4])
def test_every_step_gives_the_logits_of_the_clip_so_far(make_model, make_clip, window):
    model, clip = make_model(attention_window=window), make_clip(1, FRAMES)
    for number, output in enumerate(run_stream(model, clip, [1] * FRAMES), start=1):
        with torch.no_grad():
            torch.testing.assert_close(output.logits, model(clip[:, :number]).logits, rtol=1e-9, atol=1e-12)


def test_window_forgets_frames_in_attention(make_model, make_clip):
    """With a window the logits follow from the last frames' features alone; without one, from all of them."""
    clip = make_clip(1, FRAMES)
    changed = clip.clone()
    changed[:, 0] += 3 * torch.randn(3, 64, 96, dtype=torch.float64)
    for window, same in ((4, True), (None, False)):
        # Without propagation nothing but attention looks back.
        model = make_model(attention_window=window, num_propagation_layers=0)
        with torch.no_grad():
            before, after = model(clip), model(changed)
        assert torch.equal(before.logits, after.logits) is same
        assert (before.temporal_attention[0, :5] == 0).all().item() is same


def test_temporal_attention_of_a_step_is_that_of_the_clip(make_model, make_clip):
    model, clip = make_model(attention_window=4), make_clip(1, FRAMES)
    with torch.no_grad():
        whole = model(clip).temporal_attention
    step = run_stream(model, clip, [1] * FRAMES)[-1].temporal_attention
    assert whole.shape == (1, FRAMES)
    assert step.shape == (1, 4 + 1)  # the remembered frames and this one
    torch.testing.assert_close(step[:, -4:], whole[:, -4:], rtol=1e-9, atol=1e-12)
    assert step[0, 0] == 0


def test_streams_of_unequal_length_continue_from_their_own_last_frame(make_model, make_clip):
    for window in (None, 4):
        model, clip, more = make_model(attention_window=window), make_clip(2, 7), make_clip(2, 3, seed=9)
        frame_mask = torch.tensor([[True] * 7, [True] * 2 + [False] * 5])
        with torch.no_grad():
            state = model(clip, frame_mask).state
            together = model(more, state=state)
            for row, length in enumerate((7, 2)):
                alone = model(clip[row : row + 1, :length]).state
                for many, one in zip(tensors(state), tensors(alone), strict=True):
                    torch.testing.assert_close(many[row : row + 1], one, rtol=1e-9, atol=1e-12)
                continued = model(more[row : row + 1], state=alone)
                torch.testing.assert_close(together.logits[row : row + 1], continued.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("window", [None, 4])
def test_state_does_not_grow_with_the_frames_seen(make_model, make_clip, window):
    model = make_model(attention_window=window)

    def held(split):
        state = run_stream(model, make_clip(1, sum(split)), split)[-1].state
        # A view would keep the whole clip's features alive behind a small shape.
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors(state))

    sizes = [held([2]), held([6]), held([12]), held([6, 6]), held([2] * 6)]
    assert len(set(sizes)) == 1, sizes
    assert held([1] * 12) <= 1.6 * sizes[0]  # a step's cache may hold the present frame as well


def test_forward_leaves_the_state_it_was_given_alone(make_model, make_clip):
    for window in (None, 4):
        model = make_model(attention_window=window)
        with torch.no_grad():
            state = model(make_clip(1, 3)).state
            before = copy.deepcopy(state)
            first = model(make_clip(1, 2, seed=8), state=state)
            second = model(make_clip(1, 2, seed=8), state=state)
        assert all(map(torch.equal, tensors(state), tensors(before)))
        assert torch.equal(first.logits, second.logits)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0, 0, 0, 0), (0, 1, 2, 63, 95)])
def test_broken_frame_raises_and_leaves_the_state_as_it_was(make_model, make_clip, bad, place):
    model, clip = make_model(attention_window=4), make_clip(1, 8)
    with torch.no_grad():
        state = model(clip[:, :4]).state
        before = copy.deepcopy(state)
        broken = make_clip(1, 2, seed=8)
        broken[place] = bad
        with pytest.raises(ValueError, match="`pixel_values_videos` has NaN or infinite values"):
            model(broken, state=state)
        assert all(map(torch.equal, tensors(state), tensors(before)))
        continued = model(clip[:, 4:], state=state)
        never = model(clip[:, 4:], state=before)
    assert torch.equal(continued.logits, never.logits)
    assert torch.equal(continued.heatmap_logits, never.heatmap_logits)
    assert all(map(torch.equal, tensors(continued.state), tensors(never.state)))


@pytest.mark.parametrize("case", ["constant", "1e4 times", "1e4 times and back"])
def test_whole_model_stays_finite_and_bounded_on_extreme_streams(make_model, make_clip, case):
    model = make_model(attention_window=4, dtype=torch.float32)
    frame = make_clip(1, 1, 32, 32, dtype=torch.float32)
    largest, state = [], None
    for number in range(40):
        scale = 1.0 if case == "constant" or (case.endswith("back") and number >= 20) else 1e4
        with torch.no_grad():
            output = model(scale * frame.expand(-1, 25, -1, -1, -1), state=state)
        state = output.state
        assert all(tensor.isfinite().all() for tensor in tensors(state))
        assert output.logits.isfinite().all() and output.heatmap_logits.isfinite().all()
        largest.append(max(hidden.abs().max().item() for hidden in state.hidden))
    assert max(largest) < 100
    assert largest[-1] == pytest.approx(largest[-2], rel=1e-3)  # it has settled


def test_bidirectional_model_refuses_a_state_and_gives_a_clip(make_model, make_clip):
    model = make_model(bidirectional=True)
    with torch.no_grad():
        output = model(make_clip(1, 3))
        with pytest.raises(ValueError, match="`bidirectional=True` needs the whole clip"):
            model(make_clip(1, 1), state=output.state)
    assert output.logits.isfinite().all()


def test_bidirectional_model_differs_from_the_causal_one_on_early_frames(make_model, make_clip):
    clip = make_clip(1, 4)
    changed = clip.clone()
    changed[:, -1] += torch.randn(3, 64, 96, dtype=torch.float64)
    for bidirectional in (False, True):
        model = make_model(bidirectional=bidirectional)
        with torch.no_grad():
            same = torch.equal(model(clip).last_hidden_state[:, 0], model(changed).last_hidden_state[:, 0])
        assert same is not bidirectional


@pytest.mark.parametrize("shape", [(2, 1, 64, 96), (1, 1, 96, 64), (1, 1, 64, 64)])
def test_state_of_another_batch_or_size_raises(make_model, make_clip, shape):
    model = make_model(attention_window=4)
    with torch.no_grad():
        state = model(make_clip(1, 2)).state
        with pytest.raises(ValueError, match="Start a new stream"):
            model(make_clip(*shape), state=state)


def test_state_of_another_batch_raises_without_propagation_too(make_model, make_clip):
    model = make_model(num_propagation_layers=0)
    with torch.no_grad(), pytest.raises(ValueError, match="Start a new stream"):
        model(make_clip(2, 1), state=model(make_clip(1, 2)).state)


def test_state_survives_saving_and_moving(make_model, make_clip, tmp_path):
    model, clip = make_model(attention_window=4), make_clip(1, 6)
    with torch.no_grad():
        state = model(clip[:, :3]).state
        torch.save(tensors(state), tmp_path / "state.pt")
        loaded = torch.load(tmp_path / "state.pt")
        layers = len(state.hidden)
        restored = KineTrackState(tuple(loaded[:layers]), tuple(loaded[layers : 2 * layers]), *loaded[-3:])
        assert torch.equal(model(clip[:, 3:], state=restored).logits, model(clip[:, 3:], state=state).logits)


def test_two_streams_through_one_model_do_not_touch(make_model, make_clip):
    model = make_model(attention_window=4)
    first, second = make_clip(1, 5, seed=1), make_clip(1, 5, seed=2)
    alone = [run_stream(model, clip, [1] * 5)[-1].logits for clip in (first, second)]
    states = [None, None]
    for t, which in itertools.product(range(5), range(2)):
        with torch.no_grad():
            output = model((first, second)[which][:, t : t + 1], state=states[which])
        states[which] = output.state
        if t == 4:
            assert torch.equal(output.logits, alone[which])


def test_frames_of_a_long_clip_are_encoded_as_each_is_alone(make_model):
    encoder, frames = make_model().kinetrack.encoder, torch.randn(10, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        together, alone = encoder(frames), [encoder(frame[None]) for frame in frames]
    at_once = encoder(frames)  # with gradients there is one batch
    for index, maps in enumerate(together):
        torch.testing.assert_close(maps, torch.cat([one[index] for one in alone]))
        torch.testing.assert_close(maps, at_once[index].detach())
