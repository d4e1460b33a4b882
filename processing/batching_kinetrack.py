"""From videos of any lengths and sizes to one batch: clips, their clocks, and the tensors they are packed into."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from transformers.video_utils import VideoMetadata

from ..processing.decoding_kinetrack import VideoFrame, probe_video
from ..processing.video_input_kinetrack import VideoSource


@dataclass
class KineTrackVideoMetadata(VideoMetadata):
    """`VideoMetadata` whose times are those of the stream, also when the frame rate varies.

    Attributes:
        times: Seconds of the frames in `frames_indices`.
    """

    total_num_frames: int | None = None
    times: list[float] | None = None

    @property
    def timestamps(self) -> list[float]:
        """Seconds of the frames kept."""
        return super().timestamps if self.times is None else self.times


@dataclass
class Clip:
    """The frames kept of one video, already at their size on the canvas."""

    source: VideoSource
    pictures: list[torch.Tensor] = field(default_factory=list)  # T x (h, w, 3) uint8
    times: list[float] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    height: int = 0
    width: int = 0

    def append(self, picture: torch.Tensor, frame: VideoFrame):
        """Keeps a frame: `picture` (h, w, 3) uint8 is what remains of it on the canvas."""
        self.pictures.append(picture)
        self.times.append(frame.time)
        self.indices.append(frame.index)
        self.height, self.width = frame.image.shape[:2]

    def describe(self, known: KineTrackVideoMetadata) -> KineTrackVideoMetadata:
        """The clip's metadata; `known` is what the caller said of it."""
        info = None if self.source.encoded is None else probe_video(self.source.encoded)
        if info is None:
            total = len(self.source.frames)
        else:
            total = info.num_frames or max(self.indices[-1] + 1, round((info.duration or 0) * info.frame_rate))
        return KineTrackVideoMetadata(
            total_num_frames=known.total_num_frames or total,
            fps=known.fps if info is None else info.frame_rate,
            width=self.width,
            height=self.height,
            duration=known.duration if info is None else info.duration,
            video_backend=None if info is None else "pyav",
            frames_indices=self.indices,
            times=self.times,
        )


def pack_clips(clips: list[Clip], canvas: tuple[int, int], num_frames: int | None, options: Mapping) -> dict:
    """The clips in one batch, each at the top left of its canvas and at the start of its row."""
    length = max(num_frames or 1, *(len(clip.pictures) for clip in clips))
    pixels = torch.zeros(len(clips), length, 3, *canvas)
    frame_mask = torch.zeros(len(clips), length, dtype=torch.bool)
    pixel_mask = torch.zeros(len(clips), *canvas, dtype=torch.bool)
    for index, clip in enumerate(clips):
        affine = pixel_affine(options, clip.source.unit_range)
        for number, picture in enumerate(clip.pictures):
            place_picture(picture, pixels[index, number], *affine)
        frame_mask[index, : len(clip.pictures)] = True
        height, width = clip.pictures[0].shape[:2]
        pixel_mask[index, :height, :width] = True
    return {"pixel_values_videos": pixels, "frame_mask": frame_mask, "pixel_mask": pixel_mask}


def pixel_affine(options: Mapping, unit_range: bool = False):
    """(factor, shift) with which 8-bit values become `values * factor - shift`: numbers, or (3, 1, 1) by channel."""
    # Frames given as 0..1 were brought to 0..255 on the way in; without rescaling they must come out as they were.
    factor = options["rescale_factor"] if options["do_rescale"] else (1 / 255 if unit_range else 1.0)
    mean, std = (options["image_mean"], options["image_std"]) if options["do_normalize"] else (0.0, 1.0)
    mean, std = np.broadcast_to(mean, 3).astype(np.float64), np.broadcast_to(std, 3).astype(np.float64)
    factors, shifts = factor / std, mean / std
    if len(set(factors)) == 1 and len(set(shifts)) == 1:
        return float(factors[0]), float(shifts[0])
    return tuple(torch.tensor(values, dtype=torch.float32)[:, None, None] for values in (factors, shifts))


def place_picture(picture: torch.Tensor, target: torch.Tensor, factor, shift):
    """Writes a (h, w, 3) uint8 picture, normalised, to the top left of a (3, H, W) float32 canvas of zeros."""
    height, width = picture.shape[:2]
    target = target[:, :height, :width]
    target.copy_(picture.permute(2, 0, 1)).mul_(factor).sub_(shift)


def metadata_of(sources: list, given) -> list[KineTrackVideoMetadata]:
    """One metadata a video, empty where none was given."""
    if given is None:
        return [KineTrackVideoMetadata() for _ in sources]
    given = [given] if isinstance(given, Mapping) else [m for g in given for m in (g if isinstance(g, list) else [g])]
    if len(given) != len(sources):
        raise ValueError(f"There are {len(sources)} videos and {len(given)} `video_metadata`; give one per video.")
    names = {f.name for f in fields(KineTrackVideoMetadata)}
    return [KineTrackVideoMetadata(**{name: m[name] for name in m if name in names}) for m in given]


def frame_times(frames, known: KineTrackVideoMetadata, frame_rate: float | None) -> np.ndarray:
    """(T,) seconds of frames in memory: those given, the frames' own, or equal steps.

    Args:
        frames: T items; `VideoFrame`s know their times.
        known: What the caller says of them: `times`, or `fps` and perhaps `frames_indices`.
        frame_rate: Hz of frames of which nothing is known; None refuses them.

    Raises:
        ValueError: times that do not rise or are not one a frame, or nothing is known.
    """
    if known.times is not None:
        times = np.asarray(known.times, dtype=np.float64)
        if len(times) != len(frames) or (np.diff(times) <= 0).any():
            raise ValueError(f"`times` must be {len(frames)} rising numbers, one a frame, got {len(times)}.")
        return times
    if isinstance(frames, list) and all(isinstance(frame, VideoFrame) for frame in frames):
        return np.array([frame.time for frame in frames])
    rate = known.fps or frame_rate
    if not rate:
        raise ValueError(
            "`fps` chooses frames by their times, and nothing says when these frames were taken. Give "
            "`video_metadata` with their `fps` or `times`, one a video, or leave `fps` out."
        )
    numbers = known.frames_indices
    if numbers is None or len(numbers) != len(frames):
        numbers = np.arange(len(frames))
    return np.asarray(numbers, dtype=np.float64) / rate
