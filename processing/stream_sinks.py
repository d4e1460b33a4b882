"""What a stream leaves behind while it runs: JSON lines, MOT text, and annotated video in segments."""

import os
import time
from pathlib import Path
from typing import Any, TextIO

from .describing_kinetrack import describe_frame, mot_line
from .results import compact_json
from .sinks import VideoSink

FRAMES, TRACKS, SEGMENT = "frames.jsonl", "tracks.txt", "annotated-{:06d}.mp4"
# Lines reach a file at least this often, for whoever follows it; seconds. A pipe gets each at once.
_FLUSH_SECONDS = 1.0
_TOP_ACTIONS = 3


class _TextSink:
    """A text file that grows line by line.

    Args:
        target: path, or an open text file, which stays open.
        append: goes on in a file that is there, instead of replacing it.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, target: str | os.PathLike | TextIO, append: bool = False):
        self._owned = not hasattr(target, "write")
        mode = "a" if append else "w"
        # Closed by `close`, which may be weeks away.
        self._file = open(target, mode, encoding="utf-8", newline="\n") if self._owned else target  # noqa: SIM115
        self._flushed = time.monotonic()

    def _write(self, text: str):
        self._file.write(text)
        if not self._owned or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hands over what waits, so that it outlives this process."""
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Writes what is left."""
        if self._owned:
            self._file.close()
        else:
            self.flush()


class JsonLinesSink(_TextSink):
    """One JSON object a line: every frame with its tracks and actions, and every event of the source.

    A frame has `stream`, `frame_index`, `time`, `action`, `confidence`, `actions` (the likeliest three), `groups` and
    `tracks`, each with `id`, `class`, `box` (xyxy, pixels of the frame as displayed), `score`, `action`, `confidence`
    and `actions`; an event has `stream`, `event`, `message` and `time`.

    Args:
        target: path, or an open text file.
        stream: name of the source.
        model: from `describe_model`.
        append: see `MotSink`.
    """

    def __init__(self, target, stream: str, model: dict[str, Any], append: bool = False):
        super().__init__(target, append)
        self._stream, self._model = stream, model

    def write(self, result) -> None:
        """Adds a frame's `KineTrackFrameResult`."""
        self._add({"stream": self._stream, **describe_frame(result, self._model, _TOP_ACTIONS)})

    def event(self, event) -> None:
        """Adds a `StreamEvent`, at once."""
        self._add({"stream": self._stream, "event": event.kind, "message": event.message, "time": event.time})
        self.flush()

    def _add(self, value: dict):
        self._write(compact_json(value) + "\n")


class MotSink(_TextSink):
    """The tracks in MOTChallenge format, a line a box.

    Args:
        target: path, or an open text file.
        append: goes on in a file that is there, instead of replacing it.
    """

    def write(self, result) -> None:
        """Adds a frame's `KineTrackFrameResult`."""
        rows = zip(result.track_ids.tolist(), result.boxes.tolist(), result.scores.tolist(), strict=True)
        self._write("".join(mot_line(result.frame_index, *row) for row in rows))

    def event(self, event) -> None:
        """The format has no place for events."""


class SegmentSink:
    """Annotated video in segments that are complete files each, `annotated-000001.mp4` and so on.

    A new one begins after some seconds, and when the size of the frames changes. The one being written has a temporary
    name.

    Args:
        folder: for the files.
        model: from `describe_model`.
        seconds: length of a segment.
        keep: how many of the newest segments stay on the disk; None: all.
        append: numbers go on behind those that are there, instead of replacing them. What a run that was killed has
            drawn stays as it is, but for the segment that it was writing, which is lost.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: dict[str, Any],
        seconds: float = 60.0,
        keep: int | None = None,
        append: bool = False,
    ):
        self._folder, self._model = Path(folder), model
        self._seconds, self._keep = seconds, keep
        self._rate, self._last = float(model["frame_rate"]), None  # the model's own, until it is known
        for path in self._folder.glob(".annotated-*.partial.mp4"):  # of a run that was killed
            path.unlink(missing_ok=True)
        if not append:
            for path in self._segments():
                path.unlink(missing_ok=True)
        self._number = max((int(path.stem.rpartition("-")[2]) for path in self._segments()), default=0)
        self._video = self._annotator = self._size = self._partial = None
        self._begins = 0.0

    def write(self, result) -> None:
        """Draws a frame's `KineTrackFrameResult` and adds it."""
        from .drawing import annotator_for

        size = result.height, result.width
        if self._last is not None:
            # A long mean of the steps in time: what is drawn is what was looked at, at whatever rate that was.
            self._rate += 0.02 * (1 / max(result.time - self._last, 1e-3) - self._rate)
        self._last = result.time
        if self._video is not None and (size != self._size or result.time - self._begins >= self._seconds - 1e-3):
            self._finish()
        if self._video is None:
            self._annotator, self._size = annotator_for(result, self._rate, self._model), size
            self._number += 1
            self._partial = self._folder / f".{SEGMENT.format(self._number)[:-4]}.partial.mp4"
            self._video, self._begins = VideoSink(self._partial, *size, self._rate), result.time
        started = time.perf_counter()
        self._video.write(self._annotator.annotate(result.frame, result), result.time - self._begins)
        result.timings["output"] = result.timings.get("output", 0.0) + time.perf_counter() - started

    def event(self, event) -> None:
        """Video does not show events."""

    def flush(self) -> None:
        """A segment is complete or not there."""

    def close(self) -> None:
        """Completes the last segment."""
        if self._video is not None:
            self._finish()

    def _finish(self):
        video, self._video = self._video, None
        try:
            video.close()
            os.replace(self._partial, self._folder / SEGMENT.format(self._number))
        finally:  # which does nothing unless this failed
            video.abort()
            self._partial.unlink(missing_ok=True)
        for path in self._segments()[: -self._keep] if self._keep else ():
            path.unlink(missing_ok=True)

    def _segments(self) -> list[Path]:
        return sorted(self._folder.glob("annotated-[0-9]*.mp4"))
