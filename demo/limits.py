"""What the demo takes on: a video is measured, and refused with a sentence, before any work starts."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..processing.container_kinetrack import VideoDecodeError, VideoInfo, open_pyav
from ..processing.decoding_kinetrack import probe_video
from .options import DemoOptions


class Refused(ValueError):
    """Something a visitor can put right; the message is one sentence for them."""


@dataclass(frozen=True)
class Measured:
    """A video that is within the limits.

    Attributes:
        info: what the file says of itself.
        seconds: its length.
        frames: how many frames will be looked at.
    """

    info: VideoInfo
    seconds: float
    frames: int


def describe_limits(options: DemoOptions) -> str:
    """The limits in words, for the page."""
    length = spoken_duration(options.max_seconds)
    return f"Up to {length}, {options.max_megabytes} MB and {options.max_frames} frames a video."


def measure(path: str | os.PathLike, fps: float | None, options: DemoOptions) -> Measured:
    """Looks into a file, without decoding it, and holds it against the limits.

    Args:
        path: the file.
        fps: frames a second that will be looked at, all when None.
        options: the limits.

    Raises:
        Refused: it is no video, or over a limit; the message says which and what to do.
    """
    path = Path(path)
    megabytes = path.stat().st_size / 1e6
    if megabytes > options.max_megabytes:
        raise Refused(f"This file has {megabytes:.0f} MB; the limit here is {options.max_megabytes} MB.")
    try:
        info, times = _inspect(path)
    except VideoDecodeError as error:
        raise Refused(_without_path(error, path)) from error
    if info.width * info.height > options.max_pixels:
        raise Refused(f"This video has {info.width}×{info.height} pixels, which is too large here. Scale it down.")
    seconds = float(times[-1] - times[0]) + 1 / info.frame_rate if len(times) else info.duration
    if seconds is None:
        raise Refused("This file does not say how long it is. Save it again as MP4 and try once more.")
    if seconds > options.max_seconds:
        raise Refused(
            f"This video is {spoken_duration(seconds)} long; the limit here is {spoken_duration(options.max_seconds)}. "
            "Cut it, or run `kinetrack analyze` on your own machine, which has no limit."
        )
    frames = len(times) or round(seconds * info.frame_rate)
    if fps and fps < info.frame_rate:
        frames = min(frames, round(seconds * fps) + 1)
    if frames > options.max_frames:
        highest = int(options.max_frames / seconds)
        raise Refused(
            f"This would be {frames} frames to look at; the limit here is {options.max_frames}. Choose {highest} "
            "frames a second or fewer."
        )
    return Measured(info, seconds, frames)


def spoken_duration(seconds: float) -> str:
    """`90` as "1 min 30 s"."""
    minutes, rest = divmod(round(seconds), 60)
    parts = ([f"{minutes} min"] if minutes else []) + ([f"{rest} s"] if rest or not minutes else [])
    return " ".join(parts)


def _inspect(path: Path):
    """What a file says of itself, and the times of its frames."""
    info = probe_video(path)
    with open_pyav(path) as video:
        return info, video.packet_times()


def _without_path(error: Exception, path: Path) -> str:
    """The message about a file, without the folder it happens to lie in."""
    return str(error).replace(str(path), "This file")
