"""What `make soak` measures: whether anything grows while a stream runs for a very long time.

Two runs. `example` plays the example video over and over, as a folder of recordings would be, with the model and all
text outputs. `synthetic` leaves the model out, to get ten times as far in the same time: made-up people come and go in
front of the reading thread, the tracker and the outputs.

Every run is cut into tenths. It passes when the last tenth needs as much memory as the second and as much processor
time a frame, and when no file, no thread and no identity is left over.
"""

import argparse
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import numpy as np

from .atomic_files import write_json_atomically
from .console import prepare_console
from .process_memory import resident_mib

EXAMPLE_VIDEO = Path(__file__).parent / "examples" / "pets2009.mp4"
EXAMPLE_SIZE = (192, 256)  # height and width of the model input
FRAMES = {"example": 100_000, "synthetic": 1_000_000}
MEMORY_LIMIT, TIME_LIMIT = 1.02, 1.10  # last tenth over second tenth
_SAMPLES = 1000  # of memory, over a run
_RENEWALS = 20  # how often the outputs are closed and begun again, as whoever rotates logs does
_PEOPLE, _LIFE, _SIDE = 6, 250, (480, 640)  # at a time; frames each; height and width of the scene


@dataclass
class Watch:
    """Memory, processor time, files and threads of this process over a run.

    Args:
        frames: how many there will be.
        report: called now and then with a line to print.
    """

    frames: int
    report: Callable[[str], None] = lambda line: None
    memory: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    done: int = 0
    last_id: int = 0

    def __post_init__(self):
        self._every = max(1, self.frames // _SAMPLES)
        self._told = self._started = time.perf_counter()

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, kind, *_) -> bool:
        """An interruption ends the run, and what was measured until then counts."""
        return kind is KeyboardInterrupt

    def add(self, track_ids: np.ndarray) -> None:
        """Looks at the process after one more frame; `track_ids` are the identities in it."""
        self.done += 1
        if len(track_ids):
            self.last_id = max(self.last_id, int(track_ids.max()))
        if self.done % self._every:
            return
        self.memory.append(resident_mib())
        self.seconds.append(time.process_time())
        self.wall.append(time.perf_counter())
        self.files.append(open_files())
        self.threads.append(running_threads())
        if time.perf_counter() - self._told > 30:
            self._told = time.perf_counter()
            rate = self.done / (self._told - self._started)
            self.report(f"{self.done} of {self.frames} frames, {rate:.0f} a second, {self.memory[-1]:.0f} MiB")

    def tenths(self, values: list[float], of: Callable = np.mean) -> list[float]:
        """One number for each tenth of a run, its mean."""
        return [float(of(part)) for part in np.array_split(values, 10)]

    def summary(self, created: int) -> dict:
        """What was measured.

        Args:
            created: identities that the tracker gave out.

        Raises:
            ValueError: the run was too short to be cut into tenths.
        """
        if len(self.memory) < 20:
            raise ValueError(f"A soak of {self.done} frames is too short to tell anything. Give it more --frames.")
        memory = self.tenths(self.memory)
        # Other programs slow a processor down now and then, and never speed it up: a tenth is its less disturbed part.
        spent = self.tenths(np.diff(self.seconds) * 1000 / self._every, lambda part: np.quantile(part, 0.25))
        waited = self.tenths(np.diff(self.wall) * 1000 / self._every)
        ratio, slower = memory[-1] / memory[1], spent[-1] / spent[1]
        files, threads = self.tenths(self.files), self.tenths(self.threads)
        checks = {
            "complete": self.done == self.frames,
            "memory_flat": ratio <= MEMORY_LIMIT,
            "time_flat": slower <= TIME_LIMIT,
            "no_file_left_open": max(self.files[-1], files[-1]) <= max(self.files[0], files[1]) + 1,
            "no_thread_left": max(self.threads[-1], threads[-1]) <= max(self.threads[0], threads[1]) + 1,
            "identities_exact": self.last_id <= created < 2**53,
        }
        return {
            "frames": self.done,
            "frames_wanted": self.frames,
            "wall_seconds": self.wall[-1] - self._started,
            "memory_mib_by_tenth": [round(value, 1) for value in memory],
            "memory_last_over_second_tenth": round(ratio, 4),
            "cpu_ms_a_frame_by_tenth": [round(value, 3) for value in spent],
            "cpu_last_over_second_tenth": round(slower, 4),
            "wall_ms_a_frame_by_tenth": [round(value, 3) for value in waited],
            "open_files_first_and_last": [self.files[0], self.files[-1]],
            "threads_first_and_last": [self.threads[0], self.threads[-1]],
            "identities": created,
            "checks": checks,
            "passed": all(checks.values()),
        }


