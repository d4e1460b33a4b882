"""Steps of one or several streams.

Frames of several streams go through the model in as few batches as can be; frames of one go through it while the frame
before is still being worked on.
"""

import functools
import time as clock
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class PendingFrame:
    """A frame of a stream that is ready for the model.

    Attributes:
        result: what is known of it so far.
        ticks: whether the temporal part moves on with it.
        pixels: (1, 1, 3, H, W) model input; None when there is nothing to compute.
        pixel_mask: (1, H, W) bool, pixels that show the frame.
        state: the stream's `KineTrackState`, a batch of one.
        spent: seconds by stage.
    """

    result: Any
    ticks: bool
    pixels: torch.Tensor | None = None
    pixel_mask: torch.Tensor | None = None
    state: Any = None
    spent: dict[str, float] = field(default_factory=dict)


def beside_the_model(method: Callable) -> Callable:
    """A session's method that uses one PyTorch thread where another runtime runs the model.

    Threads that PyTorch keeps spinning between two small operations would take the cores from that runtime.
    """

    @functools.wraps(method)
    def run(session, *args, **kwargs):
        if not getattr(session.model, "runs_beside", False):
            return method(session, *args, **kwargs)
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return method(session, *args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return run


@torch.inference_mode()
def step_sessions(sessions: Sequence, frames: Sequence, times: Sequence[float | None] | None = None) -> list:
    """Looks at one frame of each of several streams; those with model inputs of one size are one batch.

    Frames of a batch do not mix, so every stream gets what it would get alone (to the rounding of its sums).

    Args:
        sessions: `KineTrackSession`s of one model, all different.
        frames: a frame for each, as `KineTrackSession.step` takes it.
        times: seconds for each; as `KineTrackSession.step` when None.

    Returns:
        A `KineTrackFrameResult` for each.

    Raises:
        ValueError: as `KineTrackSession.step`, of the first frame that cannot be used; no session has changed then.
    """
    times = [None] * len(sessions) if times is None else times
    pending = [session.prepare(*given) for session, *given in zip(sessions, frames, times, strict=True)]
    results, batches = [None] * len(sessions), {}
    for index, frame in enumerate(pending):
        if frame.pixels is None:
            results[index] = _end(sessions[index], frame, None)
        else:
            key = (id(sessions[index].model), *frame.pixels.shape)
            batches.setdefault(key, []).append(index)
    for rows in batches.values():
        outputs = _look(sessions[rows[0]].model, [pending[index] for index in rows])
        for index, output in zip(rows, outputs, strict=True):
            results[index] = _end(sessions[index], pending[index], output)
    return results


def _end(session, pending: PendingFrame, output):
    session.advance(pending, output)
    return session.finish(pending, output)


def look_together(sessions: Sequence, frames: Sequence) -> list:
    """`step_sessions` for `VideoFrame`s of sources, with their numbers and the gaps before them."""
    for session, frame in zip(sessions, frames, strict=True):
        session.start_at(frame)
    results = step_sessions(sessions, [frame.image for frame in frames], [frame.time for frame in frames])
    for frame, result in zip(frames, results, strict=True):
        result.timings["decode"] = frame.decode_seconds
    return results


@torch.inference_mode()
def look_ahead(session, frames: Iterator) -> Iterator:
    """Results of one stream's frames, each as `KineTrackSession.look` gives it, in less time on more than one core.

    The model looks at the next frame in a thread of its own while this one's result is worked out and while the caller
    uses it. Whatever the caller does to the session in between holds for the next frame, as if nothing had been done
    ahead: a step that it makes worthless is made again.

    Args:
        session: `KineTrackSession`.
        frames: `VideoFrame`s. One more than there are results so far is taken.

    Yields:
        A `KineTrackFrameResult` a frame.

    Raises:
        What `frames` and `KineTrackSession.step` raise, after the results of all frames before.
    """
    frames, step = iter(frames), None
    with ThreadPoolExecutor(1, "kinetrack-model") as thread:
        while True:
            frame = pixels = following = error = None
            follows, spent = False, 0.0
            try:
                if (frame := next(frames, None)) is not None and (follows := session.follows(frame)):
                    started = clock.perf_counter()
                    pixels = session.pixels_of(frame)
                    spent = clock.perf_counter() - started
            except Exception as reason:  # is raised when the frame before is done
                frame, error = None, reason
            if step is not None:
                step.advance()
                try:
                    if frame is not None and follows:
                        following = _Step(session, thread, frame, pixels)
                        following.pending.spent["preprocess"] += spent
                except ValueError as reason:
                    frame, error = None, reason
                yield step.finish()
            if error is not None:
                raise error
            if frame is None:
                return
            if following is None:  # the first frame, or one that needed the frame before to be done
                session.start_at(frame)
                following = _Step(session, thread, frame)
            step = following


class _Step:
    """A frame of a stream for which the model runs in another thread, from the moment that this is made.

    Args:
        session: `KineTrackSession`.
        thread: where the model runs.
        frame: `VideoFrame`.
        pixels: from `KineTrackSession.pixels_of`.

    Raises:
        ValueError: as `KineTrackSession.step`.
    """

    def __init__(self, session, thread: ThreadPoolExecutor, frame, pixels: torch.Tensor | None = None):
        self._session, self._thread, self._frame = session, thread, frame
        self._begin(pixels)

    def _begin(self, pixels=None):
        frame = self._frame
        self.pending = self._session.prepare(frame.image, frame.time, frame.index, pixels)
        looks = self.pending.pixels is not None
        self._future = self._thread.submit(_look, self._session.model, [self.pending]) if looks else None

    def _wait(self):
        return None if self._future is None else self._future.result()[0]

    def advance(self) -> None:
        """Waits for the model and moves the session's time on."""
        self._output = self._wait()
        if not self._session.expects(self.pending):
            self._begin()
            self._output = self._wait()
        self._session.advance(self.pending, self._output)

    def finish(self):
        """The frame's `KineTrackFrameResult`."""
        result = self._session.finish(self.pending, self._output)
        result.timings["decode"] = self._frame.decode_seconds
        return result


@torch.inference_mode()  # which holds for one thread
def _look(model, pending: list[PendingFrame]) -> list:
    """The model's output for each of some frames, computed as one batch."""
    started = clock.perf_counter()
    if len(pending) == 1:
        frame = pending[0]
        outputs = [model(frame.pixels, pixel_mask=frame.pixel_mask, state=frame.state)]
    else:
        output = model(
            torch.cat([frame.pixels for frame in pending]),  # (B, 1, 3, H, W)
            pixel_mask=torch.cat([frame.pixel_mask for frame in pending]),
            state=pending[0].state.join([frame.state for frame in pending]),
        )
        outputs = [_row(output, slice(index, index + 1)) for index in range(len(pending))]
    share = (clock.perf_counter() - started) / len(pending)
    for frame in pending:
        frame.spent["model"] = share
    return outputs


def _row(output, row: slice):
    """The part of a batch's output that belongs to one stream, still with a batch axis."""

    def part(value):
        if isinstance(value, torch.Tensor):
            return value[row]
        if hasattr(value, "rows"):
            return value.rows(row)
        return {name: part(item) for name, item in value.items()} if isinstance(value, dict) else value

    return type(output)(**{name: part(value) for name, value in vars(output).items()})
