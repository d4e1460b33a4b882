"""The recurrence and the propagation block around it."""

import math

import pytest
import torch
from kinetrack.modeling.modeling_kinetrack import KineTrackModel
from kinetrack.modeling.propagation_kinetrack import (
    chunked_scan,
    gated_scan,
    keep_last_valid,
    traced_scan,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LENGTHS = [1, 2, 3, 5, 15, 16, 17, 31, 64, 100, 255, 256]
FORMS = ["loop", "chunked"]


def naive_scan(gate, value, initial):
    """The definition, one Python float64 expression a frame; autograd gives its gradients."""
    states = []
    previous = initial.double()
    for t in range(gate.shape[1]):
        previous = (1 - gate[:, t].double()) * previous + gate[:, t].double() * value[:, t].double()
        states.append(previous)
    return torch.stack(states, dim=1)


def scan_inputs(length, batch=2, size=5, dtype=torch.float64):
    gate = torch.sigmoid(3 * torch.randn(batch, length, size, dtype=dtype))
    return gate, torch.randn(batch, length, size, dtype=dtype), torch.randn(batch, size, dtype=dtype)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("form", FORMS)
def test_scan_and_gradients_equal_naive_float64_loop(form, length):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(length)]
    expected = naive_scan(*inputs)
    states = gated_scan(*inputs, scan=form)
    torch.testing.assert_close(states, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(states)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), inputs)
    gradients = torch.autograd.grad((states * weights).sum(), inputs)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("length", [1, 16, 256])
@pytest.mark.parametrize("form", FORMS)
def test_float32_scan_and_gradients_stay_near_naive_float64_loop(form, length):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(length, dtype=torch.float32)]
    expected = naive_scan(*inputs)
    states = gated_scan(*inputs, scan=form)
    assert states.dtype == torch.float32
    torch.testing.assert_close(states.double(), expected, rtol=1e-5, atol=1e-5)
    expected_gradients = torch.autograd.grad(expected.square().sum(), inputs)
    gradients = torch.autograd.grad(states.square().sum(), inputs)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("length", [1, 2, 7, 9])
