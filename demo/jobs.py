"""One analysis as a stream of progress: a thread works, whoever iterates hears how far it is and can stop it."""

import queue
import threading
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..processing.analyze import analyze
from ..processing.results import VideoAnalysis
from .evidence import Evidence
from .limits import Refused, spoken_duration

_REPORT_SECONDS = 0.25


class Cancelled(Exception):
    """The visitor stopped the analysis."""


@dataclass(frozen=True)
class Choices:
    """What a visitor can choose.

    Attributes:
        model: name of a model of the demo.
        task: `"both"`, `"tracking"` or `"actions"`.
        fps: frames a second to look at, all when None.
        threshold: detection score, the model's own when None.
        size: (height, width) of the model input, fitted to the video when None.
    """

    model: str
    task: str = "both"
    fps: float | None = None
    threshold: float | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Progress:
    """How far an analysis is.

    Attributes:
        done: frames.
        total: frames to be done, or None.
        seconds: since it began.
    """

    done: int
    total: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Frames a second so far."""
        return self.done / max(self.seconds, 1e-6)

    @property
    def seconds_left(self) -> float | None:
        """An estimate; None while there is nothing to go by."""
        if not self.total or self.done < 3:
            return None
        return max(0, self.total - self.done) / self.rate


@dataclass(frozen=True)
class Finished:
    """The end of an analysis.

    Attributes:
        analysis: the result.
        evidence: what the page shows beyond it.
        choices: as they were given.
    """

    analysis: VideoAnalysis
    evidence: Evidence
    choices: Choices


def run_job(
    video: Path,
    network: tuple,
    choices: Choices,
    folder: Path | None,
    cancelled: threading.Event,
    max_seconds: float,
) -> Iterator[Progress | Finished]:
    """Analyses a video in a thread of its own.

    Args:
        video: the file.
        network: `(model, processor)`.
        choices: see there.
        folder: where the files go, into `folder/<name of the video>/`; None writes none.
        cancelled: stops the thread within one frame when it is set; so does dropping the iterator.
        max_seconds: most computing time.

    Yields:
        `Progress` every quarter of a second, at last one `Finished`.

    Raises:
        Cancelled: `cancelled` was set.
        Refused: it took longer than `max_seconds`.
        OSError, ValueError: see `analyze`.
    """
    dropped, news, started = threading.Event(), queue.SimpleQueue(), clock.perf_counter()
    evidence = Evidence()

    def report(done: int, total: int | None) -> None:
        seconds = clock.perf_counter() - started
        if cancelled.is_set() or dropped.is_set():
            raise Cancelled
        if seconds > max_seconds:
            raise Refused(
                f"This took longer than {spoken_duration(max_seconds)}, the limit here, and was stopped. Choose fewer "
                "frames a second or a shorter video."
            )
        news.put(Progress(done, total, seconds))

    def work() -> None:
        try:
            analysis = analyze(
                video,
                model=network,
                task=choices.task,
                fps=choices.fps,
                threshold=choices.threshold,
                size=choices.size,
                output=folder,
                progress=report,
                on_result=evidence.add,
                on_event=evidence.hear,
            )
            news.put(Finished(analysis, evidence, choices))
        except BaseException as error:  # handed to whoever iterates
            news.put(error)

    thread = threading.Thread(target=work, name="kinetrack-analysis", daemon=True)
    thread.start()
    try:
        yield from _newest(news)
    finally:
        dropped.set()
        thread.join()


def _newest(news: queue.SimpleQueue) -> Iterator[Progress | Finished]:
    """The last report of every quarter of a second, until the work has ended."""
    while True:
        item = news.get()
        next_report = clock.perf_counter() + _REPORT_SECONDS
        while isinstance(item, Progress):
            try:
                item = news.get(timeout=max(0.0, next_report - clock.perf_counter()))
            except queue.Empty:
                break
        if isinstance(item, BaseException):
            raise item
        yield item
        if isinstance(item, Finished):
            return
