"""`stream`: one or several sources, live or not, to results and files, for as long as they last."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from .decoding_kinetrack import VideoFrame
from .describing_kinetrack import describe_model
from .feed_kinetrack import FrameFeed
from .live_kinetrack import Reconnect, StreamEvent, StreamPosition
from .loading import DEFAULT_MODEL, load_model
from .session_kinetrack import KineTrackSession
from .session_state_kinetrack import check_place, read_states, write_states
from .sources_kinetrack import StreamSource, find_source
from .stepping_kinetrack import look_together
from .stream_files import take_up
from .stream_sinks import FRAMES, TRACKS, JsonLinesSink, MotSink, SegmentSink

logger = logging.getLogger(__name__)

OUTPUTS = ("jsonl", "mot", "video")
# Seconds between two looks at the clock while no frame comes, and between two calls of `on_progress`.
_PATIENCE, _PROGRESS = 0.2, 0.5


@dataclass
class StreamStatus:
    """How a stream is doing.

    Attributes:
        name: of the source.
        state: `"connecting"`, `"running"`, `"away"`, `"ended"` or `"failed"`.
        frames: looked at.
        dropped: not looked at, because a newer one had come.
        frames_per_second: looked at, lately.
        latency: seconds from the decoded frame to its result, lately.
        tracks: in the newest frame.
        time: seconds of the newest frame on the stream's clock.
        breaks: how often the source broke off.
        folder: of its files, or None.
        error: what ended it, or None.
    """

    name: str
    state: str = "connecting"
    frames: int = 0
    dropped: int = 0
    frames_per_second: float = 0.0
    latency: float = 0.0
    tracks: int = 0
    time: float = 0.0
    breaks: int = 0
    folder: Path | None = None
    error: Exception | None = None


@dataclass
class OutputSettings:
    """Which files a stream writes.

    Attributes:
        folder: each source has a folder of its own in it; None: no files.
        kinds: some of `OUTPUTS`.
        segment_seconds: length of a segment of annotated video.
        keep_segments: how many of the newest segments stay on the disk; None: all.
        append: goes on in the files of an earlier run, instead of replacing them.
        lines: an open text file that gets the JSON lines of all streams as they come; the caller closes it.
    """

    folder: str | os.PathLike | None = None
    kinds: Iterable[str] = ("jsonl", "mot")
    segment_seconds: float = 60.0
    keep_segments: int | None = None
    append: bool = False
    lines: TextIO | None = None

    def __post_init__(self):
        unknown = set(self.kinds) - set(OUTPUTS)
        if unknown:
            raise ValueError(f"There is no output {sorted(unknown)[0]!r}; choose from {', '.join(OUTPUTS)}.")
        if not self.segment_seconds > 0 or (self.keep_segments is not None and self.keep_segments < 1):
            raise ValueError("A segment has more than 0 seconds, and at least 1 segment is kept.")


def stream(
    sources,
    model=DEFAULT_MODEL,
    *,
    output: OutputSettings | str | os.PathLike | None = None,
    on_result: Callable[[str, Any], None] | None = None,
    on_event: Callable[[str, StreamEvent], None] | None = None,
    on_progress: Callable[[list[StreamStatus]], None] | None = None,
    policy: str | None = None,
    fps: float | None = None,
    reconnect: Reconnect | None = None,
    state: str | os.PathLike | None = None,
    save_every: float = 60.0,
    max_frames: int | None = None,
    stop: threading.Event | None = None,
    device: str | None = None,
    backend: str = "auto",
    **session_options,
) -> list[StreamStatus]:
    """Looks at one or several sources until they end or `stop` is set; their frames go through the model in one batch.

    OpenVINO and `torch.compile` take the frames of a batch one after the other, which costs them nothing.

    Args:
        sources: what `find_source` takes, a `StreamSource`, or a list of these.
        model: name of an installed model, folder or Hub id; or a pair `(model, processor)` from `load_model`.
        output: where files go, as `OutputSettings` or only a folder; None writes none.
        on_result: called with the name of the stream and the `KineTrackFrameResult` of every frame.
        on_event: called with the name of the stream and every `StreamEvent`.
        on_progress: called about twice a second with the `StreamStatus` of every stream.
        policy: `"latest"` drops frames rather than fall behind, `"every"` looks at all; None: `latest` for live
            sources, `every` for others.
        fps: frames a second to look at, evenly chosen; all when None. Of images it is their rate.
        reconnect: how live sources that break off are opened again.
        state: file to go on from if it is there, and to save to: at the end, whatever ends the run, and now and then.
            Identities and what the model remembers survive a restart. A file goes on where it was left; a live source
            where it is now. Streams that the state knows go on in their files, others replace them. After a crash a
            file's frames since the last save come again: their lines are removed first, but segments of annotated video
            cannot be cut, so a new one shows them once more.
        save_every: seconds between two saves.
        max_frames: ends each stream after so many frames.
        stop: ends the run when it is set, at the next frame or within a fraction of a second.
        device: PyTorch device for `load_model`.
        backend: as for `load_model`.
        session_options: for `KineTrackSession`: `task`, `threshold`, `size`, `tracker`, `allow_untrained`.

    Returns:
        How each stream ended. The `error` of a stream that failed, because of its source or of its files, while others
        went on is in it.

    Raises:
        FileNotFoundError, ValueError: a source or model that cannot be used; with several sources, only if none can.
        OSError: the files cannot be written; on the way, only if those of no stream can.

    Example:
        >>> import kinetrack
        >>> kinetrack.stream("rtsp://camera/door", output="results")  # doctest: +SKIP
    """
    if fps is not None and not fps > 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    found = [_as_source(item, fps) for item in (sources if isinstance(sources, (list, tuple)) else [sources])]
    if not found:
        raise ValueError("There is no source. Give an address, a file, a folder, a camera's number or a list of these.")
    named = not isinstance(model, tuple)
    untrained = session_options.get("allow_untrained", False)
    network = load_model(model, device, allow_untrained=untrained, backend=backend) if named else model
    description = describe_model(
        str(model) if named else "kinetrack", network[0].config, session_options.get("task", "both")
    )
    output = output if isinstance(output, OutputSettings) else OutputSettings(output)
    if state is not None:
        check_place(state)
    saved, saved_at = read_states(state) if state is not None and Path(state).exists() else ({}, time.time())
    stop, arrived = stop or threading.Event(), threading.Condition()
    if any(source.is_live is not False for source in found) or policy == "latest":
        _warm_up(network, session_options)
    streams = []
    with contextlib.ExitStack() as stack:
        for name, source in zip(unique_names([source.name for source in found]), found, strict=True):
            session = KineTrackSession(*network, **session_options)
            kept = saved.get(name)
            if kept is not None and output.folder is not None:
                _take_up(kept, Path(output.folder) / name, source)
            position = _restore(session, kept, time.time() - saved_at)
            thinned = fps if source.kind != "images" else None
            feed = stack.enter_context(
                FrameFeed(source, policy, frame_rate=thinned, reconnect=reconnect, position=position, arrived=arrived)
            )
            files = replace(output, append=output.append or kept is not None)
            one = _Stream(name, feed, session, files, description, on_result, on_event)
            streams.append(stack.enter_context(one))
        saver = _Saver(state, saved, streams, save_every)
        stack.callback(saver.save)
        _run(streams, arrived, stop, max_frames, saver, on_progress)
    failed = [one.status for one in streams if one.status.error is not None]
    if failed and len(failed) == len(streams):
        raise failed[0].error
    return [one.status for one in streams]


def unique_names(names: list[str]) -> list[str]:
    """The names, with `-2`, `-3` … behind further ones that are alike.

    Example:
        >>> unique_names(["door", "yard", "door"])
        ['door', 'yard', 'door-2']
    """
    found = []
    for name in names:
        number, unique = 1, name
        while unique.casefold() in {other.casefold() for other in found}:
            number += 1
            unique = f"{name}-{number}"
        found.append(unique)
    return found


def _as_source(item, fps: float | None) -> StreamSource:
    return item if isinstance(item, StreamSource) else find_source(item, frame_rate=fps)


def _warm_up(network, options: dict) -> None:
    """Runs the model once on nothing: the first time takes many times as long, and a live source would not wait."""
    session = KineTrackSession(*network, **options)
    height, width = options.get("size") or (network[1].size["height"], network[1].size["width"])
    session.step(np.zeros((height, width, 3), np.uint8), 0.0)


def _take_up(state: dict, folder: Path, source: StreamSource) -> None:
    """Makes a state and its stream's files fit each other: a run that was killed has written more than it saved."""
    is_live = state.get("is_live") if source.is_live is None else source.is_live
    again = is_live is False and source.kind != "pipe"
    frame, track = take_up(folder, state["frame_index"], again)
    state["frame_index"] = frame
    state["tracker"]["next_id"] = max(track, int(state["tracker"]["next_id"]))


