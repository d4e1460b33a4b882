"""What a clip looks like to the model: which moments, which part of the picture, which colours.

Everything is drawn once a clip and applied to all of its frames and boxes alike. The pixel work is one antialiased
resize of the chosen window and one affine map of the colours: brightness, contrast, saturation, hue, grey and the
normalisation are all affine in RGB, so their product is a single 3x3 matrix with an offset.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torchvision.transforms.v2 import functional as transforms

_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])
_RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class ClipForm:
    """How clips are cut and varied. Sizes are in pixels, rates in frames a second.

    Attributes:
        num_frames: Frames in a clip.
        canvas: `(height, width)` of the model input, multiples of 32.
        frame_rate: Sampling rates, drawn log-uniformly; raised where a video is too short for the drawn one. In
            evaluation the geometric mean of the two; give both alike to choose it.
        scale: Size relative to the video's own, drawn log-uniformly.
        fit: Multiplies the scale by what brings a larger video down to about the canvas.
        focus: Probability of a window that holds a labelled box; else anywhere.
        flip: Probability of mirroring.
        brightness, contrast, saturation: Largest relative change.
        hue: Largest turn, as a share of the full circle.
        grayscale: Probability of dropping colour.
        reverse: Probability of playing backwards. No for actions: sitting down is not standing up.
        mosaic: Probability of four clips in one, each in a quarter of the canvas and at half the scale.
        walkers: Probability of speaking of somebody who walks, in clips of tracked people.
        backdrop: Probability of putting a still of another clip behind the actor.
        min_visible: Boxes of which less than this share of the area lies in the window are ignored.
        min_size: So are boxes lower or narrower than this after scaling.
        image_mean, image_std: Normalisation, of pixels in 0..1.
    """

    num_frames: int = 8
    canvas: tuple[int, int] = (288, 512)
    frame_rate: tuple[float, float] = (6.0, 30.0)
    scale: tuple[float, float] = (0.4, 1.6)
    fit: bool = False
    focus: float = 0.8
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.3
    hue: float = 0.03
    grayscale: float = 0.05
    reverse: float = 0.0
    mosaic: float = 0.0
    walkers: float = 0.0
    backdrop: float = 0.0
    min_visible: float = 0.25
    min_size: float = 4.0
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    _multiple: ClassVar[int] = 32

    def __post_init__(self):
        if any(side % self._multiple or side <= 0 for side in self.canvas):
            raise ValueError(f"canvas={self.canvas}: height and width must be multiples of {self._multiple}.")
        if self.num_frames < 1:
            raise ValueError(f"num_frames={self.num_frames}: a clip needs at least one frame.")
        for name in ("frame_rate", "scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name}={(low, high)}: expected (low, high) with 0 < low <= high.")

    def quarter(self) -> "ClipForm":
        """The form of one of the four clips of a mosaic."""
        half = {"canvas": tuple(side // 2 for side in self.canvas), "scale": tuple(size / 2 for size in self.scale)}
        return _QuarterForm(**(vars(self) | half | {"mosaic": 0.0}))


class _QuarterForm(ClipForm):
    """No model sees a quarter alone: its sides need not be multiples of 32."""

    _multiple = 16


@dataclass(frozen=True)
class Window:
    """A part of the picture and where it goes: `(left, top, right, bottom)` of the frame, resized to `size`.

    Attributes:
        source: Corners in pixels of the frame, whole numbers.
        size: `(height, width)` of the content on the canvas, whose origin is the canvas's.
        flip: Mirrored left to right.
    """

    source: tuple[int, int, int, int]
    size: tuple[int, int]
    flip: bool = False

    def map_boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """Takes `(N, 4)` corners from pixels of the frame to pixels of the canvas, unclipped."""
        left, top, right, bottom = self.source
        factor = (self.size[1] / (right - left), self.size[0] / (bottom - top))
        moved = (xyxy - np.array([left, top, left, top], np.float32)) * np.array(factor * 2, np.float32)
        if self.flip:
            moved = moved[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1], np.float32) + np.array(
                [self.size[1], 0, self.size[1], 0], np.float32
            )
        return moved.astype(np.float32)

    def map_points(self, points: np.ndarray) -> np.ndarray:
        """Takes `(..., 3)` points and weights to the canvas; beyond the content they weigh nothing.

        Which point is left and which is right is not changed by mirroring; see `keypoints.MIRRORED`.
        """
        corners = np.repeat(points[..., :2].reshape(-1, 2), 2, axis=0).reshape(-1, 4)  # (N, 4): x, y, x, y
        moved = self.map_boxes(corners)[:, :2].reshape(*points.shape[:-1], 2)
        inside = (moved >= 0).all(-1) & (moved < np.array([self.size[1], self.size[0]])).all(-1)
        return np.concatenate([moved, (points[..., 2] * inside)[..., None]], axis=-1).astype(np.float32)

    def visible_share(self, xyxy: np.ndarray) -> np.ndarray:
        """Share of the area of `(N, 4)` boxes on the canvas that lies within the content, 0..1."""
        limit = np.array([self.size[1], self.size[0]], np.float32)
        inside = (np.clip(xyxy[:, 2:], 0, limit) - np.clip(xyxy[:, :2], 0, limit)).prod(-1)
        return inside / np.maximum((xyxy[:, 2:] - xyxy[:, :2]).prod(-1), 1e-6)


def draw_frames(
    form: ClipForm, rng: np.random.Generator, first: int, stop: int, frame_rate: float, anchor: int | None = None
) -> np.ndarray:
    """Draws the moments of a training clip.

    Args:
        form: Number of frames and range of sampling rates.
        rng: Source of chance.
        first: First frame the clip may use.
        stop: One beyond the last.
        frame_rate: Of the video.
        anchor: A frame the clip shall span; None for any.

    Returns:
        Frame numbers, `num_frames` of them or fewer when the video has fewer at its own rate.
    """
    low, high = np.log(form.frame_rate)
    rate = math.exp(rng.uniform(low, high))
    available = stop - first
    if available > 1:
        rate = max(rate, (form.num_frames - 1) * frame_rate / (available - 1))
    rate = min(rate, frame_rate)
    offsets = np.arange(form.num_frames) * (frame_rate / rate)
    offsets = offsets[offsets < available - 0.5]
    span = offsets[-1]
    earliest, latest = float(first), max(float(first), stop - 1 - span)
    if anchor is not None:
        earliest, latest = max(earliest, min(anchor - span, latest)), max(earliest, min(anchor, latest))
    start = rng.uniform(earliest, latest)
    frames = np.clip(np.rint(start + offsets), first, stop - 1).astype(int)
    return frames[::-1].copy() if rng.random() < form.reverse else frames


def centred_frames(form: ClipForm, first: int, stop: int, frame_rate: float, centre: float | None = None) -> np.ndarray:
    """The moments of an evaluation clip: evenly at the given rate about `centre` (default: the middle).

    Returns:
        Frame numbers, fewer than `num_frames` when the video is shorter than the clip.
    """
    rate = min(math.sqrt(form.frame_rate[0] * form.frame_rate[1]), frame_rate)
    step = frame_rate / rate
    count = min(form.num_frames, int((stop - 1 - first) / step + 1e-6) + 1)
    span = (count - 1) * step
    start = (first + stop - 1 - span) / 2 if centre is None else centre - span / 2
    start = min(max(start, first), stop - 1 - span)
    return np.clip(np.floor(start + np.arange(count) * step + 0.5), first, stop - 1).astype(int)


def draw_window(
    form: ClipForm, rng: np.random.Generator, height: int, width: int, focus: np.ndarray | None = None
) -> Window:
    """Draws scale, place and mirroring of a training clip.

    Args:
        form: Canvas and ranges.
        rng: Source of chance.
        height: Of the frame.
        width: Of the frame.
        focus: `(4,)` corners that the window shall hold as far as it is large enough; None for any place.
    """
    rows, columns = form.canvas
    scale = math.exp(rng.uniform(*np.log(form.scale)))
    if form.fit:
        scale *= min(1.0, 1.1 * math.sqrt(rows / height * columns / width))
    corners, size = [], []
    for side, canvas, axis in ((width, columns, 0), (height, rows, 1)):
        extent = min(side, max(1, round(canvas / scale)))
        low, high = 0.0, float(side - extent)
        if focus is not None:
            begin, end = np.clip(focus[[axis, axis + 2]], 0, side)
            if end - begin <= extent:  # the whole of it fits
                low, high = max(low, end - extent), min(high, begin)
            else:  # the window lies within it
                low, high = max(low, begin), min(high, end - extent)
        place = round(rng.uniform(low, max(low, high)))
        corners.append((place, place + extent))
        size.append(min(canvas, max(1, round(extent * scale))) if extent == side else canvas)
    (left, right), (top, bottom) = corners
    return Window((left, top, right, bottom), (size[1], size[0]), bool(rng.random() < form.flip))


def whole_window(form: ClipForm, height: int, width: int) -> Window:
    """The whole frame within the canvas, aspect kept, never enlarged: what the video processor makes of it."""
    scale = min(1.0, form.canvas[0] / height, form.canvas[1] / width)
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return Window((0, 0, width, height), (min(size[0], form.canvas[0]), min(size[1], form.canvas[1])))


def draw_colours(form: ClipForm, rng: np.random.Generator, mean_luminance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws a change of colours as `(3, 3)` matrix and `(3,)` offset for RGB in 0..1.

    Args:
        form: Ranges.
        rng: Source of chance.
        mean_luminance: Of the clip, 0..1: contrast turns about it.
    """
    brightness, contrast, saturation = (
        1 + rng.uniform(-amount, amount) for amount in (form.brightness, form.contrast, form.saturation)
    )
    turn = 2 * math.pi * rng.uniform(-form.hue, form.hue)
    if rng.random() < form.grayscale:
        saturation = 0.0
    rotation = torch.eye(3)
    rotation[1:, 1:] = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    hue = torch.linalg.solve(_RGB_TO_YIQ, rotation @ _RGB_TO_YIQ)
    grey = _LUMINANCE.expand(3, 3)
    matrix = (saturation * torch.eye(3) + (1 - saturation) * grey) @ hue * (contrast * brightness)
    return matrix, torch.full((3,), (1 - contrast) * brightness * mean_luminance)


