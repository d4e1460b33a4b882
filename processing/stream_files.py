"""Text files of a stream that was killed: what to do with lines that are newer than the state a run goes on from.

Annotated video is left alone: its segments cannot be cut.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .stream_sinks import FRAMES, TRACKS

_BLOCK = 1 << 20


def take_up(folder: Path, frame_index: int, again: bool) -> tuple[int, int]:
    """Makes the files fit a state that is older than their last lines. A line that was cut off is removed.

    Args:
        folder: of the files; those that are not there are left alone.
        frame_index: number of the state's next frame.
        again: whether the source gives these frames once more. What was written of them is removed then, else it stays.

    Returns:
        The least numbers for the next frame and for the next track with which nothing in the files is called twice.

    Raises:
        OSError: a file cannot be read or cut.
    """
    next_frame, next_track = frame_index, 1
    for name, read in ((FRAMES, _frame_in_json), (TRACKS, _frame_in_mot)):
        path = folder / name
        if not path.is_file():
            continue
        end, later = _newer_lines(path, frame_index, read)
        if not again:
            end += sum(line.length for line in later)
            next_frame = max([next_frame, *(line.frame + 1 for line in later if line.frame is not None)])
            next_track = max([next_track, *(track + 1 for line in later for track in line.tracks)])
        if end < path.stat().st_size:
            with open(path, "r+b") as file:
                file.truncate(end)
    return next_frame, next_track


def _newer_lines(path: Path, frame_index: int, read: Callable) -> tuple[int, list]:
    """Where the lines from a frame on begin, and these lines, all but one that was cut off.

    Files grow for weeks, so they are read from the end.
    """
    size, window = path.stat().st_size, _BLOCK
    while True:
        start = max(0, size - window)
        with open(path, "rb") as file:
            file.seek(start)
            raw = file.read(size - start).splitlines(keepends=True)
        if start:
            start += len(raw.pop(0))
        lines = [_Line(len(line), *read(line)) for line in raw if line.endswith(b"\n")]
        known = [number for number, line in enumerate(lines) if line.frame is not None and line.frame < frame_index]
        if known or not start:
            break
        window *= 4
    begin = known[-1] + 1 if known else 0
    while begin < len(lines) and lines[begin].frame is None:  # events before the first frame that is newer
        begin += 1
    return start + sum(line.length for line in lines[:begin]), lines[begin:]


@dataclass
class _Line:
    """Bytes, number of the frame (None for an event) and identities in it."""

    length: int
    frame: int | None
    tracks: list[int]


def _frame_in_json(line: bytes) -> tuple[int | None, list[int]]:
    try:
        found = json.loads(line)
        return found.get("frame_index"), [track["id"] for track in found.get("tracks", ())]
    except (ValueError, AttributeError, KeyError, TypeError):
        return None, []


def _frame_in_mot(line: bytes) -> tuple[int | None, list[int]]:
    try:
        frame, track = line.split(b",")[:2]
        return int(frame) - 1, [int(track)]
    except ValueError:
        return None, []
