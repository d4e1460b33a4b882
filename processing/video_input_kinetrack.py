"""Whatever a person calls a video, as frames with times: files, URLs, bytes, arrays, tensors, images, image paths."""

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..processing.decoding_kinetrack import (
    VideoFrame,
    VideoInfo,
    iter_clip_frames,
    iter_video_frames,
    probe_video,
    select_frames,
)

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_CHANNELS = (1, 3, 4)
_KINDS = (
    "a path, URL, bytes or binary file object of a video; an array or tensor (T, H, W, C) or (T, C, H, W); "
    "a list of PIL images, of arrays (H, W, C) or of paths of images; or a list of any of these"
)


@dataclass
class VideoSource:
    """One video: either something to decode, or frames already in memory or in image files.

    Attributes:
        encoded: Path, URL, bytes or file object that `iter_video_frames` takes, or None.
        frames: T items: arrays, tensors, PIL images, `VideoFrame`s or paths of images; None for encoded video.
        unit_range: Whether floating-point frames run from 0 to 1, not to 255.
        channel_first: Whether array frames are (C, H, W), not (H, W, C).
    """

    encoded: Any = None
    frames: Any = None
    unit_range: bool = False
    channel_first: bool = False

    def info(self) -> VideoInfo | None:
        """What an encoded source says of itself; None for frames, which say nothing."""
        return None if self.encoded is None else probe_video(self.encoded)

    def read(self, times=None, frame_rate: float | None = None, num_frames: int | None = None) -> Iterator[VideoFrame]:
        """Yields the frames, all or those chosen by their times (see `select_frames`), one at a time.

        Args:
            times: (T,) seconds of frames in memory; an encoded video knows its own.
            frame_rate: Hz of the choice, or None.
            num_frames: Most frames chosen, or None.

        Raises:
            ValueError: frames that are not pictures, not finite, out of range, or of several sizes.
            FileNotFoundError: no such video or image.
        """
        if self.encoded is not None:
            if num_frames is None:
                yield from iter_video_frames(self.encoded, frame_rate=frame_rate)
            else:
                yield from iter_clip_frames(self.encoded, num_frames, frame_rate)
            return
        first_shape = None
        for index in select_frames(times, frame_rate, num_frames).tolist():
            image = self._image(index)
            first_shape = first_shape or image.shape
            if image.shape != first_shape:
                raise ValueError(
                    f"The frames of one video must have one size: frame {index} is {image.shape[0]}x{image.shape[1]} "
                    f"(height x width), the first one {first_shape[0]}x{first_shape[1]}. "
                    "Videos of different sizes go into a list of videos."
                )
            yield VideoFrame(image, float(times[index]), index)

    def _image(self, index: int) -> np.ndarray:
        frame = self.frames[index]
        if isinstance(frame, VideoFrame):
            return frame.image
        if isinstance(frame, (str, os.PathLike)):
            frame = open_image(frame)
        return rgb_frame(frame, index, unit_range=self.unit_range, channel_first=self.channel_first)


def list_videos(videos, channel_format: str | None = None) -> list[VideoSource]:
    """Sorts an input into videos. A flat list of pictures is one video; any other list is a batch.

    Args:
        videos: One video or a (nested) list of videos.
        channel_format: `"channels_first"`, `"channels_last"`, or None to tell from the shape.

    Raises:
        TypeError: something that is no video.
        ValueError: an empty list, or an array with a shape no video has.
    """
    if isinstance(videos, Mapping) and ("bytes" in videos or "path" in videos):  # a row of a `datasets` Video column
        return [VideoSource(encoded=videos.get("bytes") or videos.get("path"))]
    if is_image_path(videos) or isinstance(videos, (Image.Image, VideoFrame)):
        return [VideoSource(frames=[videos])]
    if isinstance(videos, (str, os.PathLike, bytes, bytearray, memoryview)) or hasattr(videos, "read"):
        return [VideoSource(encoded=videos)]
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        if videos.ndim == 5:
            return [_from_array(video, channel_format) for video in videos]
        return [_from_array(videos, channel_format)]
    if not isinstance(videos, (list, tuple)):
        raise TypeError(f"A video is {_KINDS}. Got {type(videos).__name__}.")
    if len(videos) == 0:
        raise ValueError(f"The list of videos or frames is empty. Give {_KINDS}.")
    if all(is_picture(item) for item in videos):
        return [_from_frames(list(videos), channel_format)]
    return [video for item in videos for video in list_videos(item, channel_format)]


