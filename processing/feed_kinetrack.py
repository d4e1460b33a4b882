"""Frames read ahead in a thread of their own, so that decoding overlaps with the model and a slow model delays nothing.

Which frames wait is the policy. `every`: all of them, and the reader pauses while enough are waiting (back-pressure).
`latest`: only the newest one, and older ones are dropped, so that what is seen is never older than one frame.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator

from ..processing.decoding_kinetrack import VideoFrame
from ..processing.live_kinetrack import ReadFrame, Reconnect, StreamEvent, StreamPosition, StreamReader
from ..processing.sources_kinetrack import StreamSource

POLICIES = ("latest", "every")
# Frames that may wait under `every`: one to be looked at next, and one to hide how uneven decoding is.
_READ_AHEAD = 2
# Seconds that closing waits for a reader which is in the middle of a read; it ends by itself soon after.
_CLOSING = 2.0


class FrameFeed:
    """The frames of one source, read ahead.

    Args:
        source: what to read.
        policy: `"latest"`, `"every"`, or None: `latest` for live sources, `every` for others. Under `latest` a source
            that is not live is played at its own speed, as a camera would.
        frame_rate: Hz of the frames wanted; all when None.
        reconnect: for live sources.
        position: where an earlier feed stopped.
        arrived: notified when there is news; several feeds may share one.

    Raises:
        ValueError: a policy that does not exist.
    """

    def __init__(
        self,
        source: StreamSource,
        policy: str | None = None,
        *,
        frame_rate: float | None = None,
        reconnect: Reconnect | None = None,
        position: StreamPosition | None = None,
        arrived: threading.Condition | None = None,
    ):
        if policy not in (None, *POLICIES):
            raise ValueError(f"`policy` must be one of {POLICIES}, got {policy!r}.")
        self.source, self.policy = source, policy
        self.dropped = 0  # frames that nobody looked at because a newer one had come
        self.is_connected = False
        self.error: BaseException | None = None
        self._arrived = arrived or threading.Condition()
        self._waiting: deque[ReadFrame | VideoFrame] = deque()
        self._events: deque[StreamEvent] = deque(maxlen=1000)
        self._stop, self._done = threading.Event(), False
        self._reader = StreamReader(
            source,
            reconnect=reconnect,
            frame_rate=frame_rate,
            position=position,
            stop=self._stop,
            on_event=self._take_event,
        )
        self._thread = threading.Thread(target=self._read, name=f"kinetrack-{source.name}", daemon=True)
        self._thread.start()

    @property
    def frame_rate(self) -> float | None:
        """Hz that the source announces; None before it is open."""
        return self._reader.frame_rate

    @property
    def is_live(self) -> bool | None:
        """Whether the source is live; None before that is known."""
        return self._reader.is_live

    @property
    def ended(self) -> bool:
        """Whether nothing will come any more: no frame, no event, and no error that `take` has not raised yet."""
        with self._arrived:
            return self._done and not self._waiting and not self._events and self.error is None

    @property
    def has_news(self) -> bool:
        """Whether there is a frame, an event, or the end. To be asked while holding the condition `arrived`."""
        return self._done or bool(self._waiting) or bool(self._events)

    def take(self) -> VideoFrame | None:
        """The next frame if one is waiting.

        Raises:
            What kept the source from being read, once all frames before it have been taken.
        """
        with self._arrived:
            if not self._waiting:
                if self._done and self.error is not None:
                    error, self.error = self.error, None
                    raise error
                return None
            frame = self._waiting.popleft()
            self._arrived.notify_all()
        return frame if isinstance(frame, VideoFrame) else _developed(frame)

    def take_events(self) -> list[StreamEvent]:
        """What has happened since the last call."""
        with self._arrived:
            events = list(self._events)
            self._events.clear()
        return events

    def frames(self, on_event=None) -> Iterator[VideoFrame]:
        """Yields the frames until the source ends, and calls `on_event` with what happens between them.

        Raises:
            What kept the source from being read.
        """
        while True:
            with self._arrived:
                self._arrived.wait_for(lambda: self.has_news)
            for event in self.take_events():
                if on_event is not None:
                    on_event(event)
            frame = self.take()
            if frame is not None:
                yield frame
            elif self.ended:
                return

    def close(self) -> None:
        """Stops reading. What waits is thrown away."""
        self._stop.set()
        with self._arrived:
            self._waiting.clear()
            self._arrived.notify_all()
        self._thread.join(_CLOSING)

    def __enter__(self) -> "FrameFeed":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    # In the reader's thread

    def _read(self):
        frames, started = self._reader.frames(), None
        try:
            for frame in frames:
                if self.policy is None:
                    self.policy = "latest" if self._reader.is_live else "every"
                if self.policy == "every":
                    if not self._put(_developed(frame)):
                        break
                    continue
                if not self._reader.is_live:
                    started = time.monotonic() - frame.time if started is None else started
                    if self._stop.wait(max(0.0, started + frame.time - time.monotonic())):
                        break
                    frame.arrival = time.monotonic()
                self._replace(frame)
                if self._stop.is_set():
                    break
        except BaseException as error:  # whatever it is, it belongs to the thread that takes the frames
            self.error = error
        finally:
            frames.close()
            with self._arrived:
                self._done, self.is_connected = True, False
                self._arrived.notify_all()

    def _put(self, frame: VideoFrame) -> bool:
        """Adds a frame as soon as there is room; False when the feed was closed instead."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._waiting) < _READ_AHEAD or self._stop.is_set())
            if self._stop.is_set():
                return False
            self._waiting.append(frame)
            self._arrived.notify_all()
        return True

    def _replace(self, frame: ReadFrame):
        """Puts a frame in the place of one that nobody took."""
        with self._arrived:
            for old in self._waiting:
                self.dropped += 1
                frame.unseen += old.unseen  # a gap stays a gap when the first frame after it is dropped
            self._waiting.clear()
            self._waiting.append(frame)
            self._arrived.notify_all()

    def _take_event(self, event: StreamEvent):
        with self._arrived:
            if event.kind in ("connected", "reconnected", "disconnected"):
                self.is_connected = event.kind != "disconnected"
            self._events.append(event)
            self._arrived.notify_all()


def _developed(frame: ReadFrame) -> VideoFrame:
    """The picture of a frame that was only decoded so far."""
    started = time.perf_counter()
    image = frame.picture()
    return VideoFrame(
        image,
        frame.time,
        frame.index,
        unseen=frame.unseen,
        arrival=frame.arrival,
        decode_seconds=frame.decode_seconds + time.perf_counter() - started,
    )
