"""What `kinetrack benchmark` and `make bench` measure: speed, memory, the recurrence and the association.

Everything is made on the fly from the example video, so the figures of two machines compare.
"""

import itertools
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from .atomic_files import write_json_atomically

EXAMPLE_VIDEO = Path(__file__).parent / "examples" / "pets2009.mp4"
PARTS = ("speed", "memory", "recurrence", "association")
STAGES = ("decode", "preprocess", "model", "association")
# Model inputs (height, width) and the file that each is measured on; None is the example itself.
SPEED_RUNS = {"example": ((384, 512), None), "16:9": ((352, 640), (720, 1280))}
MEMORY_SECONDS = (30, 180)
MEMORY_SIZE = (1080, 1920)

# Runs the command line and then reports its own peak. On Linux a child's `ru_maxrss` may be the parent's; VmHWM is not.
_MEASURED_RUN = """
import resource, sys
from pathlib import Path
from kinetrack.hub_scripts.cli import main
sys.argv[0] = "kinetrack"
try:
    main()
except SystemExit as end:
    if end.code:
        raise
status = Path("/proc/self/status")
if status.exists():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
print("peak_kib", int(peak), flush=True)
"""


def write_resized(source: Path, target: Path, size: tuple[int, int], seconds: float | None = None) -> int:
    """Writes a video again at another size, over and over until it is long enough.

    Args:
        source: a video.
        target: the new file, H.264.
        size: (height, width) in pixels; the aspect ratio is not kept.
        seconds: length; that of the source when None.

    Returns:
        Number of frames written.
    """
    import av

    with av.open(str(source)) as video:
        rate = video.streams.video[0].average_rate
        frames = [frame.reformat(size[1], size[0], "yuv420p") for frame in video.decode(video=0)]
    count = len(frames) if seconds is None else round(seconds * rate)
    with av.open(str(target), "w") as video:
        stream = video.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "23"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(itertools.islice(itertools.cycle(frames), count)):
            frame.pts, frame.time_base = index, 1 / rate
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return count


def measure_speed(model, processor, folder: Path, repeats: int, allow_untrained: bool = False) -> list[dict]:
    """Frames per second from file to tracks and actions: every frame through the encoder, nothing drawn.

    Args:
        model: a model with both heads.
        processor: its video processor.
        folder: where the 16:9 file is made.
        repeats: runs of each video; medians are reported.
        allow_untrained: measures a model without trained weights.

    Returns:
        For each of `SPEED_RUNS`: frames, frames per second, and milliseconds per frame by stage.
    """
    from ..processing.session_kinetrack import KineTrackSession

    rows = []
    for name, (size, video_size) in SPEED_RUNS.items():
        video = EXAMPLE_VIDEO
        if video_size is not None:
            video = folder / f"resized-{video_size[1]}x{video_size[0]}.mp4"
            write_resized(EXAMPLE_VIDEO, video, video_size)
        session = KineTrackSession(model, processor, size=size, allow_untrained=allow_untrained)
        for _ in itertools.islice(session.run(str(video)), 10):  # warm-up
            pass
        rates, stages = [], defaultdict(list)
        for _ in range(repeats):
            session.reset()
            spent, frames, start = dict.fromkeys(STAGES, 0.0), 0, time.perf_counter()
            for result in session.run(str(video)):
                frames += 1
                for stage in STAGES:
                    spent[stage] += result.timings[stage]
            rates.append(frames / (time.perf_counter() - start))
            for stage in STAGES:
                stages[stage].append(1000 * spent[stage] / frames)
        rows.append(
            {
                "video": name,
                "model_input": list(size),
                "frames": frames,
                "frames_per_second": median(rates),
                "slowest_and_fastest": [min(rates), max(rates)],
                "milliseconds": {stage: median(values) for stage, values in stages.items()},
            }
        )
    return rows


def measure_memory(model: str, folder: Path, allow_untrained: bool = False) -> dict:
    """Peak resident memory of `kinetrack analyze`, all outputs on, over a short and a long 1080p file.

    Args:
        model: name, folder or Hub id.
        folder: where videos and results are made.
        allow_untrained: measures a model without trained weights.

    Returns:
        MiB by length in seconds, and the ratio of the longer to the shorter.

    Raises:
        RuntimeError: `kinetrack analyze` failed; its last words are in the message.
    """
    peaks = {}
    for seconds in MEMORY_SECONDS:
        video = folder / f"full-hd-{seconds}s.mp4"
        write_resized(EXAMPLE_VIDEO, video, MEMORY_SIZE, seconds)
        command = [sys.executable, "-c", _MEASURED_RUN, "analyze", str(video), "--model", model]
        command += ["--output", str(folder / "results")] + ["--allow-untrained"] * allow_untrained
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"`kinetrack analyze` failed on {video.name}:\n{run.stderr[-2000:]}")
        peaks[seconds] = int(run.stdout.rsplit("peak_kib", 1)[1]) / 1024
        video.unlink()
    return {"peak_mib": peaks, "ratio": peaks[MEMORY_SECONDS[-1]] / peaks[MEMORY_SECONDS[0]]}