def running_threads() -> int:
    """Threads of this process, those of FFmpeg and OpenVINO included; Python's own where the system does not tell."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def open_files() -> int:
    """Files that this process has open; 0 where the system does not tell."""
    folder = Path("/proc/self/fd")
    return len(os.listdir(folder)) if folder.exists() else 0


class _Outputs:
    """The text outputs of a stream, closed and begun again from time to time."""

    def __init__(self, folder: Path, model: dict, frames: int):
        self._folder, self._model = folder, model
        self._every = max(1, frames // _RENEWALS)
        self._count, self._sinks = 0, []

    def write(self, result) -> None:
        from ..processing.stream_sinks import FRAMES, TRACKS, JsonLinesSink, MotSink

        if self._count % self._every == 0:
            self.close()
            self._sinks = [JsonLinesSink(self._folder / FRAMES, "soak", self._model), MotSink(self._folder / TRACKS)]
        self._count += 1
        for sink in self._sinks:
            sink.write(result)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> "_Outputs":
        return self

    def __exit__(self, *exception) -> None:
        self.close()


def soak_example(frames: int, folder: Path, report=print, model: str = "kinetrack-nano", **options) -> dict:
    """Plays the example video again and again through a session, with the backend that `kinetrack stream` would take.

    Args:
        frames: how many.
        folder: for the outputs.
        report: called now and then with a line to print.
        model: for `load_model`.
        options: for `KineTrackSession`; the input is `EXAMPLE_SIZE` unless they say otherwise.

    Returns:
        See `Watch.summary`.
    """
    from ..processing.describing_kinetrack import describe_model
    from ..processing.loading import load_model
    from ..processing.session_kinetrack import KineTrackSession
    from ..processing.sources_kinetrack import StreamSource

    network = load_model(model, "cpu", allow_untrained=options.get("allow_untrained", False), backend="auto")
    session = KineTrackSession(*network, **{"size": EXAMPLE_SIZE, **options})
    source = StreamSource("videos", "soak", (str(EXAMPLE_VIDEO),) * (frames // 100 + 1))
    watch = Watch(frames, report)
    outputs = _Outputs(folder, describe_model(model, session.model.config), frames)
    results = session.run(source)
    with outputs, closing(results), watch:
        for result in islice(results, frames):
            outputs.write(result)
            watch.add(result.track_ids)
    created = session.state_dict()["tracker"]["next_id"] - 1
    backend = getattr(network[0], "backend", "torch")
    about = {"part": "example", "model": model, "backend": backend, "model_input": list(EXAMPLE_SIZE)}
    return about | watch.summary(created)


class SyntheticSource:
    """A source of frames without a picture; what is seen in them is told by `people_at`.

    Args:
        frames: how many.
    """

    kind, name, targets, is_live = "file", "synthetic", (None,), False

    def __init__(self, frames: int):
        self.frames = frames

    @contextmanager
    def open(self, target) -> Iterator["SyntheticSource"]:
        """The source itself."""
        yield self

    frame_rate, failure, report = 25.0, None, None

    def decode(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yields (frame, seconds)."""
        frame = np.zeros((2, 2, 3), np.uint8)
        for index in range(self.frames):
            yield frame, index / self.frame_rate

    def picture(self, frame):
        """What makes the picture of a frame."""
        return frame.copy