def render(
    form: ClipForm, frames: np.ndarray, window: Window, rng: np.random.Generator | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resizes, colours and normalises a window of frames and lays it on the canvas.

    Args:
        form: Canvas, colour ranges and normalisation.
        frames: `uint8` `(t, h, w, 3)`, already cut to `window.source`.
        window: Where they go.
        rng: Source of chance for the colours; None leaves them as they are.

    Returns:
        `float32` `(num_frames, 3, H, W)`, zero outside the content and in missing frames, and `bool` `(H, W)`, true on
        the content.
    """
    clip = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (t, 3, h, w), channels last in memory: the fast resize
    if tuple(clip.shape[-2:]) != window.size:
        clip = transforms.resize(clip, list(window.size), antialias=True)
    if window.flip:
        clip = clip.flip(-1)
    clip = clip.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    mean, std = torch.tensor(form.image_mean), torch.tensor(form.image_std)
    if rng is not None:
        luminance = float(clip[:, :, ::8, ::8].mean((0, 2, 3)) @ _LUMINANCE)
        matrix, offset = draw_colours(form, rng, luminance)
        clip = torch.baddbmm(offset[None, :, None], matrix.expand(len(clip), 3, 3), clip.flatten(2)).view(clip.shape)
        clip = clip.clamp_(0, 1)
    pixels = torch.zeros(form.num_frames, 3, *form.canvas)
    height, width = window.size
    torch.sub(clip, mean[:, None, None], out=clip).div_(std[:, None, None])
    pixels[: len(clip), :, :height, :width] = clip
    mask = torch.zeros(form.canvas, dtype=torch.bool)
    mask[:height, :width] = True
    return pixels, mask
