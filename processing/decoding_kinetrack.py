"""Video files, bytes and streams in; RGB frames as displayed, with their times in seconds, out."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..processing.container_kinetrack import VideoDecodeError, VideoInfo, is_pyav_available, locate, open_pyav
from ..processing.torchcodec_kinetrack import TorchCodecVideo, import_torchcodec

__all__ = [
    "VideoClip",
    "VideoDecodeError",
    "VideoFrame",
    "VideoInfo",
    "iter_clip_frames",
    "iter_video_frames",
    "probe_video",
    "read_video",
    "select_frames",
]

# Timestamps of Matroska and WebM are whole milliseconds, so a tick counts as reached this much early.
_TIME_TOLERANCE = 1.5e-3


@dataclass
class VideoFrame:
    """One frame as a player would show it.

    Attributes:
        image: (H, W, 3) uint8 RGB, rotated, de-interlaced and with square pixels.
        time: Seconds since the start of the file (of a live stream: since its first packet).
        index: Number of the frame in the source, from 0.
        unseen: Seconds just before it in which the source was away.
        arrival: When it was decoded, on the clock of `time.monotonic`; None: nobody knows.
        decode_seconds: What decoding it took, waiting for its data included.
    """

    image: np.ndarray
    time: float
    index: int
    unseen: float = 0.0
    arrival: float | None = None
    decode_seconds: float = 0.0


@dataclass
class VideoClip:
    """Frames of one source held in memory.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        times: (T,) float64 seconds.
        indices: (T,) int64 numbers of the frames in the source.
        info: The source.
    """

    frames: np.ndarray
    times: np.ndarray
    indices: np.ndarray
    info: VideoInfo


def probe_video(source, backend: str = "auto") -> VideoInfo:
    """Opens a source, decodes one frame and says what it holds. Damage is for whoever reads all of it to tell.

    Args:
        source: Path, `pathlib.Path`, URL, bytes, or a binary file object.
        backend: "pyav", "torchcodec", or "auto": PyAV, and torchcodec where PyAV is missing and torchcodec loads.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, an empty or damaged one, or sound only.
    """
    with open_video(source, backend) as opened:
        opened.report = lambda what: None
        for frame, _ in opened.decode():
            return opened.describe(frame)
    raise AssertionError("unreachable: decode() raises when it finds no frame")


def iter_video_frames(
    source, *, start: float = 0.0, stop: float | None = None, frame_rate: float | None = None, backend: str = "auto"
) -> Iterator[VideoFrame]:
    """Yields the frames of a source one after the other, in bounded memory.

    Frames are given as displayed: rotation and sample-aspect metadata are applied, frames flagged as interlaced go
    through FFmpeg's `bwdif`, and 10-bit and gray video becomes 8-bit RGB. Times are those of the stream, so a variable
    frame rate is kept. A frame size that changes on the way is scaled to that of the first frame. Damaged packets are
    skipped with one warning.

    Args:
        source: Path, `pathlib.Path`, URL (http, https, rtsp, ...), bytes, or a binary file object.
        start: Seconds; earlier frames are decoded but not yielded. Their numbers still count.
        stop: Seconds; the first frame at or after this time ends the iteration. None: the end of the source.
        frame_rate: Hz; frames are chosen as `select_frames` does, the others are not even converted. None: all.
        backend: "pyav", "torchcodec", or "auto": PyAV, and torchcodec where PyAV is missing and torchcodec loads.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, an empty or damaged one, or sound only.
    """
    _check_choice(frame_rate, None)
    with open_video(source, backend) as opened:
        sampler = FrameSampler(frame_rate)
        for index, (frame, time) in enumerate(opened.decode()):
            if stop is not None and time >= stop:
                return
            if time >= start and sampler.takes(time):
                yield VideoFrame(opened.to_rgb(frame), time, index)


def iter_clip_frames(
    source, num_frames: int, frame_rate: float | None = None, backend: str = "auto"
) -> Iterator[VideoFrame]:
    """Yields at most `num_frames` frames of a source, chosen as `select_frames` does.

    The times are read from the packets first, without decoding; then only the part of the file that is needed is
    decoded. A source that cannot be read twice (a live stream) gives its first `num_frames` at the `frame_rate`.

    Args:
        source: As in `iter_video_frames`.
        num_frames: Most frames yielded.
        frame_rate: Hz; the middle of the video is taken at this rate. None: spread evenly over the whole video.
        backend: "pyav", "torchcodec", or "auto": PyAV, and torchcodec where PyAV is missing and torchcodec loads.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, an empty or damaged one, or sound only.
    """
    _check_choice(frame_rate, num_frames)
    with open_video(source, backend) as opened:
        if opened.is_live:
            yield from _first(opened, num_frames, frame_rate)
            return
        times = opened.packet_times()
    given = 0
    if len(times):
        for frame in _at_times(source, times, select_frames(times, frame_rate, num_frames), backend):
            given += 1
            yield frame
    if not given:  # packets without times, or times that the frames do not have: ask the frames themselves
        with open_video(source, backend) as opened:
            times = np.array([time for _, time in opened.decode()])
        yield from _at_times(source, times, select_frames(times, frame_rate, num_frames), backend)


def _at_times(source, times: np.ndarray, chosen: np.ndarray, backend: str) -> Iterator[VideoFrame]:
    """The frames numbered `chosen` of a source whose frames have these `times`."""
    wanted, found = times[chosen], 0
    with open_video(source, backend) as opened:
        opened.seek(wanted[0])
        for frame, time in opened.decode():
            # The first frame at or after each wanted time: two passes may differ by a rounding.
            if time >= wanted[found] - _TIME_TOLERANCE:
                found = max(found + 1, int(np.searchsorted(wanted, time + _TIME_TOLERANCE)))
                yield VideoFrame(opened.to_rgb(frame), time, int(np.searchsorted(times, time - _TIME_TOLERANCE)))
                if found == len(wanted):
                    return


def _first(opened, num_frames: int, frame_rate: float | None) -> Iterator[VideoFrame]:
    sampler, given = FrameSampler(frame_rate), 0
    for index, (frame, time) in enumerate(opened.decode()):
        if sampler.takes(time):
            given += 1
            yield VideoFrame(opened.to_rgb(frame), time, index)
            if given == num_frames:
                return


def read_video(
    source, num_frames: int | None = None, frame_rate: float | None = None, backend: str = "auto"
) -> VideoClip:
    """Reads a source into memory, all of it or the frames asked for.

    Args:
        source: As in `iter_video_frames`.
        num_frames: At most this many frames, see `select_frames`. None: as many as there are.
        frame_rate: Hz at which frames are chosen by their times; None takes every frame (or, with `num_frames`,
            spreads the choice over the whole video).
        backend: "pyav", "torchcodec", or "auto": PyAV, and torchcodec where PyAV is missing and torchcodec loads.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, an empty or damaged one, or sound only.
    """
    if num_frames is None:
        chosen = list(iter_video_frames(source, frame_rate=frame_rate, backend=backend))
    else:
        chosen = list(iter_clip_frames(source, num_frames, frame_rate, backend))
    return VideoClip(
        frames=np.stack([frame.image for frame in chosen]),
        times=np.array([frame.time for frame in chosen]),
        indices=np.array([frame.index for frame in chosen], dtype=np.int64),
        info=probe_video(source, backend),
    )


class FrameSampler:
    """Chooses frames as they come: the first at or after each tick of a clock that starts with the first frame.

    Args:
        frame_rate: Hz of the clock; None takes every frame.
    """

    def __init__(self, frame_rate: float | None):
        self.frame_rate = frame_rate
        self._origin, self._reached = None, -1

    def takes(self, time: float) -> bool:
        """Whether the frame at this time, in seconds and later than the last, is chosen."""
        if self.frame_rate is None:
            return True
        self._origin = time if self._origin is None else self._origin
        tick = _ticks_reached(time - self._origin, self.frame_rate)
        chosen = tick > self._reached
        self._reached = max(self._reached, tick)
        return bool(chosen)


def select_frames(times, frame_rate: float | None = None, num_frames: int | None = None) -> np.ndarray:
    """Chooses frames by their times: the first frame at or after each tick of a clock.

    Args:
        times: (T,) seconds, rising.
        frame_rate: Hz of the clock that starts with the first frame. A source slower than the clock gives all its
            frames, none twice. None: every frame.
        num_frames: With a `frame_rate`, the middle `num_frames` of the chosen ones; without, this many spread evenly
            over the whole time. A shorter source gives what it has.

    Returns:
        (n,) int64 indices into `times`, rising, none twice.
    """
    times = np.asarray(times, dtype=np.float64)
    _check_choice(frame_rate, num_frames)
    if len(times) == 0:
        return np.zeros(0, dtype=np.int64)
    if frame_rate is not None:
        ticks = _ticks_reached(times - times[0], frame_rate)  # (T,)
        chosen = np.flatnonzero(np.diff(ticks, prepend=-1) > 0)
        if num_frames is not None and len(chosen) > num_frames:
            first = (len(chosen) - num_frames) // 2
            chosen = chosen[first : first + num_frames]
        return chosen
    if num_frames is None or num_frames >= len(times):
        return np.arange(len(times))
    span = times[-1] - times[0]
    targets = times[0] + span * (np.arange(num_frames) + 0.5) / num_frames  # the middle of each equal part
    nearest = np.abs(times[:, None] - targets).argmin(0)
    if len(np.unique(nearest)) < num_frames:  # bunched times: fall back to equal steps in number
        nearest = (np.arange(num_frames) * len(times)) // num_frames
    return nearest.astype(np.int64)


def _ticks_reached(elapsed, frame_rate: float):
    """Number of the last tick of the clock at or before a time since its start (seconds, a number or an array)."""
    return np.floor((elapsed + _TIME_TOLERANCE) * frame_rate).astype(np.int64)


def _check_choice(frame_rate, num_frames):
    if frame_rate is not None and not frame_rate > 0:
        raise ValueError(f"`frame_rate` must be a positive number of frames a second, got {frame_rate}.")
    if num_frames is not None and num_frames < 1:
        raise ValueError(f"`num_frames` must be at least 1, got {num_frames}.")


@contextlib.contextmanager
def open_video(source, backend: str = "auto", **how):
    """Opens a source for the time of a `with` block: a `PyAVVideo` or a `TorchCodecVideo`.

    Args:
        source: As in `iter_video_frames`.
        backend: As in `iter_video_frames`.
        how: As for `open_pyav`, which torchcodec has no use for.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, or sound only.
    """
    if backend not in ("auto", "pyav", "torchcodec"):
        raise ValueError(f"`backend` must be 'auto', 'pyav' or 'torchcodec', got {backend!r}.")
    if backend == "torchcodec" or (backend == "auto" and not is_pyav_available() and import_torchcodec() is not None):
        yield TorchCodecVideo(*locate(source))
    else:
        with open_pyav(source, **how) as opened:
            yield opened
