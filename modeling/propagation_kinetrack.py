"""Parallel temporal propagation: a diagonal, convex, input-gated linear recurrence over time.

arXiv 2507.22421, Section 3.2 ("parallel spatial-temporal modelling"), with the recurrence made convex and its gates a
function of the input alone, so that it has a parallel form, an exact O(1) step and a bound:

    z_t = sigmoid(W_z u_t)      v_t = W_v u_t
    h_t = (1 - z_t) * h_{t-1} + z_t * v_t,   h_0 = 0
    F_t <- F_t + W_o (h_t * SiLU(W_g u_t))

where u_t is the normalised F_t after a depthwise 3x3 convolution in space and a short causal convolution in time.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.modeling_layers import GradientCheckpointingLayer

from ..modeling.pieces_kinetrack import carried_in_pieces


def loop_scan(gate: torch.Tensor, value: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """h_t = h_{t-1} + z_t * (v_t - h_{t-1}), one frame after the other.

    Three separately rounded operations a frame and no fused ones, so a clip and any split of it agree bitwise.
    Shapes: gate, value (B, T, ...), initial (B, ...) -> (B, T, ...).
    """
    states = torch.empty_like(value)
    previous = initial
    change = torch.empty_like(initial)
    for gate_t, value_t, state_t in zip(gate.unbind(1), value.unbind(1), states.unbind(1), strict=True):
        torch.sub(value_t, previous, out=change)
        change.mul_(gate_t)
        torch.add(previous, change, out=state_t)
        previous = state_t
    return states  # (B, T, ...)


def traced_scan(gate: torch.Tensor, value: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """The same arithmetic as `loop_scan` without in-place writes, for tracing compilers and exporters."""
    states = []
    previous = initial
    for gate_t, value_t in zip(gate.unbind(1), value.unbind(1), strict=True):
        previous = previous + gate_t * (value_t - previous)
        states.append(previous)
    return torch.stack(states, dim=1)  # (B, T, ...)


def chunked_scan(decay: torch.Tensor, inputs: torch.Tensor, initial: torch.Tensor, chunk_size: int) -> torch.Tensor:
    """h_t = a_t * h_{t-1} + b_t with about log2(chunk) + T / chunk launches.

    Inside all chunks at once, prefixes are combined by doubling, (a, b) after (a', b') = (a a', a b' + b); then one
    short loop carries the state from chunk to chunk. Nothing is divided and no logarithm taken, so decays of exactly
    0 and 1 are exact. Shapes: decay, inputs (B, T, ...), initial (B, ...) -> (B, T, ...).
    """
    batch, length = inputs.shape[:2]
    trailing = inputs.shape[2:]
    chunk_size = min(chunk_size, length)
    missing = -length % chunk_size
    if missing:
        decay = torch.cat([decay, decay.new_ones(batch, missing, *trailing)], dim=1)
        inputs = torch.cat([inputs, inputs.new_zeros(batch, missing, *trailing)], dim=1)
    decay = decay.reshape(batch, -1, chunk_size, *trailing)  # (B, N, C, ...)
    inputs = inputs.reshape(batch, -1, chunk_size, *trailing)  # (B, N, C, ...)
    step = 1
    while step < chunk_size:
        inputs = torch.cat([inputs[:, :, :step], decay[:, :, step:] * inputs[:, :, :-step] + inputs[:, :, step:]], 2)
        decay = torch.cat([decay[:, :, :step], decay[:, :, step:] * decay[:, :, :-step]], 2)
        step *= 2
    carries = [initial]
    for decay_end, input_end in zip(decay[:, :-1, -1].unbind(1), inputs[:, :-1, -1].unbind(1), strict=True):
        carries.append(decay_end * carries[-1] + input_end)
    states = decay * torch.stack(carries, dim=1).unsqueeze(2) + inputs  # (B, N, C, ...)
    return states.reshape(batch, -1, *trailing)[:, :length]  # (B, T, ...)


class _GatedScan(torch.autograd.Function):
    """The scan with a backward that is the same scan in reversed time; keeps z, v and h, nothing per step."""

    @staticmethod
    def forward(ctx, gate, value, initial, chunk_size):
        """Runs the loop form when `chunk_size` is None, the chunked form otherwise."""
        if chunk_size is None:
            states = loop_scan(gate, value, initial)
        else:
            states = chunked_scan(1 - gate, gate * value, initial, chunk_size)
        ctx.save_for_backward(gate, value, initial, states)
        ctx.chunk_size = chunk_size
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_states):
        """g_t = dL/dh_t + (1 - z_{t+1}) g_{t+1}; dz_t = g_t (v_t - h_{t-1}), dv_t = g_t z_t, dh_0 = (1-z_1) g_1."""
        gate, value, initial, states = ctx.saved_tensors
        if ctx.chunk_size is None:
            return _reverse_loop(gate, value, initial, states, grad_states)
        decay = 1 - gate
        # The decay that multiplies g_{t+1} stands at t + 1, so it is shifted by one before time is reversed.
        shifted = torch.cat([decay[:, 1:], torch.ones_like(decay[:, :1])], dim=1).flip(1)
        grads = chunked_scan(shifted, grad_states.flip(1), torch.zeros_like(initial), ctx.chunk_size).flip(1)
        previous = torch.cat([initial.unsqueeze(1), states[:, :-1]], dim=1)
        return grads * (value - previous), grads * gate, decay[:, 0] * grads[:, 0], None


def _reverse_loop(gate, value, initial, states, grad_states):
    """Gradients of `loop_scan`, last frame first; one frame's tensors stay in cache while they are used."""
    grad_gate, grad_value = torch.empty_like(gate), torch.empty_like(value)
    gates, values, outputs = gate.unbind(1), value.unbind(1), (initial, *states.unbind(1))
    grad_gates, grad_values, grad_outputs = grad_gate.unbind(1), grad_value.unbind(1), grad_states.unbind(1)
    carried = torch.zeros_like(initial)
    for t in range(len(gates) - 1, -1, -1):
        carried.add_(grad_outputs[t])  # g_t
        torch.mul(carried, gates[t], out=grad_values[t])
        torch.sub(values[t], outputs[t], out=grad_gates[t])
        grad_gates[t].mul_(carried)
        carried.sub_(grad_values[t])  # (1 - z_t) g_t
    return grad_gate, grad_value, carried, None


