"""Steps of one or several streams.

Frames of several streams go through the model in as few batches as can be; frames of one go through it while the frames
before are still being worked on.
"""

import functools
import time as clock
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class FrameInput:
    """A frame as the model takes it.

    Attributes:
        pixels: (1, 1, 3, H, W).
        pixel_mask: (1, H, W) bool, pixels that show the frame; always the same tensor until the session begins again.
        seconds: spent on it.
        begun: what the model makes of it alone and the seconds that took, when that is computed ahead.
    """

    pixels: torch.Tensor
    pixel_mask: torch.Tensor
    seconds: float = 0.0
    begun: Future | None = None


@dataclass
class PendingFrame:
    """A frame of a stream that is ready for the model.

    Attributes:
        result: what is known of it so far.
        ticks: whether the temporal part moves on with it.
        input: None when there is nothing to compute.
        state: the stream's `KineTrackState`, a batch of one.
        spent: seconds by stage.
    """

    result: Any
    ticks: bool
    input: FrameInput | None = None
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
        if frame.input is None:
            results[index] = _end(sessions[index], frame, None)
        else:
            key = (id(sessions[index].model), *frame.input.pixels.shape)
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
    uses it. Where the model can `begin` several frames side by side, that many are begun in threads of their own before
    it is their turn. Whatever the caller does to the session in between holds for the next frame, as if nothing had
    been done ahead: what it makes worthless is made again.

    Args:
        session: `KineTrackSession`.
        frames: `VideoFrame`s. As many more than there are results so far are taken as the model can begin, or one.

    Yields:
        A `KineTrackFrameResult` a frame.

    Raises:
        What `frames` and `KineTrackSession.step` raise, after the results of all frames before.
    """
    # Between ticks there may be nothing to compute, which is not known before it is a frame's turn.
    most = getattr(session.model, "side_by_side", 1) if session.with_tracking else 1
    with ThreadPoolExecutor(1 + most, "kinetrack-model") as threads:
        coming, step = _Coming(session, iter(frames), threads, most), None
        while True:
            coming.take()
            following = None
            if step is not None:
                step.advance()
                following = coming.following_step()
                yield step.finish()
            # The first frame, or one that needed the frame before to be done.
            step = coming.first_step() if following is None else following
            if step is None:
                return


class _Coming:
    """The next frames of a stream, and what is computed of them before it is their turn.

    Args:
        session: `KineTrackSession`.
        frames: `VideoFrame`s.
        threads: where the model runs.
        most: how many frames may wait; if more than one, the model begins them while they do.
    """

    def __init__(self, session, frames: Iterator, threads: ThreadPoolExecutor, most: int):
        self._session, self._frames, self._threads, self._most = session, frames, threads, most
        self._waiting: deque[tuple[Any, FrameInput | None]] = deque()  # frames and, of those that follow, model inputs
        self._error = None

    def take(self) -> None:
        """Takes frames, as many as may wait, until one does not follow the one before."""
        while self._frames is not None and len(self._waiting) < self._most:
            if self._waiting and self._waiting[-1][1] is None:
                return
            made = None
            try:
                if (frame := next(self._frames, None)) is not None and self._session.follows(frame):
                    made = self._session.input_of(frame)
            except Exception as reason:  # is raised when the frames before are done
                frame, self._error = None, reason
            if frame is None:
                self._frames = None
                return
            if made is not None:
                self._begin(made)
            self._waiting.append((frame, made))

    def following_step(self) -> "_Step | None":
        """The next frame's step while the one before is still to be finished; None if it does not follow that."""
        if not self._waiting or not self._session.follows(self._waiting[0][0]):
            return None
        try:
            return self._step()
        except ValueError as reason:  # is raised when the frame before is done
            self._waiting.clear()
            self._frames, self._error = None, reason

    def first_step(self) -> "_Step | None":
        """The step of a frame before which all are done; None at the end.

        Raises:
            What kept the frame from being taken or used.
        """
        if self._waiting:
            self._session.start_at(self._waiting[0][0])
            return self._step()
        if self._error is not None:
            raise self._error

    def _step(self):
        return _Step(self._session, self._threads, self._begin, *self._waiting.popleft())

    def _begin(self, made: FrameInput) -> None:
        if self._most > 1 and made.begun is None:
            made.begun = self._threads.submit(_begin, self._session.model, made)


class _Step:
    """A frame of a stream for which the model runs in another thread, from the moment that this is made.

    Args:
        session: `KineTrackSession`.
        threads: where the model runs.
        begin: called with a `FrameInput`, has its `begun` computed if the model can.
        frame: `VideoFrame`.
        made: from `KineTrackSession.input_of`.

    Raises:
        ValueError: as `KineTrackSession.step`.
    """

    def __init__(self, session, threads: ThreadPoolExecutor, begin: Callable, frame, made: FrameInput | None):
        self._session, self._threads, self._begin, self._frame = session, threads, begin, frame
        self._start(made)

    def _start(self, made=None):
        frame = self._frame
        self.pending = self._session.prepare(frame.image, frame.time, frame.index, made)
        self._future = None
        if self.pending.input is not None:
            self._begin(self.pending.input)
            self._future = self._threads.submit(_look, self._session.model, [self.pending])

    def _wait(self):
        return None if self._future is None else self._future.result()[0]

    def advance(self) -> None:
        """Waits for the model and moves the session's time on."""
        self._output = self._wait()
        if not self._session.expects(self.pending):
            self._start()
            self._output = self._wait()
        self._session.advance(self.pending, self._output)

    def finish(self):
        """The frame's `KineTrackFrameResult`."""
        result = self._session.finish(self.pending, self._output)
        result.timings["decode"] = self._frame.decode_seconds
        return result


@torch.inference_mode()  # which holds for one thread
def _begin(model, made: FrameInput) -> tuple[Any, float]:
    """What a model makes of a frame alone, and the seconds that took."""
    started = clock.perf_counter()
    return model.begin(made.pixels, made.pixel_mask), clock.perf_counter() - started


@torch.inference_mode()
def _look(model, pending: list[PendingFrame]) -> list:
    """The model's output for each of some frames, computed as one batch."""
    inputs, spent = [frame.input for frame in pending], 0.0
    begun = {}
    if len(pending) == 1 and inputs[0].begun is not None:
        begun["begun"], spent = inputs[0].begun.result()
    started = clock.perf_counter()
    if len(pending) == 1:
        outputs = [model(inputs[0].pixels, pixel_mask=inputs[0].pixel_mask, state=pending[0].state, **begun)]
    else:
        output = model(
            torch.cat([made.pixels for made in inputs]),  # (B, 1, 3, H, W)
            pixel_mask=torch.cat([made.pixel_mask for made in inputs]),
            state=pending[0].state.join([frame.state for frame in pending]),
        )
        outputs = [_row(output, slice(index, index + 1)) for index in range(len(pending))]
    share = (clock.perf_counter() - started + spent) / len(pending)
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