def rgb_frame(
    frame, index: int = 0, *, unit_range: bool | None = None, channel_first: bool | None = None
) -> np.ndarray:
    """One picture as (H, W, 3) uint8 RGB; gray is repeated, an alpha channel is dropped.

    Args:
        frame: A PIL image, or an array or tensor (H, W), (H, W, C) or (C, H, W) with C 1, 3 or 4: uint8,
            other integers, or floats from 0 to 1 or from 0 to 255.
        index: Its number, for messages.
        unit_range: Floating-point values run from 0 to 1, not to 255. None: as the frame's own values say.
        channel_first: Order of the axes. None: as the shape says.

    Raises:
        TypeError: neither an array nor an image.
        ValueError: values that are not finite or out of range, or a shape that is no picture.
    """
    if isinstance(frame, Image.Image):
        if frame.mode not in ("F", "I"):
            return _from_pil(frame)
        frame = np.asarray(frame)  # (H, W) of floats or whole numbers, which PIL would cut off at 0 and 255
        unit_range = None
    if isinstance(frame, torch.Tensor):
        frame = frame.detach().cpu()
    elif not isinstance(frame, np.ndarray):
        raise TypeError(f"Frame {index} is a {type(frame).__name__}. Expected an array, a tensor or a PIL image.")
    if frame.ndim not in (2, 3):
        raise ValueError(f"Frame {index} has the shape {tuple(frame.shape)}. Expected (H, W, C) or (C, H, W).")
    if channel_first is None:
        channel_first = frame.ndim == 3 and _is_channel_first(frame, None)
    if isinstance(frame, torch.Tensor):
        frame = (frame.float() if frame.dtype == torch.bfloat16 else frame).numpy()
    if frame.ndim == 2:
        frame = frame[..., None]
    elif channel_first:
        frame = np.moveaxis(frame, 0, -1)  # (H, W, C)
    height, width, channels = frame.shape
    if channels not in _CHANNELS or height == 0 or width == 0:
        raise ValueError(
            f"Frame {index} has {height}x{width} pixels (height x width) and {channels} channels. Expected at least "
            "one pixel and 1 (gray), 3 (RGB) or 4 (RGBA) channels; the axes can be named with `input_data_format`."
        )
    frame = frame[..., :3]
    if frame.dtype != np.uint8:
        frame = _to_uint8(frame, index, _is_unit_range([frame]) if unit_range is None else unit_range)
    return np.ascontiguousarray(frame if frame.shape[-1] == 3 else np.repeat(frame, 3, axis=-1))


def _to_uint8(array: np.ndarray, index: int, unit_range: bool) -> np.ndarray:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"Frame {index} holds values that are not finite (NaN or infinity). Repair or leave it out.")
    limit = 1 if unit_range else 255
    if low < -1e-3 * limit or high > limit * (1 + 1e-3):
        raise ValueError(
            f"Frame {index} has values from {low} to {high}. Expected 0 to 255, or 0 to 1 for a whole video of "
            "floating-point frames; undo any normalisation, the processor does its own."
        )
    scaled = array.astype(np.float32) * (255 if unit_range else 1)
    return scaled.round().clip(0, 255).astype(np.uint8)


def _from_array(video, channel_format: str | None) -> VideoSource:
    if video.ndim in (2, 3):  # one picture
        return _from_frames([video], channel_format)
    if video.ndim != 4:
        raise ValueError(
            f"An array of shape {tuple(video.shape)} is no video. Expected (T, H, W, C), (T, C, H, W), one picture "
            "(H, W, C), or a batch with one axis more; a gray video is (T, H, W, 1)."
        )
    return _from_frames(video, channel_format)


def _from_frames(frames, channel_format: str | None) -> VideoSource:
    if len(frames) == 0:
        raise ValueError(f"The video of shape {tuple(frames.shape)} has no frames. Give at least one.")
    arrays = [frame for frame in frames if isinstance(frame, (np.ndarray, torch.Tensor))]
    channel_first = bool(arrays) and arrays[0].ndim == 3 and _is_channel_first(arrays[0], channel_format)
    return VideoSource(frames=frames, unit_range=_is_unit_range(arrays), channel_first=channel_first)


def _is_channel_first(frame, channel_format: str | None) -> bool:
    if channel_format is not None:
        return str(getattr(channel_format, "value", channel_format)) == "channels_first"
    first, last = frame.shape[0] in _CHANNELS, frame.shape[-1] in _CHANNELS
    if not first and not last:
        raise ValueError(
            f"A frame of shape {tuple(frame.shape)} has no axis of 1, 3 or 4 channels, first or last. Expected "
            "(H, W, C) or (C, H, W) with gray, RGB or RGBA channels."
        )
    # Both fit only for pictures a few pixels wide; then each library's own habit decides.
    return first and (not last or isinstance(frame, torch.Tensor))


def _is_unit_range(arrays) -> bool:
    """Whether all floating-point frames stay within 0 to 1; frames that are not finite are reported later."""
    floats = [a for a in arrays if (a.is_floating_point() if isinstance(a, torch.Tensor) else a.dtype.kind == "f")]
    return bool(floats) and all(float(a.max()) <= 1 + 1e-3 for a in floats if 0 not in a.shape)


def is_picture(item) -> bool:
    """Whether an item of a list is one frame, so that a flat list of such items is one video."""
    if isinstance(item, (np.ndarray, torch.Tensor)):
        return item.ndim in (2, 3)
    return isinstance(item, (Image.Image, VideoFrame)) or is_image_path(item)


def is_image_path(item) -> bool:
    """Whether something is the path or address of an image, by its suffix."""
    if not isinstance(item, (str, os.PathLike)):
        return False
    return os.fspath(item).split("?")[0].lower().endswith(_IMAGE_SUFFIXES)


def open_image(path) -> Image.Image:
    """Reads an image from a path or address, turned as it is displayed.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no image.
    """
    text = os.fspath(path)
    if "://" in text and not text.startswith("file://"):
        from transformers.image_utils import load_image

        return load_image(text)
    file = Path(text.removeprefix("file://")).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"There is no image at {file}.")
    try:
        image = Image.open(io.BytesIO(file.read_bytes()))
        image.load()
        # A camera's orientation tag is part of how the picture is displayed.
        return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # a broken PNG is a SyntaxError to Pillow
        raise ValueError(f"{file} cannot be read as an image ({error}).") from error


def _from_pil(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):  # 16-bit gray: PIL would clip it at 255
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))
