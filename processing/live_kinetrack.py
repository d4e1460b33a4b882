"""A source over all its connections: opened again when it breaks off, its frames on one clock throughout."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..processing.container_kinetrack import VideoDecodeError
from ..processing.decoding_kinetrack import FrameSampler
from ..processing.sources_kinetrack import StreamSource

# A clock that jumps ahead by more than this, while much less time goes by, has been set and not waited for.
_CLOCK_JUMP = 10.0


@dataclass(frozen=True)
class Reconnect:
    """How a live source that broke off is opened again: after waits that double up to a bound.

    Attributes:
        first: seconds before the first try.
        longest: seconds between two tries at most.
        give_up_after: seconds without the source after which it is an error; None: never.
        from_start: whether a source that cannot be opened at all is waited for too, rather than an error.
    """

    first: float = 0.5
    longest: float = 30.0
    give_up_after: float | None = None
    from_start: bool = False

    def __post_init__(self):
        if not 0 < self.first <= self.longest:
            raise ValueError(f"Waits must be positive and rising, got {self.first} and {self.longest} seconds.")

    def wait(self, tries: int) -> float:
        """Seconds to wait after so many tries in a row that failed."""
        return min(self.longest, self.first * 2.0 ** min(tries, 60))


@dataclass(frozen=True)
class StreamEvent:
    """Something that happened to a source.

    Attributes:
        kind: `"connected"`, `"disconnected"`, `"reconnected"`, `"damaged"`, `"resized"`, `"rate"`, `"clock"`, or
            `"failed"` when the files of a stream can no longer be written.
        message: one sentence.
        time: seconds on the stream's clock.
    """

    kind: str
    message: str
    time: float


@dataclass
class ReadFrame:
    """A decoded frame that has not become a picture yet.

    Attributes:
        picture: makes (H, W, 3) uint8 RGB of it.
        time: seconds on the stream's clock.
        index: number in the stream, from 0.
        unseen: seconds just before it in which the source was away.
        arrival: when it was decoded, on the clock of `time.monotonic`.
        decode_seconds: what decoding it took, waiting for its data included.
    """

    picture: Callable[[], np.ndarray]
    time: float
    index: int
    unseen: float
    arrival: float
    decode_seconds: float


@dataclass(frozen=True)
class StreamPosition:
    """Where a stream was left.

    Attributes:
        time: seconds of its last frame on the stream's clock.
        index: number of its next frame.
        away: seconds since then.
    """

    time: float
    index: int
    away: float = 0.0


class StreamReader:
    """Reads one source for as long as it lasts.

    Times are those of the container. After a break they go on from the last frame by the time that passed meanwhile, so
    that a gap in the pictures is a gap in time; a clock that was set, forwards or backwards, is not.

    Args:
        source: what to read.
        reconnect: for live sources.
        frame_rate: Hz of the frames wanted; all when None.
        position: where an earlier reader stopped. A file goes on from there; a live source where it is now, at a later
            time.
        stop: ends the waiting between two tries.
        on_event: called with every `StreamEvent`.
    """

    def __init__(
        self,
        source: StreamSource,
        *,
        reconnect: Reconnect | None = None,
        frame_rate: float | None = None,
        position: StreamPosition | None = None,
        stop: threading.Event | None = None,
        on_event: Callable[[StreamEvent], None] | None = None,
    ):
        self.source, self.reconnect = source, reconnect or Reconnect()
        self.is_live = source.is_live
        self.frame_rate: float | None = None  # Hz that the container announces
        self._sampler = FrameSampler(frame_rate)
        self._stop = stop or threading.Event()
        self._on_event = on_event or (lambda event: None)
        self._position, self._skip_to = position, None
        self._last: float | None = None  # seconds of the last frame
        self._index = 0  # number of the next frame
        self._seen = time.monotonic()  # when the last frame came
        self._size = None

    def frames(self) -> Iterator[ReadFrame]:
        """Yields the frames until the source ends, is given up, or `stop` is set.

        Raises:
            FileNotFoundError, VideoDecodeError: it cannot be opened, or was given up; the message says which and why.
        """
        for number, target in enumerate(self.source.targets):
            yield from self._until_end(target, follows=number > 0)

    def _until_end(self, target, follows: bool) -> Iterator[ReadFrame]:
        tries, connections, lost = 0, 0, time.monotonic()
        while not self._stop.is_set():
            opened_at, received = time.monotonic(), False
            try:
                with self.source.open(target) as opened:
                    for frame in self._connection(opened, connections > 0, follows):
                        if not received:
                            received, connections = True, connections + 1
                        yield frame
                        if self._stop.is_set():
                            return
                    reason = opened.failure
                    if not self.is_live and (reason is None or self.source.kind != "network"):
                        return
                    reason = reason or "it ended"
            except (VideoDecodeError, OSError) as error:
                if connections == 0 and not (self.reconnect.from_start and self.source.kind in ("network", "camera")):
                    raise
                reason = str(error)
            if received:
                lost = time.monotonic()
                # A connection that lasts no longer than the wait before it is no success.
                tries = 0 if lost - opened_at > self.reconnect.wait(tries) else tries
            away, limit = time.monotonic() - lost, self.reconnect.give_up_after
            if limit is not None and away >= limit:
                raise VideoDecodeError(f"{self.source.name} was away for {away:.0f} s and is given up: {reason}.")
            wait = self.reconnect.wait(tries)
            tries += 1
            self._tell("disconnected", f"{reason.rstrip('.')}; next try in {wait:.1f} s")
            self._stop.wait(wait)

    def _connection(self, opened, again: bool, follows: bool) -> Iterator[ReadFrame]:
        """The frames of one connection, from its opening to its end."""
        opened.report = lambda what: self._tell("damaged", what)
        if self.is_live is None:
            self.is_live = opened.is_live
        step, offset, skip_to = 1 / opened.frame_rate, None, self._resume(opened, again)
        self._announce_rate(opened.frame_rate, again)
        started = time.perf_counter()
        for frame, own_time in opened.decode():
            now, unseen = time.monotonic(), 0.0
            if offset is None:
                offset, unseen = self._join(own_time, now, step, follows)
                self._tell("reconnected" if again else "connected", self._connected_message(opened, again, unseen))
            elif self.is_live:
                offset = self._steady(own_time, offset, now, step)
            moment = own_time + offset
            index, self._index = self._index, self._index + 1
            self._last, self._seen = moment, now
            if skip_to is not None and moment <= skip_to + 1e-6:
                self._index -= self._is_one
                started = time.perf_counter()
                continue
            self._announce_size(frame)
            if self._sampler.takes(moment) or unseen:
                spent = time.perf_counter() - started
                yield ReadFrame(opened.picture(frame), moment, index, unseen, now, spent)
            started = time.perf_counter()

    @property
    def _is_one(self) -> bool:
        """Whether the source is one file, in which any time can be found; else it is read from its beginning."""
        return len(self.source.targets) == 1

    def _resume(self, opened, again: bool) -> float | None:
        """Goes to where the source was left, if it can be read again; returns the time of the last frame known."""
        position, self._position = self._position, None
        if self.is_live or self.source.kind == "pipe":
            if position is not None:
                self._last, self._index = position.time, position.index
                self._seen = time.monotonic() - position.away
            return None
        if position is not None:
            self._skip_to = position.time
            self._index = position.index if self._is_one else 0
        elif again:
            self._skip_to = self._last
        if self._skip_to is not None and self._is_one:
            opened.seek(self._skip_to)
        return self._skip_to

    def _join(self, own_time: float, now: float, step: float, follows: bool) -> tuple[float, float]:
        """What to add to a new connection's times, and for how long nothing was seen before it."""
        if self._last is None:
            return 0.0, 0.0
        if self.is_live or self.source.kind == "pipe":
            gap = max(step, now - self._seen)
            return self._last + gap - own_time, gap - step
        return (self._last + step - own_time if follows else 0.0), 0.0

    def _steady(self, own_time: float, offset: float, now: float, step: float) -> float:
        """The offset as it is, or what takes back a jump of the sender's clock."""
        passed, jump = now - self._seen, own_time + offset - self._last
        if jump > _CLOCK_JUMP and passed < jump / 2:
            self._tell("clock", f"its clock was set ahead by {jump - passed:.0f} s; times go on as if it were not")
            return self._last + max(step, passed) - own_time
        return offset

    def _announce_rate(self, rate: float, again: bool):
        if again and self.frame_rate is not None and abs(rate - self.frame_rate) > 0.1 * self.frame_rate:
            self._tell("rate", f"now {rate:g} frames a second, before {self.frame_rate:g}")
        self.frame_rate = rate

    def _announce_size(self, frame):
        size = frame.shape[1::-1] if isinstance(frame, np.ndarray) else (frame.width, frame.height)
        if self._size is not None and size != self._size:
            before = "{}x{}".format(*self._size)
            self._tell("resized", f"now {size[0]}x{size[1]} pixels (width x height), before {before}")
        self._size = size

    def _connected_message(self, opened, again: bool, unseen: float) -> str:
        if again:
            return f"back after {unseen:.1f} s"
        return f"{'live, ' if self.is_live else ''}{opened.frame_rate:g} frames a second"

    def _tell(self, kind: str, message: str):
        self._on_event(StreamEvent(kind, message, self._last or 0.0))
