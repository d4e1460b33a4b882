"""Files of an analysis: each is written beside its place and moved there whole, all of them together or none."""

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from .container_kinetrack import locate, open_container

logger = logging.getLogger(__name__)

ANNOTATED_VIDEO = "annotated.mp4"
TRACKS = "tracks.txt"
ANALYSIS = "analysis.json"
SUMMARY = "summary.png"
RESULT_FILES = (ANNOTATED_VIDEO, TRACKS, ANALYSIS, SUMMARY)

# 90 kHz, the clock of MPEG systems: fine enough for every frame rate, and what players expect.
_TIME_BASE = Fraction(1, 90000)
_AUDIO_RATE = 48000
# Sound that browsers play from an MP4 file is copied as it is; everything else becomes AAC.
_COPIED_AUDIO = ("aac", "mp3", "opus")


class ResultFolder:
    """The results of one video. Files are staged under temporary names; `commit` puts all of them in their places.

    Leaving the `with` block without a commit, for whatever reason, removes what was staged and leaves the files of an
    earlier run as they were.

    Args:
        path: the folder; made if need be.

    Raises:
        OSError: the folder cannot be made or written to; the message names it.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._staged: dict[str, Path] = {}
        self._made: list[Path] = []

    def __enter__(self) -> "ResultFolder":
        missing = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._made = missing
            probe = self.path / f".{uuid.uuid4().hex}.partial"
            probe.touch()
            probe.unlink()
        except OSError as error:
            self.discard()
            reason = "it, or a folder above it, is a file" if isinstance(error, FileExistsError) else error.strerror
            raise type(error)(
                f"The results cannot be written to {self.path}: {reason}. Choose another folder with --output."
            ) from error
        for name in RESULT_FILES:
            if (self.path / name).is_dir():
                self.discard()
                raise IsADirectoryError(
                    f"The results cannot be written to {self.path}: {name} there is a folder. Move it away, or choose "
                    "another folder with --output."
                )
        return self

    def stage(self, name: str) -> Path:
        """Where to write the file that will be called `name`."""
        place = Path(name)
        self._staged[name] = self.path / f".{place.stem}-{uuid.uuid4().hex[:8]}.partial{place.suffix}"
        return self._staged[name]

    def commit(self) -> None:
        """Moves all staged files to their places; results of an earlier run that were not made again are removed."""
        for name, staged in self._staged.items():
            os.replace(staged, self.path / name)
        if ANALYSIS in self._staged and ANNOTATED_VIDEO not in self._staged:
            (self.path / ANNOTATED_VIDEO).unlink(missing_ok=True)  # it would belong to another analysis
        self._staged, self._made = {}, []

    def discard(self) -> None:
        """Removes what was staged, and the folders that were made for it if they are still empty."""
        for staged in self._staged.values():
            staged.unlink(missing_ok=True)
        for folder in self._made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._staged, self._made = {}, []

    def __exit__(self, *exception) -> None:
        self.discard()


def write_results(analysis, files: ResultFolder) -> None:
    """Stages `tracks.txt`, `analysis.json` and `summary.png` of a `VideoAnalysis`."""
    with open(files.stage(TRACKS), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(analysis.iter_mot())
    with open(files.stage(ANALYSIS), "w", encoding="utf-8", newline="\n") as file:
        file.writelines(analysis.iter_json())
    analysis.plot().savefig(files.stage(SUMMARY), format="png")


class VideoSink:
    """Writes frames with their own times as H.264 in MP4, playable in a browser, with the sound of the source.

    4:2:0 chroma needs even sizes, so an odd frame gets one more line or column, a copy of its last.

    Args:
        path: the file.
        height: pixels of the frames.
        width: pixels of the frames.
        frame_rate: Hz, about; the times of the frames count.
        audio_source: the video whose sound is kept (path, URL or bytes), or None.

    Raises:
        ImportError: PyAV is not installed.
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike, height: int, width: int, frame_rate: float, audio_source=None):
        av = _import_av()
        self.height, self.width = height + height % 2, width + width % 2
        self._container = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(min(max(frame_rate, 1.0), 240.0)).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height, self._stream.pix_fmt = self.width, self.height, "yuv420p"
        context = self._stream.codec_context
        context.time_base = self._stream.time_base = _TIME_BASE
        context.gop_size = max(1, round(2 * frame_rate))  # a place to jump to every two seconds
        context.color_primaries = context.color_trc = context.colorspace = 1  # BT.709
        context.color_range = 1  # limited, "MPEG"
        # A short look-ahead bounds the frames that wait in the encoder: at 1080p each is 3 MB.
        context.options = {"preset": "veryfast", "crf": "23", "rc-lookahead": "10"}
        self._reformatter = av.video.reformatter.VideoReformatter()  # one scaler for all frames
        self._last_pts = -1
        self._step = max(1, round(90000 / rate))
        self._audio = _AudioTrack(audio_source, self._container) if audio_source is not None else None

    def write(self, frame: np.ndarray, time: float) -> None:
        """Adds a frame.

        Args:
            frame: (height, width, 3) uint8 RGB.
            time: seconds, later than the last frame's.
        """
        av = _import_av()
        height, width = frame.shape[:2]
        if (height, width) != (self.height, self.width):
            if not 0 <= self.height - height <= 1 or not 0 <= self.width - width <= 1:
                frame = _letterbox(frame, self.height, self.width)
            else:
                frame = np.pad(frame, ((0, self.height - height), (0, self.width - width), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = self._reformatter.reformat(picture, format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        pts = max(round(time / _TIME_BASE), self._last_pts + 1)
        if self._last_pts >= 0:
            self._step = pts - self._last_pts
        picture.pts, picture.time_base, self._last_pts = pts, _TIME_BASE, pts
        if self._audio is not None:
            self._audio.copy_until(time)
        self._mux(self._stream.encode(picture))

    def close(self) -> None:
        """Writes what is left; the file is complete after this."""
        if self._container is None:
            return
        if self._audio is not None:
            self._audio.copy_until(float((self._last_pts + self._step) * _TIME_BASE))
            self._audio.close()
        self._mux(self._stream.encode(None))
        self._container.close()
        self._container = None

    def abort(self) -> None:
        """Stops; the file is not usable and has to be removed."""
        if self._container is not None:
            if self._audio is not None:
                self._audio.close(flush=False)
            with contextlib.suppress(Exception):  # a disk that is full also fails here
                self._container.close()
            self._container = None

    def _mux(self, packets) -> None:
        for packet in packets:
            if not packet.duration:
                packet.duration = self._step  # the last one has no successor that tells
            self._container.mux(packet)

    def __enter__(self) -> "VideoSink":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _AudioTrack:
    """The sound of a source, carried over packet by packet as the pictures move on."""

    def __init__(self, source, container):
        self._output = container
        self._input = self._packets = self._stream = self._resampler = None
        self._pending = self._last = None
        av = _import_av()
        try:
            self._input = open_container(locate(source)[0])
            if not self._input.streams.audio:
                self.close(flush=False)
                return
            sound = self._input.streams.audio[0]
            self._origin = (self._input.start_time or 0) / 1e6
            if sound.codec_context.name.startswith(_COPIED_AUDIO):
                self._stream = container.add_stream_from_template(sound)
            else:
                layout = "mono" if sound.codec_context.layout.nb_channels == 1 else "stereo"
                self._stream = container.add_stream("aac", rate=_AUDIO_RATE, layout=layout)
                self._resampler = av.AudioResampler("fltp", layout, _AUDIO_RATE)
            self._packets = self._input.demux(sound)
        except (av.error.FFmpegError, OSError, ValueError):
            self.close(flush=False)  # sound that cannot be read is no reason to lose the pictures

    def copy_until(self, time: float) -> None:
        """Carries over everything up to a time in seconds."""
        av = _import_av()
        for packet in self._read():
            if self._start_of(packet) >= time:
                self._pending = packet
                return
            try:
                for ready in self._convert(packet):
                    self._output.mux(ready)
            except av.error.FFmpegError as error:
                logger.warning("The sound ends at %.1f s: what follows cannot be written (%s).", time, error)
                self.close(flush=False)
                return

    def _start_of(self, packet) -> float:
        """Seconds at which a packet is heard; they go on where the clock jumps back, as those of pictures do."""
        start = float(packet.pts * packet.time_base) - self._origin
        if self._last is not None and start < self._last:
            shift = self._last + float((packet.duration or 0) * packet.time_base) - start
            self._origin -= shift
            start += shift
        self._last = start
        return start

    def _read(self) -> Iterator:
        av = _import_av()
        while self._packets is not None:
            packet, self._pending = self._pending, None
            try:
                packet = next(self._packets) if packet is None else packet
            except (StopIteration, av.error.FFmpegError):
                self._packets = None
                return
            if packet.size and packet.pts is not None:
                yield packet

    def _convert(self, packet) -> Iterator:
        av = _import_av()
        if self._resampler is None:
            shift = round(self._origin / packet.time_base)
            packet.pts -= shift
            if packet.dts is not None:
                packet.dts -= shift
            packet.stream = self._stream
            yield packet
            return
        with contextlib.suppress(av.error.FFmpegError):  # damaged sound is left out
            for frame in packet.decode():
                for piece in self._resampler.resample(frame):
                    piece.pts = round(piece.time * _AUDIO_RATE - self._origin * _AUDIO_RATE)
                    piece.time_base = Fraction(1, _AUDIO_RATE)
                    yield from self._stream.encode(piece)

    def close(self, flush: bool = True) -> None:
        """Ends the sound; `flush` writes what the encoder still holds."""
        if flush and self._resampler is not None:
            for packet in self._stream.encode(None):
                self._output.mux(packet)
        self._packets = self._resampler = None
        if self._input is not None:
            self._input.close()
            self._input = None


def _letterbox(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame of another size, scaled into (height, width) on black."""
    from PIL import Image

    scale = min(height / frame.shape[0], width / frame.shape[1])
    size = (max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale)))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(Image.fromarray(frame).resize(size), ((width - size[0]) // 2, (height - size[1]) // 2))
    return np.asarray(canvas)


def _import_av():
    try:
        import av
    except ImportError as error:
        raise ImportError(
            "Writing video needs PyAV. Install it with `pip install av`, or leave the video out with --no-video."
        ) from error
    return av