def _restore(session: KineTrackSession, state: dict | None, away: float) -> StreamPosition | None:
    """Loads a saved state into a session; returns where its source was left."""
    if state is None:
        return None
    session.load_state_dict(state)
    if state["time"] is None:
        return None
    return StreamPosition(state["time"], state["frame_index"], max(0.0, away))


def _run(streams, arrived, stop, max_frames, saver, on_progress) -> None:
    """Takes what is there, looks at it together, and waits for more."""
    told = 0.0
    active = list(streams)
    while active and not stop.is_set():
        feeds = [one.feed for one in active]
        with arrived:
            arrived.wait_for(lambda feeds=feeds: any(feed.has_news for feed in feeds), timeout=_PATIENCE)
        ready = [(one, frame) for one in active if (frame := one.take()) is not None]
        if ready:
            results = look_together([one.session for one, _ in ready], [frame for _, frame in ready])
            for (one, frame), result in zip(ready, results, strict=True):
                one.add(frame, result)
        for one in active:
            if one.feed.ended or (max_frames is not None and one.status.frames >= max_frames):
                one.end()
        active = [one for one in active if one.is_active]
        saver.save_if_due()
        if on_progress is not None and (time.monotonic() - told > _PROGRESS or not active):
            told = time.monotonic()
            on_progress([one.status for one in streams])


