"""The same video through torchcodec, for installations that have it and not PyAV, or that ask for it."""

import functools
import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

from ..processing.container_kinetrack import VideoDecodeError, VideoInfo, displayed_size

logger = logging.getLogger(__name__)


class TorchCodecVideo:
    """A video opened with torchcodec; the interface is that of `PyAVVideo`.

    torchcodec applies the rotation itself. Sample aspect is applied here. It does not de-interlace: interlaced video
    is for PyAV.

    Args:
        target: Path, URL, bytes or binary file object.
        name: For messages.

    Raises:
        ImportError: torchcodec, or the FFmpeg libraries it needs, cannot be loaded.
        VideoDecodeError: not a video, or sound only.
    """

    is_live, failure = False, None

    def __init__(self, target, name: str):
        decoder_class = import_torchcodec()
        if decoder_class is None:
            raise ImportError("torchcodec cannot be loaded. `pip install torchcodec` and FFmpeg's shared libraries.")
        try:
            target = target.getvalue() if isinstance(target, io.BytesIO) else target
            target = target.removeprefix("file:") if isinstance(target, str) else target
            self.decoder = decoder_class(target, dimension_order="NHWC")
        except (RuntimeError, ValueError) as error:
            raise VideoDecodeError(f"{name} cannot be opened as a video ({error}).") from error
        self.name, self.frame_rate = name, float(self.decoder.metadata.average_fps or 25)
        self._size: tuple[int, int] | None = None
        self.report: Callable[[str], None] | None = None

    def decode(self) -> Iterator[tuple[Any, float]]:
        """Yields (decoded frame, seconds); raises `VideoDecodeError` if there is none."""
        found, warned = False, False
        for index in range(len(self.decoder)):
            try:
                frame = self.decoder.get_frame_at(index)
            except RuntimeError as error:
                if self.report is not None:
                    self.report(f"a damaged part was skipped ({error})")
                elif not warned:
                    logger.warning("%s: a damaged part was skipped (%s)", self.name, error)
                warned = True
                continue
            if not found:
                self._learn_size(frame.data)
            found = True
            yield frame.data, float(frame.pts_seconds)
        if not found:
            raise VideoDecodeError(f"{self.name} holds a video stream but not one frame could be decoded.")

    def _learn_size(self, image):
        metadata = self.decoder.metadata
        aspect = float(metadata.pixel_aspect_ratio or 1)
        height, width = image.shape[:2]
        if self._turns() % 2:  # sample aspect is that of the stored picture
            height, width = displayed_size(height, width, aspect)
        else:
            width, height = displayed_size(width, height, aspect)
        self._size = (height, width)

    def _turns(self) -> int:
        return round(-float(self.decoder.metadata.rotation or 0) / 90) % 4

    def to_rgb(self, frame) -> np.ndarray:
        """(H, W, 3) uint8 as displayed."""
        image, (height, width) = frame.numpy(), self._size
        if image.shape[:2] != (height, width):
            image = np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return np.ascontiguousarray(image)

    def picture(self, frame) -> Callable[[], np.ndarray]:
        """What makes `to_rgb` of a frame when it is called."""
        return functools.partial(self.to_rgb, frame)

    def packet_times(self) -> np.ndarray:
        """Empty: torchcodec shows the times of frames only as it decodes them."""
        return np.zeros(0)

    def seek(self, time: float):
        """Does nothing: frames are found by their number."""

    def describe(self, frame) -> VideoInfo:
        """The source's `VideoInfo`; `frame` is its first frame."""
        metadata, (height, width) = self.decoder.metadata, self._size
        return VideoInfo(
            width=width,
            height=height,
            frame_rate=self.frame_rate,
            duration=metadata.duration_seconds,
            num_frames=metadata.num_frames,
            has_audio=False,  # torchcodec's video decoder does not look
            codec=metadata.codec,
            rotation=self._turns() * 90,
        )


def import_torchcodec():
    """Torchcodec's `VideoDecoder`, or None where it is missing or finds no FFmpeg."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError):
        return None
    return VideoDecoder
