"""One open video container: PyAV's decoder, and what has to be done to its frames before they can be displayed."""

import contextlib
import functools
import gc
import io
import logging
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)

# Streams may stall for ever; files never reach these limits. Seconds to open and to read.
_NETWORK_TIMEOUT = (20.0, 60.0)

# Seconds: a frame that is no further behind the newest is out of order; one further behind is of a clock set back.
_DISORDER = 0.2

# What a local file may be, by FFmpeg's names: everything it holds is in the file itself. Playlists (HLS, concat, DASH,
# SDP, image sequences) are not among them: a file with the name of a video could make them read any other file.
_SELF_CONTAINED = (
    "3dostr,aac,ac3,aiff,amr,apng,asf,av1,avi,dirac,dnxhd,dv,flac,flv,gif,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,"
    "mov,mp3,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,vc1,vvc,wav,webm,wtv,yuv4mpegpipe"
)


class VideoDecodeError(ValueError):
    """A source that exists but cannot be read as a video."""


@dataclass
class VideoInfo:
    """What a source says of itself.

    Attributes:
        width: Pixels of a frame as displayed (after rotation and sample aspect).
        height: Pixels of a frame as displayed.
        frame_rate: Mean frames a second; the single times of the frames are the truth.
        duration: Seconds, or None when the source does not know (a live stream).
        num_frames: Frames the container announces, or None when it does not.
        has_audio: Whether there is a sound track.
        codec: FFmpeg's name of the video codec, such as `h264`.
        rotation: Degrees clockwise by which the stored picture is turned for display: 0, 90, 180 or 270.
    """

    width: int
    height: int
    frame_rate: float
    duration: float | None
    num_frames: int | None
    has_audio: bool
    codec: str
    rotation: int = 0