def _unwritable(folder: Path, error: OSError) -> OSError:
    """What to tell of files that cannot be written."""
    return OSError(
        f"The results cannot be written to {folder}: {error.strerror or error}. Choose another folder with --output."
    )


@dataclass
class _Rate:
    """A mean over the last few seconds."""

    value: float = 0.0
    last: float | None = None

    def step(self, now: float) -> float:
        """Counts one more; returns how many come a second."""
        if self.last is not None:
            passed = max(1e-6, now - self.last)
            share = min(1.0, passed / 2.0)
            self.value += share * (1 / passed - self.value) if self.value else 1 / passed
        self.last = now
        return self.value


@dataclass
class _Stream:
    """One source of a run: where its frames come from, who looks at them, and where results go."""

    name: str
    feed: FrameFeed
    session: KineTrackSession
    output: OutputSettings
    description: dict
    on_result: Callable | None
    on_event: Callable | None
    is_active: bool = True
    _sinks: list = field(default_factory=list)
    _rate: _Rate = field(default_factory=_Rate)

    def __post_init__(self):
        self.status = StreamStatus(self.name)
        if self.output.lines is not None:
            self._sinks.append(JsonLinesSink(self.output.lines, self.name, self.description))
        if self.output.folder is not None:
            folder = Path(self.output.folder) / self.name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._open_sinks(folder)
            except OSError as error:
                raise _unwritable(folder, error) from error
            self.status.folder = folder

    def _open_sinks(self, folder: Path):
        settings = self.output
        if "jsonl" in settings.kinds:
            self._sinks.append(JsonLinesSink(folder / FRAMES, self.name, self.description, settings.append))
        if "mot" in settings.kinds:
            self._sinks.append(MotSink(folder / TRACKS, settings.append))
        if "video" in settings.kinds:
            video = SegmentSink(
                folder, self.description, settings.segment_seconds, settings.keep_segments, settings.append
            )
            self._sinks.append(video)

    def take(self) -> VideoFrame | None:
        """The next frame, if there is one; passes events on. A source that fails ends the stream."""
        for event in self.feed.take_events():
            self._tell(event)
        try:
            return self.feed.take() if self.is_active else None
        except (OSError, ValueError) as error:
            self.status.error = error
            self.end()
            return None

    def _tell(self, event: StreamEvent):
        if not self.is_active:
            return
        status = self.status
        if event.kind in ("connected", "reconnected", "disconnected"):
            status.state = "away" if event.kind == "disconnected" else "running"
        status.breaks += event.kind == "reconnected"
        if self.on_event is not None:
            self.on_event(self.name, event)
        with self._writing():
            for sink in self._sinks:
                sink.event(event)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """For the time of a `with` block, files that cannot be written end this stream and no other."""
        try:
            yield
        except OSError as error:
            if self.status.folder is None:  # the lines of all streams, in the caller's own file
                raise
            if self.status.error is None:
                self.status.error = _unwritable(self.status.folder, error)
                if self.on_event is not None:
                    event = StreamEvent("failed", str(self.status.error), self.status.time)
                    self.on_event(self.name, event)
            self.end()

    def add(self, frame: VideoFrame, result) -> None:
        """Passes on what was seen in a frame."""
        with self._writing():
            for sink in self._sinks:
                sink.write(result)
        status, now = self.status, time.monotonic()
        status.frames += 1
        status.dropped, status.tracks, status.time = self.feed.dropped, len(result.track_ids), result.time
        status.frames_per_second = self._rate.step(now)
        if frame.arrival is not None:
            share = 0.2 if status.latency else 1.0
            status.latency += share * (now - frame.arrival - status.latency)
        if self.on_result is not None:
            self.on_result(self.name, result)

    def flush(self) -> None:
        """Sees that what was written so far outlives this process."""
        with self._writing():
            for sink in self._sinks:
                sink.flush()

    def end(self) -> None:
        """Completes the files; nothing more comes from this source."""
        if not self.is_active:
            return
        self.is_active = False
        sinks, self._sinks = self._sinks, []
        with self._writing(), contextlib.ExitStack() as stack:  # one that fails keeps none from being closed
            stack.callback(self.feed.close)
            for sink in sinks:
                stack.callback(sink.close)
        self.status.state = "ended" if self.status.error is None else "failed"

    def __enter__(self) -> "_Stream":
        return self

    def __exit__(self, *exception) -> None:
        self.end()


@dataclass
class _Saver:
    """Saves the states of all streams from time to time; those of streams that are not in this run are kept."""

    path: str | os.PathLike | None
    states: dict[str, dict]
    streams: list[_Stream]
    every: float

    def __post_init__(self):
        self._due = time.monotonic() + self.every

    def save_if_due(self) -> None:
        """Saves if it is time. A disk that is full for a while ends no stream."""
        if self.path is not None and time.monotonic() >= self._due:
            try:
                self.save()
            except OSError as error:
                logger.warning("%s", error)

    def save(self) -> None:
        """Saves now."""
        self._due = time.monotonic() + self.every
        if self.path is None:
            return
        try:
            for one in self.streams:
                one.flush()
        finally:
            # Only an open connection tells whether an address is live, and the next run must know before it has one.
            self.states |= {one.name: one.session.state_dict() | {"is_live": one.feed.is_live} for one in self.streams}
            write_states(self.path, self.states)