def people_at(index: int):
    """Detections of made-up people, who walk for ten seconds each and then make room for somebody new.

    Args:
        index: number of the frame, from 0.

    Returns:
        `Detections` with embeddings (N, 16).
    """
    from ..processing.tracking_kinetrack import Detections

    height, width = _SIDE
    age = index + np.arange(_PEOPLE) * (_LIFE // _PEOPLE)  # (N,)
    person, step = age // _LIFE * _PEOPLE + np.arange(_PEOPLE), age % _LIFE
    lane = (np.arange(_PEOPLE) + 0.5) * height / _PEOPLE
    forwards = person % 2 == 0
    x = np.where(forwards, step, _LIFE - step) * width / _LIFE
    wobble = 1.5 * np.sin(0.7 * index + person)  # no detector is exact
    boxes = np.stack([x - 15 + wobble, lane - 35, x + 15 + wobble, lane + 35 + wobble], axis=1)
    seen = (step < _LIFE - 60) & ((index + person) % 37 != 0)  # gone for a while, and missed now and then
    looks = np.cos(np.outer(person + 1.0, np.arange(1, 17))).astype(np.float32)  # (N, 16)
    return Detections(boxes[seen], np.full(int(seen.sum()), 0.9), data={"embedding": looks[seen]})


def soak_synthetic(frames: int, folder: Path, report=print) -> dict:
    """Sends made-up people through the reading thread, the tracker and the outputs.

    Args:
        frames: how many.
        folder: for the outputs.
        report: called now and then with a line to print.

    Returns:
        See `Watch.summary`.
    """
    from ..processing.feed_kinetrack import FrameFeed
    from ..processing.session_kinetrack import KineTrackFrameResult
    from ..processing.tracking_kinetrack import KineTracker

    tracker, watch = KineTracker(), Watch(frames, report)
    model = {"actions": [], "action_threshold": 0.0, "object_classes": ["person"], "groups": {}}
    outputs = _Outputs(folder, model, frames)
    with outputs, FrameFeed(SyntheticSource(frames)) as feed, watch:
        for frame in feed.frames():
            tracks = tracker.update(people_at(frame.index), frame.time)
            seen = (tracks.track_id, tracks.xyxy, tracks.confidence, tracks.class_id)
            outputs.write(KineTrackFrameResult(frame.image, frame.index, frame.time, *_SIDE, *seen))
            watch.add(tracks.track_id)
    created = tracker.state_dict()["next_id"] - 1
    return {"part": "synthetic", **watch.summary(created)}


PARTS = {"example": soak_example, "synthetic": soak_synthetic}


def main(arguments: list[str] | None = None) -> int:
    """Runs the soak, prints what it finds and writes it to a file; the exit code is 1 if anything grew."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("--part", choices=PARTS, action="append", help="one of the runs; all without")
    parser.add_argument("--frames", type=int, help="of a run, instead of 100000 and 1000000")
    parser.add_argument("--output", type=Path, default=Path("kinetrack-soak"), help="folder for soak.json")
    parser.add_argument("--threads", type=int, help="processor threads of PyTorch")
    options = parser.parse_args(arguments)
    prepare_console()
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    results = []
    for part in options.part or PARTS:
        started = datetime.now(UTC)
        with tempfile.TemporaryDirectory(prefix="kinetrack-soak-") as folder:
            found = PARTS[part](options.frames or FRAMES[part], Path(folder), lambda line: print(line, flush=True))
        machine = {"processors": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()}
        results.append(found | {"started": started.isoformat(timespec="seconds"), "machine": machine})
        write_json_atomically(options.output / "soak.json", {"runs": results})
        print(format_summary(found), flush=True)
    return 0 if all(found["passed"] for found in results) else 1


def format_summary(found: dict) -> str:
    """A run in a few lines."""
    memory, spent = found["memory_mib_by_tenth"], found["cpu_ms_a_frame_by_tenth"]
    rows = [
        f"{found['part']}: {found['frames']} of {found['frames_wanted']} frames in {found['wall_seconds']:.0f} s: "
        + ("passed" if found["passed"] else "FAILED: " + ", ".join(k for k, ok in found["checks"].items() if not ok)),
        f"  memory, MiB by tenth: {' '.join(f'{value:.0f}' for value in memory)}; "
        f"last / second {found['memory_last_over_second_tenth']:.3f} (at most {MEMORY_LIMIT})",
        f"  processor ms a frame by tenth: {' '.join(f'{value:.2f}' for value in spent)}; "
        f"last / second {found['cpu_last_over_second_tenth']:.3f} (at most {TIME_LIMIT})",
        f"  open files {found['open_files_first_and_last']}, threads {found['threads_first_and_last']}, "
        f"identities {found['identities']}",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