class PyAVVideo:
    """A container that is open, and the one video stream read from it.

    Args:
        container: From `av.open`.
        name: For messages.
        follow_size: Whether frames whose size changes on the way keep it; else they are scaled to that of the first.
        low_delay: Whether each frame is wanted at once; else several are decoded side by side, which is faster.

    Attributes:
        failure: Why reading stopped before the end, or None.
        report: Called with a sentence whenever a part is damaged; None: the log says it once.

    Raises:
        VideoDecodeError: there is no video stream.
    """

    def __init__(self, container, name: str, follow_size: bool = False, low_delay: bool = False):
        self.container, self.name, self.follow_size = container, name, follow_size
        self.failure: str | None = None
        self.report: Callable[[str], None] | None = None
        streams = [s for s in container.streams.video if not _is_cover_picture(s)]
        if not streams:
            kind = "sound only" if container.streams.audio else "no picture and no sound"
            raise VideoDecodeError(f"{name} holds no video stream ({kind}). Give a file with pictures.")
        self.stream = streams[0]
        self.stream.thread_type = "SLICE" if low_delay else "AUTO"
        rate = self.stream.average_rate or self.stream.guessed_rate or self.stream.base_rate
        self.frame_rate = float(rate) if rate and 0 < float(rate) <= 1000 else 25.0
        self._stored_size: tuple[int, int] | None = None  # width, height of the frames whose geometry is known
        self._size: tuple[int, int] | None = None  # width, height before rotation, square pixels
        self._orientation = (0, False)  # quarter turns clockwise, mirrored first
        self._warned = False
        # One for all frames: a frame that converts itself makes a scaler each time, and a cycle of references with it.
        self._reformatter = _import_av().video.reformatter.VideoReformatter()

    @property
    def is_live(self) -> bool:
        """Whether the source has no known end and so cannot be read twice."""
        return self.container.duration is None and self.stream.duration is None and "://" in self.name

    def packet_times(self) -> np.ndarray:
        """(T,) rising seconds of the frames, from their packets, undecoded; empty when the packets do not know."""
        av = _import_av()
        origin, times = (self.container.start_time or 0) / 1e6, []
        try:
            for packet in self.container.demux(self.stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                if packet.pts is None:
                    return np.zeros(0)
                times.append(float(packet.pts * packet.time_base) - origin)
        except av.error.FFmpegError:
            pass  # a cut file: what was read so far; decoding it will warn
        return np.sort(np.array(times))

    def seek(self, time: float):
        """Moves to a key frame at or before a time, in seconds, where the source can; else stays at the start."""
        margin = 1.0  # some containers land a little late
        if time > 2 * margin:
            target = time - margin + (self.container.start_time or 0) / 1e6
            with contextlib.suppress(_import_av().error.FFmpegError):
                self.container.seek(int(target * 1e6))

    def decode(self) -> Iterator[tuple[Any, float]]:
        """Yields (decoded frame, rising seconds); raises `VideoDecodeError` if there is none."""
        origin = (self.container.start_time or 0) / 1e6
        last, newest = None, 0.0
        for frame in self._deinterlaced(self._decoded()):
            if frame.time is None:
                time = 0.0 if last is None else last + 1 / self.frame_rate
            else:
                time = float(frame.time) - origin
            if last is None or (self.follow_size and (frame.width, frame.height) != self._stored_size):
                self._learn_geometry(frame)
            if last is None:
                origin += min(0.0, time)
                time = max(0.0, time)
            elif time < newest - _DISORDER:
                # A clock that jumps back (joined recordings): go on from where the time was.
                shift = last + 1 / self.frame_rate - time
                origin -= shift
                time += shift
            newest = max(newest, time)
            if last is not None and time <= last:
                # A time given twice, or out of order, is no news of the clock: only this frame moves.
                time = last + min(0.25 / self.frame_rate, 0.01)
            last = time
            yield frame, time
        if last is None:
            raise VideoDecodeError(
                f"{self.name} holds a video stream but not one frame could be decoded. It is empty, "
                "damaged or cut off; make it again or repair it (for example `ffmpeg -i IN -c copy OUT`)."
            )
        announced, end = self._duration() or 0.0, last + 1 / self.frame_rate
        sound_may_be_longer = self.stream.duration is None and self.container.streams.audio
        if announced - end > max(0.5, 0.05 * announced) and not sound_may_be_longer:
            self._warn(f"the pictures end at {end:.1f} s of the {announced:.1f} s announced; it is damaged or cut off")

    def _decoded(self):
        """Frames of the decoder; damaged packets are skipped."""
        # Bound here: a generator dropped at the interpreter's end is closed after PyAV has been taken down.
        errors = _import_av().error
        end_of_file, failure = errors.EOFError, errors.FFmpegError
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets)
            except (StopIteration, end_of_file):
                return
            except failure as error:
                self.failure = _reason(error)
                self._warn(f"reading stopped early ({self.failure})")
                return
            try:
                yield from packet.decode()
            except end_of_file:
                return
            except failure as error:
                self._warn(f"a damaged part was skipped ({error.strerror})")

    def _deinterlaced(self, frames):
        """Passes frames through `bwdif` from the first one flagged as interlaced on."""
        graph, shape = None, None
        for frame in frames:
            if graph is not None and shape != (frame.width, frame.height, frame.format.name):
                yield from _drain(graph, flush=True)
                graph = None
            if graph is None and frame.interlaced_frame:
                graph, shape = self._deinterlacer(frame), (frame.width, frame.height, frame.format.name)
            if graph is None:
                yield frame
            else:
                graph.push(frame)
                yield from _drain(graph)
        if graph is not None:
            yield from _drain(graph, flush=True)

    def _deinterlacer(self, frame):
        # Frames not flagged as interlaced pass untouched; one frame out for one frame in.
        return _filter_graph(frame, self.stream, "bwdif", "mode=send_frame:deint=interlaced")

    def _learn_geometry(self, frame):
        self._stored_size = frame.width, frame.height
        self._size = displayed_size(frame.width, frame.height, float(self.stream.sample_aspect_ratio or 1))
        self._orientation = _orientation(frame, self.stream)

    def to_rgb(self, frame) -> np.ndarray:
        """(H, W, 3) uint8 as displayed."""
        return self._convert(frame, self._size, self._orientation)

    def picture(self, frame) -> Callable[[], np.ndarray]:
        """What makes `to_rgb` of a frame when it is called, whatever has been decoded since."""
        return functools.partial(self._convert, frame, self._size, self._orientation)

    def _convert(self, frame, size, orientation) -> np.ndarray:
        width, height = size
        options = {"width": width, "height": height, "format": "rgb24"}
        # Untagged video follows the players' custom: HD is BT.709, SD is BT.601.
        if frame.colorspace not in (1, 4, 5, 6, 7, 9) and "rgb" not in frame.format.name and frame.height > 576:
            options["src_colorspace"] = "ITU709"
        image = self._reformatter.reformat(frame, **options).to_ndarray()
        turns, mirrored = orientation
        if mirrored:
            image = image[:, ::-1]
        return np.ascontiguousarray(np.rot90(image, -turns))

    def describe(self, frame) -> VideoInfo:
        """The source's `VideoInfo`; `frame` is its first frame."""
        stream, (width, height), (turns, _) = self.stream, self._size, self._orientation
        if turns % 2:
            width, height = height, width
        return VideoInfo(
            width=width,
            height=height,
            frame_rate=self.frame_rate,
            duration=self._duration(),
            num_frames=stream.frames or None,
            has_audio=bool(self.container.streams.audio),
            codec=stream.codec_context.name,
            rotation=turns * 90,
        )

    def _duration(self) -> float | None:
        """Seconds the source announces."""
        if self.stream.duration is not None and self.stream.time_base:
            return float(self.stream.duration * self.stream.time_base)
        return None if self.container.duration is None else self.container.duration / 1e6

    def _warn(self, what: str):
        if self.report is not None:
            self.report(what)
        elif not self._warned:
            self._warned = True
            logger.warning("%s: %s; what can be decoded is used.", self.name, what)


