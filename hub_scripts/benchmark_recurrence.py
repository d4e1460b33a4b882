"""The propagation's recurrence beside the plain loop one would write: time, and memory kept for the backward pass.

h_t = (1 - z_t) * h_{t-1} + z_t * v_t        (the equation of `propagation_kinetrack`)
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from ..modeling.propagation_kinetrack import gated_scan

LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# The state of kinetrack-base at 224x224, (B, H/16, W/16, D).
STATE_SHAPE = (1, 14, 14, 256)


def unbind_loop(gate: torch.Tensor, value: torch.Tensor, initial: torch.Tensor) -> torch.Tensor:
    """The reference: a Python loop over `unbind`, differentiated by autograd. Shapes as in `gated_scan`."""
    state, states = initial, []
    for gate_t, value_t in zip(gate.unbind(1), value.unbind(1), strict=True):
        state = (1 - gate_t) * state + gate_t * value_t
        states.append(state)
    return torch.stack(states, dim=1)  # (B, T, ...)


def make_inputs(length: int, device: str, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Gate and value (B, T, H, W, D), the first state (B, H, W, D) and the gradient that comes back, float32."""
    generator = torch.Generator().manual_seed(seed)
    batch, *cells = STATE_SHAPE
    gate = torch.rand(batch, length, *cells, generator=generator).to(device).requires_grad_()
    value = torch.randn(batch, length, *cells, generator=generator).to(device).requires_grad_()
    initial = torch.zeros(STATE_SHAPE, device=device)
    gradient = torch.randn(batch, length, *cells, generator=generator).to(device)
    return gate, value, initial, gradient


def forward_backward(form: Callable, inputs: tuple[torch.Tensor, ...], device: str) -> float:
    """Seconds that one forward and backward pass takes."""
    gate, value, initial, gradient = inputs
    gate.grad = value.grad = None
    start = time.perf_counter()
    form(gate, value, initial).backward(gradient)
    if device != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def bytes_kept(form: Callable, inputs: tuple[torch.Tensor, ...]) -> int:
    """Bytes of all different tensors that autograd keeps between the forward and the backward pass."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    gate, value, initial, _ = inputs
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        form(gate, value, initial)
    return sum(storages.values())


def measure_recurrence(
    lengths: tuple[int, ...] = LENGTHS, seconds: float = 2.0, device: str = "cpu"
) -> list[dict[str, float]]:
    """Times the default scan against `unbind_loop`, forward and backward, float32, in alternating runs.

    Args:
        lengths: values of T.
        seconds: time to spend on every T; at least five and at most 200 runs of each form.
        device: a PyTorch device.

    Returns:
        A dictionary for every T: median milliseconds of both forms, their ratio (scan / loop), and the bytes per frame
        that each keeps for the backward pass.
    """
    forms = {"scan": gated_scan, "loop": unbind_loop}
    rows = []
    for length in lengths:
        inputs = make_inputs(length, device)
        spent: dict[str, list[float]] = {name: [] for name in forms}
        for form in forms.values():
            forward_backward(form, inputs, device)  # warm-up
        deadline = time.perf_counter() + seconds
        while len(spent["loop"]) < 5 or (time.perf_counter() < deadline and len(spent["loop"]) < 200):
            # The form that goes first alternates too: the first to run finds colder caches.
            for name in sorted(forms, reverse=len(spent["loop"]) % 2 == 0):
                spent[name].append(forward_backward(forms[name], inputs, device))
        scan, loop = median(spent["scan"]), median(spent["loop"])
        rows.append(
            {
                "frames": length,
                "scan_ms": 1000 * scan,
                "loop_ms": 1000 * loop,
                "ratio": scan / loop,
                "scan_bytes_per_frame": bytes_kept(gated_scan, inputs) / length,
                "loop_bytes_per_frame": bytes_kept(unbind_loop, inputs) / length,
            }
        )
    return rows
