"""How the benchmarks time things: in turns, so that a busy or throttled machine is the same for all."""

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from .process_memory import release_free_memory

T = TypeVar("T")


@dataclass
class Timing:
    """Milliseconds of many runs of one thing.

    Attributes:
        p50: median of the elapsed time.
        p95: 95th percentile of it.
        cpu: median of the processor time of all threads; on a busy machine it says more than the elapsed time.
        runs: how many.
    """

    p50: float
    p95: float
    cpu: float
    runs: int

    @classmethod
    def of(cls, seconds: list[tuple[float, float]]) -> "Timing":
        """From elapsed and processor seconds of every run."""
        elapsed, cpu = 1000 * np.array(seconds).T
        return cls(float(np.median(elapsed)), float(np.percentile(elapsed, 95)), float(np.median(cpu)), len(seconds))

    def as_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


def synchronise(device: str) -> None:
    """Waits until a device has done what it was given."""
    if device != "cpu":
        torch.accelerator.synchronize()


def time_in_turns(
    things: dict[str, Callable[[], object]], seconds: float = 5.0, device: str = "cpu", most: int = 200, least: int = 3
) -> dict[str, Timing]:
    """Times several things on the same input, one run of each in turn, the order reversed from turn to turn.

    Args:
        things: by name, what to run.
        seconds: to spend on all of them together, after one run of each that is not counted.
        device: a PyTorch device.
        most: turns.
        least: turns, even if they take longer than `seconds`.

    Returns:
        The times by name.
    """
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in things}
    for run in things.values():
        run()
    deadline, turn = time.perf_counter() + seconds, 0
    while turn < least or (turn < most and time.perf_counter() < deadline):
        for name in list(things) if turn % 2 else reversed(list(things)):
            synchronise(device)
            start, cpu = time.perf_counter(), time.process_time()
            things[name]()
            synchronise(device)
            spent[name].append((time.perf_counter() - start, time.process_time() - cpu))
        turn += 1
    return {name: Timing.of(values) for name, values in spent.items()}


def in_steps(what: str, steps: dict[str, Callable[[], T]]) -> list[T]:
    """Runs measurements one after the other under a progress bar, and gives what they return.

    Args:
        what: is measured.
        steps: by what they are called in the bar.
    """
    found = []
    with tqdm(total=len(steps), desc=what, unit="step", disable=None, leave=False) as bar:
        for name, step in steps.items():
            bar.set_postfix_str(name)
            found.append(step())
            bar.update()
    return found


def peak_memory(run: Callable[[], object], device: str = "cpu") -> float | None:
    """MiB above what was there before that one run takes; None where it cannot be known."""
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        synchronise(device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/statm").exists():
        return None
    release_free_memory()  # or the run would take from what is resident already
    with _ResidentPeak() as peak:
        run()
    return peak.above / 2**20


class _ResidentPeak:
    """Looks at the resident memory of this process every millisecond."""

    def __enter__(self) -> "_ResidentPeak":
        self._page = __import__("resource").getpagesize()
        self._start = self._highest = self._resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._done.set()
        self._thread.join()

    @property
    def above(self) -> int:
        """Bytes between the start and the highest point."""
        return self._highest - self._start

    def _watch(self) -> None:
        while not self._done.wait(0.001):
            self._highest = max(self._highest, self._resident())

    def _resident(self) -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * self._page


def count_flops(run: Callable[[], object]) -> float:
    """GFLOPs of one run, a multiplication and an addition counted as two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e9