@contextlib.contextmanager
def open_pyav(source, *, name: str | None = None, follow_size: bool = False, low_delay: bool = False, **how):
    """Opens a source with PyAV for the time of a `with` block.

    Args:
        source: Path, `pathlib.Path`, URL, bytes, or a binary file object; with a `format` also what that format opens.
        name: For messages; told from the source when None.
        follow_size: See `PyAVVideo`.
        low_delay: See `PyAVVideo`.
        how: `format`, `options` and `timeout` as for `open_container`.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: not a video, or sound only.
        ImportError: PyAV is not installed.
    """
    av = _import_av()
    target, known = (source, str(source)) if how.get("format") else locate(source)
    name = name or known
    try:
        container = open_container(target, **how)
    except (av.error.FileNotFoundError, av.error.HTTPNotFoundError) as error:
        raise FileNotFoundError(f"There is no video at {name}.") from error
    except (av.error.FFmpegError, OSError) as error:
        raise VideoDecodeError(_cannot_open(name, error, _is_address(target))) from error
    with container:
        yield PyAVVideo(container, name, follow_size, low_delay)


def open_container(
    target, *, format: str | None = None, options: dict[str, str] | None = None, timeout: tuple | None = None
):
    """PyAV's container of what `locate` returned.

    A local file, bytes and file objects are only opened as one of the formats that hold all of their content, and with
    no protocol but that of files, so nothing is read but what was given. URLs may be playlists of streams; FFmpeg
    itself keeps those from reading files.

    Args:
        target: from `locate`; with a `format` also what that format opens.
        format: FFmpeg's name of the input format; told from the content when None.
        options: FFmpeg's options for addresses and for the `format`.
        timeout: Seconds to open an address and to wait for its data.

    Raises:
        av.error.FFmpegError: it cannot be opened; `ArgumentError` for a format that is not one of these.
    """
    av = _import_av()
    if _is_address(target):
        timeout = timeout or _NETWORK_TIMEOUT
        return av.open(target, format=format, options=options or {}, metadata_errors="ignore", timeout=timeout)
    if format is None:
        options = {"format_whitelist": _SELF_CONTAINED, "protocol_whitelist": "file"}
    return av.open(target, format=format, options=options or {}, metadata_errors="ignore")


def _is_address(target) -> bool:
    return isinstance(target, str) and "://" in target and not target.startswith("file:")


def _cannot_open(name: str, error: Exception, is_address: bool) -> str:
    if is_address:
        return f"{name} cannot be opened ({_reason(error)}). Check the address, and whether the sender runs."
    if isinstance(error, _import_av().error.ArgumentError):
        return (
            f"{name} is a playlist, a script or another file that is no video by itself. Give one video file, such as "
            "MP4, MOV, MKV, WebM or AVI."
        )
    return f"{name} cannot be opened as a video ({_reason(error)}). It is not a video, or it is damaged or cut off."


def _reason(error: Exception) -> str:
    """What FFmpeg says, in words of a person where its own are none."""
    if type(error).__name__ == "ExitError":  # its answer to a time-out
        return "no data came in time"
    return getattr(error, "strerror", None) or str(error)