def gated_scan(
    gate: torch.Tensor,
    value: torch.Tensor,
    initial: torch.Tensor | None = None,
    scan: str = "auto",
    chunk_size: int = 16,
) -> torch.Tensor:
    """All states of h_t = (1 - z_t) h_{t-1} + z_t v_t.

    Args:
        gate: z (B, T, ...), each in [0, 1]; 0 leaves the state as it was, which is how masked frames pass.
        value: v (B, T, ...).
        initial: h_0 (B, ...); zeros when None.
        scan: `"loop"`, `"chunked"` or `"auto"` (loop on CPU, where arithmetic costs more than launches).
        chunk_size: frames a chunk in the chunked form.

    Returns:
        h (B, T, ...). Memory is linear in T.
    """
    if initial is None:
        initial = torch.zeros_like(value[:, 0])
    if scan == "auto":
        scan = "loop" if value.device.type == "cpu" else "chunked"
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return traced_scan(gate, value, initial)
    if torch.is_grad_enabled() and (gate.requires_grad or value.requires_grad or initial.requires_grad):
        return _GatedScan.apply(gate, value, initial, None if scan == "loop" else chunk_size)
    if scan == "loop":
        return loop_scan(gate, value, initial)
    return chunked_scan(1 - gate, gate * value, initial, chunk_size)


