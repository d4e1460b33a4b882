"""What `kinetrack benchmark` and `make bench` measure, and the report that it writes.

| part | measures | file |
|---|---|---|
| speed | frames a second from a file, by backend and stage | `benchmark_speed.py` |
| backends | the step alone, by backend | `benchmark_speed.py` |
| parts | encoder, motion, propagation, attention and heads of clips and steps | `benchmark_parts.py` |
| comparisons | single-task models, other video models, the ratios that are our goals | `benchmark_comparisons.py` |
| trackers | RF-DETR with ByteTrack | `benchmark_stack.py` |
| memory | peak of `kinetrack analyze` | `benchmark_memory.py` |
| recurrence | the scan and a plain loop | `benchmark_recurrence.py` |
| association | KineTracker and ByteTrack | `benchmark_association.py` |
"""

import os
import platform
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from .atomic_files import write_atomically, write_json_atomically

PARTS = ("speed", "backends", "parts", "comparisons", "trackers", "memory", "recurrence", "association")


def describe_machine() -> dict:
    """What the figures depend on."""
    import torch
    import torchvision
    import transformers

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "load": _load(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "transformers": transformers.__version__,
    }


def _load() -> float | None:
    """Processes that want a core, over the last minute: above the number of cores, elapsed times say little."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _processor_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def run_benchmark(
    model: str = "kinetrack-nano",
    parts: Sequence[str] = PARTS,
    repeats: int = 3,
    output: str | Path | None = None,
    mot_data: str | Path | None = None,
    threads: int | None = None,
    device: str = "cpu",
    lengths: Sequence[int] | None = None,
    allow_untrained: bool = False,
    backends: Sequence[str] | None = None,
    rivals: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float32",),
    seconds: float = 10.0,
    exported: Sequence[str | Path] = (),
) -> dict:
    """Measures and, when `output` is given, writes `benchmark.json`, `.md` and `.png` there after every part.

    Args:
        model: name, folder or Hub id.
        parts: any of `PARTS`.
        repeats: runs of each video in the speed part.
        output: a folder.
        mot_data: folder with `train/` and `val/` MOTChallenge sequences; without it, the association is only timed.
        threads: CPU threads for PyTorch and the other runtimes; PyTorch's own choice when None.
        device: a PyTorch device for everything that PyTorch runs.
        lengths: values of T; 1 to 128 (256 for the recurrence) when None.
        allow_untrained: measures a model without trained weights.
        backends: for the speed and backends parts; those installed when None, PyTorch alone on other devices.
        rivals: names of `RIVALS` to compare with; all when None.
        dtypes: types of numbers for `parts`.
        seconds: to spend on each comparison.
        exported: folders from `kinetrack export` to measure beside the model in the speed and backends parts.

    Returns:
        The report: `machine` and one entry a part.

    Raises:
        ValueError: an unknown part or rival, fewer than one repeat, or two of `exported` of one name.
    """
    from .benchmark_baselines import RIVALS

    _check_names("parts", parts, PARTS)
    if rivals is not None:
        _check_names("rivals", rivals, tuple(RIVALS))
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}.")
    if len({Path(folder).name for folder in exported}) < len(exported):
        given = ", ".join(map(str, exported))
        raise ValueError(f"Rows are called as `exported` folders are, which must differ; got {given}. Rename one.")
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    report = {"model": model, "machine": describe_machine() | {"device": device}}
    start = report["machine"]["load"]
    measures = {
        "speed": lambda: _measure_model(model, parts, repeats, device, allow_untrained, backends, seconds, exported),
        "parts": lambda: {"parts": _measure_parts(lengths, dtypes, device)},
        "comparisons": lambda: {"comparisons": _measure_comparisons(device, seconds, rivals)},
        "trackers": lambda: {"trackers": _measure_trackers(model, device, allow_untrained, seconds)},
        "memory": lambda: {"memory": _measure_memory(model, allow_untrained, device)},
        "recurrence": lambda: {"recurrence": _measure_recurrence(lengths, device)},
        "association": lambda: {"association": _measure_association(mot_data)},
    }
    wanted = {"speed" if part == "backends" else part for part in parts}
    for part in (part for part in measures if part in wanted):
        report |= measures[part]()
        report["machine"]["load"] = [start, _load()]
        if output is not None:  # what was measured is not lost if the next part fails
            save_report(report, Path(output))
    return report


def _check_names(what: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ValueError(f"`{what}` must be some of {', '.join(known)}; got {', '.join(unknown) or 'none'}.")


def _measure_model(model, parts, repeats, device, allow_untrained, backends, seconds, folders) -> dict:
    """The parts that run a given model."""
    from ..processing.graphs.backends import accelerate
    from ..processing.loading import load_model
    from .benchmark_speed import installed_backends, measure_backends, measure_drawing, measure_speed

    network, processor = load_model(model, device, allow_untrained=allow_untrained)
    exported = getattr(network, "backend", None)
    if exported is not None:
        backends = [exported]
    elif backends is None:
        backends = installed_backends() if device == "cpu" else ["torch"]
    networks = {backend: (accelerate(network, backend), processor) for backend in backends}
    networks |= {f"{Path(folder).name} (exported)": load_model(str(folder), device) for folder in folders}
    report = {}
    if "speed" in parts:
        with tempfile.TemporaryDirectory(prefix="kinetrack-benchmark-") as folder:
            report["speed"] = measure_speed(networks, Path(folder), repeats, allow_untrained)
        report["drawing"] = measure_drawing()
    if "backends" in parts and device == "cpu" and exported is None:
        runners = {"torch": network} | {name: runner for name, (runner, _) in networks.items()}
        report["backends"] = measure_backends(runners, seconds=seconds)
    return report


def _measure_parts(lengths, dtypes, device) -> list[dict]:
    from .benchmark_parts import LENGTHS, measure_forms

    return measure_forms(tuple(lengths or LENGTHS), dtypes=dtypes, device=device)


def _measure_comparisons(device, seconds, rivals) -> dict:
    from .benchmark_baselines import RIVALS
    from .benchmark_comparisons import measure_comparisons

    return measure_comparisons(device, seconds, tuple(rivals or RIVALS))


def _measure_trackers(model, device, allow_untrained, seconds) -> dict:
    from ..processing.loading import load_model
    from .benchmark_stack import measure_stack

    network, _ = load_model(model, device, allow_untrained=allow_untrained)
    return measure_stack(network, Path(model).name, seconds)


def _measure_memory(model, allow_untrained, device) -> dict:
    from .benchmark_memory import measure_memory

    with tempfile.TemporaryDirectory(prefix="kinetrack-benchmark-") as folder:
        return measure_memory(model, Path(folder), allow_untrained, device)


def _measure_recurrence(lengths, device) -> dict:
    from .benchmark_recurrence import LENGTHS, measure_recurrence

    return measure_recurrence(tuple(lengths or LENGTHS), device=device)


def _measure_association(mot_data: str | Path | None) -> dict:
    from . import benchmark_association

    if mot_data is not None:
        return benchmark_association.run_benchmark(Path(mot_data), draws=60)
    return {"milliseconds": {count: benchmark_association.time_trackers(count) for count in (10, 50, 100)}}


def save_report(report: dict, folder: Path) -> Path:
    """Writes `benchmark.json`, `benchmark.md` and, if there is something to draw, `benchmark.png`.

    Returns:
        The path of `benchmark.json`.
    """
    from .benchmark_plot import plot_report
    from .benchmark_report import format_report

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "benchmark.json"
    write_json_atomically(path, report)
    write_atomically(folder / "benchmark.md", format_report(report) + "\n")
    plot_report(report, folder / "benchmark.png")
    return path
