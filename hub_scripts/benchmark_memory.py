"""Peak memory of `kinetrack analyze` over a short and a long file."""

import subprocess
import sys
from pathlib import Path

from .benchmark_videos import EXAMPLE_VIDEO, write_resized

MEMORY_SECONDS = (30, 180)
MEMORY_SIZE = (1080, 1920)

# Runs the command line and then reports its own peak.
_MEASURED_RUN = """
import sys
from kinetrack.hub_scripts.cli import main
from kinetrack.hub_scripts.process_memory import peak_resident_mib
sys.argv[0] = "kinetrack"
try:
    main()
except SystemExit as end:
    if end.code:
        raise
print("peak_mib", peak_resident_mib(), flush=True)
"""


def measure_memory(model: str, folder: Path, allow_untrained: bool = False, device: str = "cpu") -> dict:
    """Peak resident memory of `kinetrack analyze`, all outputs on, over a short and a long 1080p file.

    Args:
        model: name, folder or Hub id.
        folder: where videos and results are made.
        allow_untrained: measures a model without trained weights.
        device: where the model runs.

    Returns:
        MiB by length in seconds, and the ratio of the longer to the shorter.

    Raises:
        RuntimeError: `kinetrack analyze` failed; its last words are in the message.
    """
    peaks = {}
    for seconds in MEMORY_SECONDS:
        video = folder / f"full-hd-{seconds}s.mp4"
        write_resized(EXAMPLE_VIDEO, video, MEMORY_SIZE, seconds)
        command = [sys.executable, "-c", _MEASURED_RUN, "analyze", str(video), "--model", model, "--device", device]
        command += ["--output", str(folder / "results")] + ["--allow-untrained"] * allow_untrained
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"`kinetrack analyze` failed on {video.name}:\n{run.stderr[-2000:]}")
        peaks[seconds] = float(run.stdout.rsplit("peak_mib", 1)[1])
        video.unlink()
    return {"peak_mib": peaks, "ratio": peaks[MEMORY_SECONDS[-1]] / peaks[MEMORY_SECONDS[0]]}