@pytest.mark.parametrize("form", FORMS)
def test_scan_passes_gradcheck(form, length):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(length, batch=1, size=2)]
    assert torch.autograd.gradcheck(
        lambda gate, value, initial: gated_scan(gate, value, initial, form, chunk_size=4), inputs
    )


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("form", FORMS)
def test_gradient_flows_when_only_one_input_wants_it(form, which):
    inputs = list(scan_inputs(6))
    inputs[which].requires_grad_()
    (gradient,) = torch.autograd.grad(gated_scan(*inputs, scan=form).square().sum(), inputs[which])
    (expected,) = torch.autograd.grad(naive_scan(*inputs).square().sum(), inputs[which])
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 7, 16, 64])
def test_chunk_size_changes_nothing(chunk_size):
    inputs = scan_inputs(37)
    torch.testing.assert_close(gated_scan(*inputs, "chunked", chunk_size), naive_scan(*inputs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_state_starts_at_zero_when_none_is_given(form):
    gate, value, initial = scan_inputs(5)
    expected = naive_scan(gate, value, torch.zeros_like(initial))
    torch.testing.assert_close(gated_scan(gate, value, None, form), expected)


@pytest.mark.parametrize("form", FORMS)
def test_saturated_gates_keep_or_replace_the_state(form):
    gate, value, initial = scan_inputs(40)
    gate = (gate > 0.5).to(value.dtype)
    states = gated_scan(gate, value, initial, form)
    previous = initial
    for t in range(40):
        kept = gate[:, t] == 0
        assert torch.equal(states[:, t][kept], previous[kept])  # a masked frame changes not one bit
        torch.testing.assert_close(states[:, t][~kept], value[:, t][~kept], rtol=1e-14, atol=1e-14)
        previous = states[:, t]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("split", [[1] * 20, [20], [1, 19], [7, 13], [3, 1, 9, 7]], ids=str)
def test_loop_recurrence_of_any_split_is_bitwise_that_of_the_clip(split, dtype):
    gate, value, initial = scan_inputs(20, dtype=dtype)
    clip = gated_scan(gate, value, initial, "loop")
    parts, state = [], initial
    for gate_part, value_part in zip(gate.split(split, 1), value.split(split, 1), strict=True):
        parts.append(gated_scan(gate_part, value_part, state, "loop"))
        state = parts[-1][:, -1]
    assert torch.equal(torch.cat(parts, 1), clip)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_training_inference_and_traced_loops_are_bitwise_equal(dtype):
    gate, value, initial = scan_inputs(33, dtype=dtype)
    inference = gated_scan(gate, value, initial, "loop")
    training = gated_scan(gate, value.clone().requires_grad_(), initial, "loop")
    assert torch.equal(training.detach(), inference)
    assert torch.equal(traced_scan(gate, value, initial), inference)


def test_scan_leaves_its_inputs_alone():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(9)]
    before = [tensor.detach().clone() for tensor in inputs]
    weights = torch.randn(2, 9, 5, dtype=torch.float64)
    kept = weights.clone()
    torch.autograd.backward(gated_scan(*inputs, scan="loop"), weights)
    assert all(torch.equal(now, then) for now, then in zip(inputs, before, strict=True))
    assert torch.equal(weights, kept)


class AllocatedBytes(TorchDispatchMode):
    """Counts the bytes of every storage that an operation makes; views and in-place results cost nothing."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))

        def storages(tree):
            return {
                t.untyped_storage()._cdata: t.untyped_storage().nbytes()
                for t in tree_leaves(tree)
                if torch.is_tensor(t)
            }

        old = storages((args, kwargs))
        self.total += sum(size for key, size in storages(result).items() if key not in old)
        return result


@pytest.mark.parametrize("form", FORMS)
def test_memory_of_forward_and_backward_grows_linearly_in_time(form):
    def cost(length):
        gate, value, initial = scan_inputs(length, batch=1, size=64, dtype=torch.float32)
        value.requires_grad_()
        with AllocatedBytes() as allocated:
            gated_scan(gate, value, initial, form).sum().backward()
        return allocated.total

    # Everything ever allocated bounds the peak from above. An indexed loop's backward would give a factor of 4.
    costs = [cost(length) for length in (64, 128, 256, 512)]
    assert all(after <= 2.1 * before for before, after in zip(costs, costs[1:], strict=False)), costs


@pytest.mark.parametrize("form", FORMS)
def test_what_is_kept_for_the_backward_is_a_few_tensors_of_the_inputs_size(form):
    def saved(length):
        gate, value, initial = scan_inputs(length, batch=1, size=64, dtype=torch.float32)
        gate.requires_grad_(), value.requires_grad_()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: sizes.append(tensor.untyped_storage().nbytes()) or tensor, lambda tensor: tensor
        ):
            gated_scan(gate, value, initial, form)
        return sum(sizes)

    one_input = 256 * 64 * 4
    assert saved(256) <= 3 * one_input + 64 * 4  # z, v, h and the first state
    assert saved(512) - saved(256) == 3 * one_input


STEPS = 100_000


def stream_in_chunks(step, chunk=1000):
    """Carries a state through `STEPS` frames; returns the largest value, and the state early on and at the end."""
    state, largest, early = None, 0.0, None
    for number in range(STEPS // chunk):
        state, seen = step(state, chunk, number)
        largest = max(largest, seen)
        early = state if number == 0 else early
    return largest, early, state


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("gate_logit", [-1e4, -9.0, 0.0, 9.0, 1e4], ids="gate {}".format)
def test_state_of_constant_input_is_bounded_over_100000_steps(form, scale, gate_logit):
    value_t = scale * torch.randn(1, 4)
    # 1 - z rounds, so a weighted mean with weights summing to 1 + 6e-8 settles up to 6e-8 / z off: 5e-4 at z = 1e-4.
    bound = value_t.abs().max().item() * (1 + 1e-3)

    def step(state, chunk, number):
        gate = torch.sigmoid(torch.full((1, chunk, 4), gate_logit))
        states = gated_scan(gate, value_t[:, None].expand(-1, chunk, -1), state, form)
        return states[:, -1], states.abs().max().item()

    largest, _, last = stream_in_chunks(step)
    assert largest <= bound
    expected = value_t if gate_logit > -1e3 else torch.zeros_like(value_t)
    torch.testing.assert_close(last, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_state_of_changing_input_is_a_weighted_mean_of_it_over_100000_steps(form, scale):
    generator = torch.Generator().manual_seed(5)

    def step(state, chunk, number):
        gate = torch.sigmoid(6 * torch.randn(1, chunk, 4, generator=generator))
        value = scale * (2 * torch.rand(1, chunk, 4, generator=generator) - 1)
        states = gated_scan(gate, value, state, form)
        return states[:, -1], states.abs().max().item()

    largest, _, _ = stream_in_chunks(step)
    assert largest <= scale * (1 + 1e-5)


def make_block(make_config, scatter, dtype=torch.float64, **overrides):
    config = make_config(hidden_size=4, **overrides)
    model = KineTrackModel(config, with_pyramid=False)
    return scatter(model.propagation[0]).to(dtype).eval()


@pytest.mark.parametrize("case", ["constant", "gates shut", "gates open", "1e4 times"])
def test_state_of_a_block_is_bounded_over_100000_steps(make_config, scatter, case):
    block = make_block(make_config, scatter, torch.float32)
    with torch.no_grad():
        if case.startswith("gates"):
            block.gate.bias.fill_(1e4 if case == "gates open" else -1e4)
    frame = torch.randn(1, 1, 1, 1, 4) * (1e4 if case == "1e4 times" else 1.0)
    features = frame.expand(1, 1000, 1, 1, 4)
    mask = torch.ones(1, 1, 1, 1, 1)
    with torch.no_grad():
        # What the recurrence is fed is bounded, whatever the scale of the features, by the norm before it.
        inputs, _ = block._convolve_time(
            block._mix_space(block.norm(features) * mask), torch.zeros(1, block.cache_length, 1, 1, 4), None
        )
        bound = block.value(inputs).abs().max().item() * (1 + 1e-5)

        def step(state, chunk, number):
            _, state = block(features, mask, None, state)
            return state, state[0].abs().max().item()

        largest, early, last = stream_in_chunks(step)
    assert bound < 100
    assert largest <= bound
    torch.testing.assert_close(last[0], early[0], rtol=1e-3, atol=1e-4)  # settled after the first thousand


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("scan", FORMS)
def test_block_of_any_split_equals_the_clip(make_config, scatter, scan, kernel):
    block = make_block(make_config, scatter, temporal_kernel_size=kernel, scan=scan, scan_chunk_size=4)
    features = torch.randn(2, 11, 3, 4, 4, dtype=torch.float64)
    mask = torch.ones(2, 1, 3, 4, 1, dtype=torch.float64)
    with torch.no_grad():
        clip, clip_state = block(features, mask)
        for split in ([1] * 11, [1, 10], [4, 7], [2, 1, 5, 3]):
            parts, state = [], None
            for part in features.split(split, 1):
                output, state = block(part, mask, None, state)
                parts.append(output)
            torch.testing.assert_close(torch.cat(parts, 1), clip, rtol=1e-9, atol=1e-12)
            for now, then in zip(state, clip_state, strict=True):
                torch.testing.assert_close(now, then, rtol=1e-9, atol=1e-12)


def test_long_clips_go_through_a_block_in_pieces(make_config, scatter, monkeypatch):
    block = make_block(make_config, scatter, temporal_kernel_size=3)
    features, cells = torch.randn(2, 40, 3, 4, 4, dtype=torch.float64), torch.ones(2, 1, 3, 4, 1, dtype=torch.float64)
    valid = torch.arange(40) < torch.tensor([[40], [10]])  # the second ends within the first piece
    lengths, mix = [], block._mix_space
    monkeypatch.setattr(block, "_mix_space", lambda inputs: lengths.append(inputs.shape[1]) or mix(inputs))
    learned, learned_state = block(features, cells, valid)  # with gradients the whole clip at once
    with torch.no_grad():
        seen, state = block(features, cells, valid)
    assert lengths == [40, 16, 16, 8]
    torch.testing.assert_close(seen[valid], learned.detach()[valid], rtol=1e-9, atol=1e-12)
    for now, then in zip(state, learned_state, strict=True):
        torch.testing.assert_close(now, then.detach(), rtol=1e-9, atol=1e-12)


def test_block_equals_its_equations(make_config, scatter):
    block = make_block(make_config, scatter, temporal_kernel_size=3)
    features = torch.randn(1, 5, 3, 4, 4, dtype=torch.float64)
    mask = torch.ones(1, 1, 3, 4, 1, dtype=torch.float64)
    with torch.no_grad():
        output, _ = block(features, mask)
        mean = features.mean(-1, keepdim=True)
        deviation = (features.var(-1, unbiased=False, keepdim=True) + block.norm.eps).sqrt()
        normed = (features - mean) / deviation * block.norm.weight + block.norm.bias
        mixed = torch.zeros_like(normed) + block.spatial_mixing.bias
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                for i in range(3):
                    for j in range(4):
                        if 0 <= i + dy < 3 and 0 <= j + dx < 4:
                            weight = block.spatial_mixing.weight[:, 0, dy + 1, dx + 1]
                            mixed[:, :, i, j] += weight * normed[:, :, i + dy, j + dx]
        hidden = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
        for t in range(5):
            u = sum(block.temporal_weight[2 - lag] * mixed[:, t - lag] for lag in range(3) if t >= lag)
            z = 1 / (1 + torch.exp(-(u @ block.gate.weight.T + block.gate.bias)))
            hidden = (1 - z) * hidden + z * (u @ block.value.weight.T + block.value.bias)
            g = u @ block.output_gate.weight.T + block.output_gate.bias
            gated = hidden * g / (1 + torch.exp(-g))
            expected = features[:, t] + gated @ block.output.weight.T + block.output.bias
            torch.testing.assert_close(output[:, t], expected, rtol=1e-10, atol=1e-12)


def test_block_does_not_carry_padding_into_valid_cells(make_config, scatter):
    block = make_block(make_config, scatter)
    features, mask = torch.randn(1, 4, 3, 4, 4, dtype=torch.float64), torch.ones(1, 1, 3, 4, 1, dtype=torch.float64)
    mask[:, :, 2:] = mask[:, :, :, 3:] = 0
    filled = torch.where(mask == 0, 50 * torch.randn_like(features), features)
    assert torch.equal(block(features, mask)[0][:, :, :2, :3], block(filled, mask)[0][:, :, :2, :3])


def test_causal_block_does_not_see_the_future(make_config, scatter):
    block = make_block(make_config, scatter)
    features = torch.randn(1, 6, 2, 2, 4, dtype=torch.float64)
    changed = features.clone()
    changed[:, 4:] += torch.randn(4, dtype=torch.float64)
    mask = torch.ones(1, 1, 2, 2, 1, dtype=torch.float64)
    before, after = block(features, mask)[0], block(changed, mask)[0]
    assert torch.equal(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:] - features[:, 4:], after[:, 4:] - changed[:, 4:])


def test_bidirectional_block_sees_the_future_and_only_the_valid_one(make_config, scatter):
    block = make_block(make_config, scatter, bidirectional=True)
    features = torch.randn(1, 6, 2, 2, 4, dtype=torch.float64)
    mask = torch.ones(1, 1, 2, 2, 1, dtype=torch.float64)
    frame_mask = torch.tensor([[True] * 4 + [False] * 2])
    changed = features.clone()
    changed[:, 3] += torch.randn(4, dtype=torch.float64)
    assert not torch.allclose(block(features, mask)[0][:, 0], block(changed, mask)[0][:, 0])
    changed = features.clone()
    changed[:, 4:] = 50
    alone = block(features[:, :4], mask)[0]
    torch.testing.assert_close(block(features, mask, frame_mask)[0][:, :4], alone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(block(changed, mask, frame_mask)[0][:, :4], alone, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_keep_last_valid_keeps_what_a_stream_of_valid_frames_would(count):
    cached, clip = torch.randn(3, 4, 2), torch.randn(3, 5, 2)
    valid = torch.tensor([5, 2, 1])
    frame_mask = torch.arange(5)[None] < valid[:, None]
    kept = keep_last_valid(torch.cat([cached, clip], 1), count, frame_mask)
    for row, length in enumerate(valid.tolist()):
        history = torch.cat([cached[row], clip[row, :length]])
        assert torch.equal(kept[row], history[len(history) - count :])


def test_chunked_scan_launches_grow_with_the_logarithm_of_the_chunk():
    class Launches(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += function.overloadpacket in (torch.ops.aten.mul, torch.ops.aten.add)
            return function(*args, **(kwargs or {}))

    decay = torch.rand(1, 256, 4)
    with Launches() as launches:
        chunked_scan(decay, torch.rand_like(decay), torch.zeros(1, 4), 16)
    assert launches.count <= 3 * math.log2(16) + 2 * (256 / 16) + 2