def describe_machine() -> dict:
    """What the figures depend on."""
    import torch
    import torchvision
    import transformers

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "transformers": transformers.__version__,
    }


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
) -> dict:
    """Measures and, when `output` is given, writes `benchmark.json` there.

    Args:
        model: name, folder or Hub id.
        parts: any of `PARTS`.
        repeats: runs of each video in the speed part.
        output: a folder.
        mot_data: folder with `train/` and `val/` MOTChallenge sequences; without it, the association is only timed.
        threads: CPU threads for PyTorch; its own choice when None.
        device: a PyTorch device for the speed and recurrence parts.
        lengths: values of T for the recurrence; 1 to 256 when None.
        allow_untrained: measures a model without trained weights.

    Returns:
        The report: `machine` and one entry a part.

    Raises:
        ValueError: an unknown part, or fewer than one repeat.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise ValueError(f"`parts` must be some of {', '.join(PARTS)}; got {', '.join(unknown) or 'none'}.")
    if repeats < 1:
        raise ValueError(f"`repeats` must be at least 1, got {repeats}.")
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    report = {"model": model, "machine": describe_machine()}
    with tempfile.TemporaryDirectory(prefix="kinetrack-benchmark-") as folder:
        if "speed" in parts:
            from ..processing.loading import load_model

            network, processor = load_model(model, device, allow_untrained=allow_untrained)
            report["speed"] = measure_speed(network, processor, Path(folder), repeats, allow_untrained)
            del network
        if "memory" in parts:
            report["memory"] = measure_memory(model, Path(folder), allow_untrained)
    if "recurrence" in parts:
        from .benchmark_recurrence import LENGTHS, measure_recurrence

        report["recurrence"] = measure_recurrence(tuple(lengths or LENGTHS), device=device)
    if "association" in parts:
        report["association"] = _measure_association(mot_data)
    if output is not None:
        save_report(report, Path(output))
    return report


def _measure_association(mot_data: str | Path | None) -> dict:
    from . import benchmark_association

    if mot_data is not None:
        return benchmark_association.run_benchmark(Path(mot_data), draws=60)
    return {"milliseconds": {count: benchmark_association.time_trackers(count) for count in (10, 50, 100)}}


def save_report(report: dict, folder: Path) -> Path:
    """Writes `benchmark.json` into a folder, which is made if need be; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "benchmark.json"
    write_json_atomically(path, report)
    return path


def format_report(report: dict) -> str:
    """The report as Markdown tables, one a part."""
    machine = report["machine"]
    lines = [
        f"{report['model']}, {machine['date'][:10]}: {machine['accelerator'] or machine['processor']}, "
        f"{machine['threads']} threads on {machine['cores']} cores, torch {machine['torch']}."
    ]
    if "speed" in report:
        lines += ["", "| video | model input | frames/s | " + " | ".join(f"{stage}, ms" for stage in STAGES) + " |"]
        lines += ["|---|---" + "|---:" * (1 + len(STAGES)) + "|"]
        for row in report["speed"]:
            size = "×".join(map(str, row["model_input"]))
            stages = " | ".join(f"{row['milliseconds'][stage]:.1f}" for stage in STAGES)
            lines.append(f"| {row['video']} | {size} | {row['frames_per_second']:.1f} | {stages} |")
    if "memory" in report:
        peaks = report["memory"]["peak_mib"]
        lines += ["", "| 1080p file, all outputs on | peak memory, MiB |", "|---|---:|"]
        lines += [f"| {seconds} s | {peak:.0f} |" for seconds, peak in peaks.items()]
        lines.append(f"| ratio | {report['memory']['ratio']:.3f} |")
    if "recurrence" in report:
        lines += ["", "| T | scan, ms | `unbind` loop, ms | ratio | scan keeps, KiB/frame | loop keeps, KiB/frame |"]
        lines += ["|---:" * 6 + "|"]
        for row in report["recurrence"]:
            lines.append(
                f"| {row['frames']} | {row['scan_ms']:.2f} | {row['loop_ms']:.2f} | {row['ratio']:.2f} "
                f"| {row['scan_bytes_per_frame'] / 1024:.0f} | {row['loop_bytes_per_frame'] / 1024:.0f} |"
            )
    if "association" in report:
        lines += ["", _format_association(report["association"])]
    return "\n".join(lines)


def _format_association(association: dict) -> str:
    from . import benchmark_association

    if "scores" in association:
        return benchmark_association.format_report(association)
    times = association["milliseconds"]
    names = list(next(iter(times.values())))
    lines = ["| objects | " + " | ".join(f"{name}, ms" for name in names) + " |", "|---:" * (len(names) + 1) + "|"]
    lines += [f"| {count} | " + " | ".join(f"{row[name]:.2f}" for name in names) + " |" for count, row in times.items()]
    return "\n".join(lines)
