"""What a KineTrack model costs, whatever its weights: size, arithmetic, time and memory.

Each model is measured in a process of its own, since memory that an earlier one has freed may not be given back.

    python -m kinetrack.hub_scripts.experiments.model_costs '{"length": 16, "size": [224, 224], "overrides": {}}'
"""

import json
import subprocess
import sys

import torch

from ..benchmark_parts import make_preset, measure_form
from ..process_memory import peak_resident_mib
from .experiment import Results

COSTS = "costs"  # the variant of an experiment that measures them


def measure_costs(length: int, size: tuple[int, int], **overrides) -> dict[str, dict[str, float]]:
    """Costs of `kinetrack-nano` with some settings changed, on one thread, with random weights.

    Args:
        length: frames of a clip.
        size: (height, width) of the model input.
        overrides: of the preset's configuration.

    Returns:
        Of a `step` of a stream and of a `clip`: `parameters`, `backbone_parameters`; `gflops` and `milliseconds` of
        processor time a frame; `frames_per_second` of that; `peak_mib` of the process above what it had before its
        first frame; `state_kib` that a stream carries.

    Raises:
        RuntimeError: the process failed; its last words are in the message.
    """
    wanted = json.dumps({"length": length, "size": size, "overrides": overrides})
    command = [sys.executable, "-m", __spec__.name, wanted]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"Measuring {wanted} failed:\n{run.stderr[-2000:]}")
    return json.loads(run.stdout.splitlines()[-1])


def costs_of(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """By what was measured and form, the least of every cost over the runs, since a busy machine only adds to it."""
    if COSTS not in results.variants():
        return {}
    return {
        name: {form: _least(results, name, form) for form in forms}
        for name, forms in results.measures(COSTS)[0].items()
    }


def trust_text(results: Results) -> str:
    """How far runs of the same thing lie apart in time, which no smaller difference between things can be told from."""
    runs = len(results.measures(COSTS))
    if runs < 2:
        return "Costs were measured once, and this machine's speed varies."
    times = [
        results.values(COSTS, name, form, "milliseconds")
        for name, forms in results.measures(COSTS)[0].items()
        for form in forms
    ]
    apart = max(100 * (values.max() / values.min() - 1) for values in times)
    return f"Times are the least of {runs} runs, which lie up to {apart:.0f} % apart: smaller differences say nothing."


def _least(results: Results, name: str, form: str) -> dict[str, float]:
    keys = results.measures(COSTS)[0][name][form]
    least = {key: float(results.values(COSTS, name, form, key).min()) for key in keys}
    return least | {"frames_per_second": 1000 / least["milliseconds"]}


def _measure(length: int, size: list[int], overrides: dict) -> dict[str, dict[str, float]]:
    torch.set_num_threads(1)
    model = make_preset("nano", **overrides)
    state = model.initial_state(1, *size).tensors()
    common = {
        "parameters": sum(value.numel() for value in model.parameters()),
        "backbone_parameters": sum(value.numel() for value in model.kinetrack.encoder.backbone.parameters()),
        "state_kib": sum(value.numel() * value.element_size() for value in state.values()) / 1024,
    }
    before, costs = peak_resident_mib(), {}
    for form, frames in (("step", 0), ("clip", length)):  # the peak only grows, so the smaller form comes first
        found = measure_form(model, frames, tuple(size), seconds=1.0)
        milliseconds = found["ms"]["cpu"] / max(1, frames)
        costs[form] = common | {
            "gflops": found["gflops"] / max(1, frames),
            "milliseconds": milliseconds,
            "frames_per_second": 1000 / milliseconds,
            "peak_mib": peak_resident_mib() - before,
        }
    return costs


if __name__ == "__main__":
    print(json.dumps(_measure(**json.loads(sys.argv[1]))))