def is_pyav_available() -> bool:
    """Whether PyAV can be imported."""
    try:
        _import_av()
    except ImportError:
        return False
    return True


def _import_av():
    """PyAV, imported late and under `try`, so that the package also imports where no video is ever read."""
    try:
        import av
    except ImportError as error:
        raise ImportError("Reading video needs PyAV. Install it with `pip install av`.") from error
    return av


def locate(source):
    """Checks a source and returns what a decoder opens, and a name for messages.

    Raises:
        FileNotFoundError: no such file.
        VideoDecodeError: a folder, or nothing in it.
        TypeError: no path, URL, bytes or file object.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        if len(source) == 0:
            raise VideoDecodeError("The video has 0 bytes. Give the content of a video file.")
        return io.BytesIO(source), f"The video of {len(source)} bytes"
    if hasattr(source, "read"):
        if hasattr(source, "seek"):
            source.seek(0)
        return source, f"The video {getattr(source, 'name', 'in the file object')!r}"
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(
            f"A video is a path, a URL, bytes or a binary file object; got {type(source).__name__}. "
            "Arrays and lists of frames go to the video processor."
        )
    text = os.fspath(source)
    if "://" in text and not text.startswith("file://"):
        return text, text
    path = Path(text.removeprefix("file://")).expanduser()
    if path.is_dir():
        raise VideoDecodeError(f"{path} is a folder. Give one video file.")
    if not path.exists():
        raise FileNotFoundError(f"There is no video at {path}.")
    if path.is_file() and path.stat().st_size == 0:
        raise VideoDecodeError(f"{path} is an empty file (0 bytes).")
    # "file:" keeps FFmpeg from reading a colon in a file's name as a protocol.
    return f"file:{path}", str(path)


def displayed_size(width: int, height: int, sample_aspect: float) -> tuple[int, int]:
    """(width, height) in square pixels of a stored picture, before rotation.

    As browsers and players do it, a picture is widened or heightened, so that no line of it is thrown away.

    Args:
        width: Stored pixels.
        height: Stored pixels.
        sample_aspect: Width of a stored pixel over its height; nonsense (below 0.1, above 10) is ignored.
    """
    if not 0.1 < sample_aspect < 10:
        return width, height
    if sample_aspect > 1:
        return max(1, round(width * sample_aspect)), height
    return width, max(1, round(height / sample_aspect))


def _is_cover_picture(stream) -> bool:
    """Whether a video stream is only the cover of a sound file."""
    av = _import_av()
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _filter_graph(frame, stream, name: str, arguments: str | None = None):
    """A graph of one filter for frames like this one."""
    graph = _import_av().filter.Graph()
    time_base = frame.time_base or stream.time_base
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    step, sink = graph.add(name, arguments), graph.add("buffersink")
    source.link_to(step)
    step.link_to(sink)
    graph.configure()
    return graph


def _orientation(frame, stream) -> tuple[int, bool]:
    """Quarter turns clockwise and whether the picture is mirrored (left-right) before them."""
    # Whoever asks a frame for its side data ties it into a reference cycle, pixels and converter included. A twin is
    # asked instead, which has no converter yet, and collected while it is new, which takes no time.
    graph = _filter_graph(frame, stream, "null")
    graph.push(frame)
    matrix = next((bytes(data) for data in graph.pull().side_data if data.type.name == "DISPLAYMATRIX"), None)
    gc.collect(0)
    if matrix is None:
        return 0, False
    a, b, _, c, d = struct.unpack("=9i", matrix[:36])[:5]  # 16.16 fixed point, (x', y') = (ax + cy, bx + dy)
    mirrored = a * d - b * c < 0
    if mirrored:
        a, b = -a, -b
    # FFmpeg's matrix acts on x right, y down: (a, b) is where the stored x axis points on the screen.
    turns = round(np.degrees(np.arctan2(b, a)) / 90) % 4
    return int(turns), bool(mirrored)


def _drain(graph, flush: bool = False):
    """Frames a filter graph has ready; `flush` also gives those it held back."""
    av = _import_av()
    if flush:
        graph.push(None)
    while True:
        try:
            yield graph.pull()
        except (BlockingIOError, EOFError, av.error.FFmpegError):
            return
