"""What a stream can be read from, as people name it: cameras, network addresses, files, folders, patterns, pipes."""

import contextlib
import glob
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..processing.container_kinetrack import locate
from ..processing.decoding_kinetrack import open_video
from ..processing.image_sequence_kinetrack import ImageSequence, is_image_path

# Schemes that carry nothing but live pictures; others say it by having no duration.
_LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "whep")
_VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg", ".flv")
_GLOB = re.compile(r"[*?\[]")
# Seconds to open an address, and without data before a connection counts as lost.
OPEN_TIMEOUT, STALL_TIMEOUT = 20.0, 10.0


@dataclass(frozen=True)
class StreamSource:
    """A source that is understood but not open yet.

    Attributes:
        kind: `"camera"`, `"network"`, `"file"`, `"images"`, `"videos"` (one after the other) or `"pipe"`.
        name: for people and for folders; without passwords.
        targets: what to open, one after the other.
        format: FFmpeg's name of the input format; None: told from the content.
        options: FFmpeg's options for it.
        frame_rate: Hz of images, which have no times.
        stall_timeout: seconds without data after which a connection counts as lost.
    """

    kind: str
    name: str
    targets: tuple[Any, ...]
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    frame_rate: float = 25.0
    stall_timeout: float = STALL_TIMEOUT

    @property
    def is_live(self) -> bool | None:
        """Whether it goes on by itself and cannot be read twice; None: only an open connection can tell."""
        if self.kind == "network":
            return True if urlsplit(self.targets[0]).scheme.lower() in _LIVE_SCHEMES else None
        return self.kind == "camera"

    @contextlib.contextmanager
    def open(self, target) -> Iterator:
        """One of the `targets`, open for the time of a `with` block: a `PyAVVideo` or an `ImageSequence`.

        Raises:
            FileNotFoundError, ValueError: it is not there, or cannot be read.
        """
        if self.kind == "images":
            yield ImageSequence(target, self.frame_rate)
            return
        options = dict(self.options)
        if self.kind == "network" and urlsplit(target).scheme.lower() in ("rtsp", "rtsps"):
            options.setdefault("rtsp_transport", "tcp")  # lost UDP packets are grey smears in the picture
        with open_video(
            _OneWay(target) if self.kind == "pipe" else target,
            name=self.name if self.kind in ("camera", "pipe") else masked(target),
            format=self.format,
            options=options,
            timeout=(OPEN_TIMEOUT, self.stall_timeout) if self.kind == "network" else None,
            follow_size=self.kind in ("network", "camera", "pipe"),
            # Decoding frames side by side delays each, and such a decoder leaves memory behind when it is closed: about
            # a megabyte at 768x576, too much for sources that are opened thousands of times.
            low_delay=self.kind != "file",
        ) as opened:
            yield opened


def find_source(
    source,
    *,
    frame_rate: float | None = None,
    frame_size: tuple[int, int] | None = None,
    pixel_format: str = "rgb24",
    options: dict[str, str] | None = None,
    stall_timeout: float = STALL_TIMEOUT,
) -> StreamSource:
    """Understands what somebody calls a source.

    Args:
        source: number of a camera (`0`, `"0"`) or its device (`/dev/video0`); address (rtsp, http, HLS …); path of
            a video; folder or pattern of images, or of videos that are played one after the other; `-` for the standard
            input; bytes, or a binary file object.
        frame_rate: Hz of images (25 when None) and of raw frames in a pipe.
        frame_size: (height, width) of raw frames in a pipe; None: the pipe carries a container that says it.
        pixel_format: FFmpeg's name of how raw frames are laid out.
        options: FFmpeg's options for cameras and addresses.
        stall_timeout: seconds without data after which a connection counts as lost.

    Raises:
        FileNotFoundError: no such file, folder or match.
        ValueError: images and videos mixed, or a camera that cannot be named so.
        TypeError: something else.
    """
    options, rate = dict(options or {}), frame_rate or 25.0
    common = {"frame_rate": rate, "stall_timeout": stall_timeout}
    if isinstance(source, int) and not isinstance(source, bool):
        source = str(source)
    if not isinstance(source, (str, os.PathLike)):
        target, _ = locate(source)
        return StreamSource("file", "video", (target,), **common)
    text = os.fspath(source)
    if text == "-":
        raw = {}
        if frame_size is not None:
            height, width = frame_size
            raw = {"video_size": f"{width}x{height}", "pixel_format": pixel_format, "framerate": str(rate)}
        return StreamSource(
            "pipe", "stdin", (sys.stdin.buffer,), "rawvideo" if raw else None, {**raw, **options}, **common
        )
    if text.isdecimal() or re.match(r"/dev/video\d+$", text) or text.startswith("video="):
        target, form = camera_address(text)
        name = f"camera-{re.sub(r'[^0-9A-Za-z]+', '-', text.removeprefix('/dev/video').removeprefix('video='))}"
        return StreamSource("camera", name, (target,), form, options, **common)
    if "://" in text and not text.startswith("file://"):
        return StreamSource("network", address_name(text), (text,), None, options, **common)
    path = Path(text.removeprefix("file://")).expanduser()
    if path.is_dir():
        return _files(
            sorted(path.iterdir(), key=natural_order), path.resolve().name or "frames", f"The folder {path}", common
        )
    if _GLOB.search(text) and not path.exists():
        found = sorted(map(Path, glob.glob(str(path), recursive=True)), key=natural_order)
        name = re.sub(r"[*?\[\]]+", "", path.stem).strip("-_. ") or path.parent.name or "frames"
        return _files(found, name, f"The pattern {text}", common)
    if is_image_path(path):
        return _files([path], path.stem, text, common)
    locate(path)
    return StreamSource("file", path.stem, (str(path),), None, {}, **common)