def keep_last_valid(sequence: torch.Tensor, count: int, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """The last `count` entries of a cache followed by a clip, not counting the clip's masked frames.

    Args:
        sequence: (B, M + T, ...), M cached entries and then T frames.
        count: entries to keep, at most M.
        frame_mask: (B, T), True for valid frames, which come first; None when all are.

    Returns:
        (B, count, ...).
    """
    if frame_mask is None:
        return sequence[:, sequence.shape[1] - count :]
    first = sequence.shape[1] - frame_mask.shape[1] - count + frame_mask.sum(dim=1)  # (B,)
    index = first[:, None] + torch.arange(count, device=sequence.device)  # (B, count)
    index = index.reshape(*index.shape, *([1] * (sequence.dim() - 2))).expand(-1, -1, *sequence.shape[2:])
    return sequence.gather(1, index)


class TemporalPropagation(GradientCheckpointingLayer):
    """One block of parallel temporal propagation with a residual connection (see the module's equations).

    Features are channels-last here, (B, T, H, W, D), so that all projections are plain matrix products.

    Args:
        config: `KineTrackConfig`.
    """

    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        self.bidirectional = config.bidirectional
        self.scan, self.chunk_size = config.scan, config.scan_chunk_size
        self.cache_length = config.temporal_kernel_size - 1
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.spatial_mixing = nn.Conv2d(size, size, 3, padding=1, groups=size)
        self.temporal_weight = nn.Parameter(torch.zeros(config.temporal_kernel_size, size))  # oldest frame first
        self.gate = nn.Linear(size, size)  # W_z
        self.value = nn.Linear(size, size)  # W_v
        self.output_gate = nn.Linear(size, size)  # W_g
        self.output = nn.Linear(size, size)  # W_o
        self.backward_gate = nn.Linear(size, size) if config.bidirectional else None

    def forward(
        self,
        features: torch.Tensor,
        cell_mask: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        state: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Propagates along time.

        Args:
            features: F (B, T, H, W, D).
            cell_mask: (B, 1, H, W, 1), 1 for cells that see the frame and 0 for padding.
            frame_mask: (B, T), True for valid frames, which come first.
            state: h (B, H, W, D) and the convolution's cache (B, k - 1, H, W, D) of an earlier chunk.

        Returns:
            F of the same shape, and the new state.
        """
        if self.bidirectional:
            return self._propagate(features, cell_mask, frame_mask, state)
        return carried_in_pieces(
            lambda piece, mask, past: self._propagate(piece, cell_mask, mask, past), features, frame_mask, state
        )

    def _propagate(self, features, cell_mask, frame_mask, state):
        inputs = self._mix_space(self.norm(features) * cell_mask)
        hidden, cache = state if state is not None else (None, self._empty_cache(inputs))
        inputs, cache = self._convolve_time(inputs, cache, frame_mask)  # u

        value = self.value(inputs)
        gate = self._masked_gate(self.gate(inputs), frame_mask)
        propagated = gated_scan(gate, value, hidden, self.scan, self.chunk_size)  # (B, T, H, W, D)
        hidden = propagated[:, -1]
        if self.backward_gate is not None:
            # Padding is first in reversed time; with z = 0 the scan really starts at the last valid frame.
            gate = self._masked_gate(self.backward_gate(inputs), frame_mask).flip(1)
            propagated = propagated + gated_scan(gate, value.flip(1), None, self.scan, self.chunk_size).flip(1)
        return features + self.output(propagated * F.silu(self.output_gate(inputs))), (hidden, cache)

    def _mix_space(self, inputs):
        """Depthwise 3x3 on every frame; the permutations are views in channels_last memory."""
        frames = inputs.flatten(0, 1).permute(0, 3, 1, 2)  # (BT, D, H, W)
        return self.spatial_mixing(frames).permute(0, 2, 3, 1).unflatten(0, inputs.shape[:2])

    def _empty_cache(self, inputs):
        return inputs.new_zeros(inputs.shape[0], self.cache_length, *inputs.shape[2:])

    def _convolve_time(self, inputs, cache, frame_mask):
        """Depthwise causal convolution over (cache, inputs); returns the result and the next cache."""
        length = inputs.shape[1]
        sequence = torch.cat([cache, inputs], dim=1)  # (B, k - 1 + T, H, W, D)
        mixed = inputs * self.temporal_weight[-1]
        for lag in range(self.cache_length):
            mixed = mixed + sequence[:, lag : lag + length] * self.temporal_weight[lag]
        return mixed, keep_last_valid(sequence, self.cache_length, frame_mask)

    @staticmethod
    def _masked_gate(logits, frame_mask):
        gate = torch.sigmoid(logits)
        return gate if frame_mask is None else gate * frame_mask[:, :, None, None, None].to(gate.dtype)