def read_stream_list(path: str | os.PathLike) -> list[str]:
    """The sources named in a `.streams` file: one a line; empty lines and those that begin with `#` do not count.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no source in it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no list of streams at {file}.")
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ValueError(f"{file} names no source. Write one a line, such as rtsp://192.168.1.20/door.")
    return found


def camera_address(text: str, platform: str = sys.platform) -> tuple[str, str]:
    """What FFmpeg opens for a camera, and with which input format.

    Args:
        text: its number, its device (`/dev/video0`), or on Windows `video=NAME`.
        platform: as `sys.platform`.

    Raises:
        ValueError: a number on Windows, where cameras have names.
    """
    if text.startswith("video="):
        return text, "dshow"
    if platform == "darwin":
        return text, "avfoundation"
    if platform.startswith("win"):
        raise ValueError(
            f"On Windows cameras have names: give 'video=NAME' instead of {text}. The Device Manager lists them."
        )
    return (text if text.startswith("/") else f"/dev/video{text}"), "v4l2"


def masked(target) -> str:
    """An address as it may be shown: without user and password, and without the query, which often holds a key."""
    text = str(target)
    if "://" not in text:
        return text
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def address_name(text: str) -> str:
    """Name of the folder for an address: its host and path, such as `192.168.1.20-door`."""
    parts = urlsplit(text)
    words = re.sub(r"[^0-9A-Za-z.]+", "-", unquote(f"{parts.hostname or ''}{parts.path}"))
    return words.strip("-.") or "stream"


def natural_order(path: Path) -> list:
    """Sorts `frame-10` behind `frame-9`."""
    return [int(part) if part.isdecimal() else part.casefold() for part in re.split(r"(\d+)", str(path))]


def _files(paths: list[Path], name: str, described: str, common: dict) -> StreamSource:
    images = [path for path in paths if is_image_path(path) and path.is_file()]
    videos = [str(path) for path in paths if path.suffix.lower() in _VIDEO_SUFFIXES and path.is_file()]
    if images and videos:
        raise ValueError(
            f"{described} has {len(images)} images and {len(videos)} videos. Name one kind, such as '*.jpg'."
        )
    if images:
        return StreamSource("images", name, (images,), **common)
    if videos:
        return StreamSource("videos", name, tuple(videos), **common)
    raise FileNotFoundError(f"{described} has no images and no videos.")


class _OneWay:
    """A pipe as FFmpeg shall see it: it cannot be rewound, and gives what is there without waiting for more."""

    def __init__(self, file):
        if file is getattr(sys.stdin, "buffer", None):
            # A thread that waits within the interpreter's own reader when the program ends would crash it.
            with contextlib.suppress(OSError):
                file = io.FileIO(os.dup(file.fileno()))
        self._read = getattr(file, "read1", None) or file.read

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end."""
        return self._read(size)
