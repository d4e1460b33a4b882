"""Batches for both tasks from the cached output of an encoder's frozen stages: labelled clips, and tracked people."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ..atomic_files import atomic_path
from ..data.augmentation import ClipForm, Window
from ..data.clips import ClipSource, frame_labels
from ..evaluation_items import Sequence, sequence_frames
from .clip_training import spread_frames
from .features import ClipFeatures, FrozenEncoder, content_key

_FORM = ClipForm()  # of which only the rules about boxes that are hardly seen are used
_BATCH = 8
_RATES = (5.0, 15.0)  # frames a second
_MIRROR = np.array([-1, 1, -1, 1])
_FOCUS = 0.8  # share of windows that hold somebody


@dataclass(frozen=True)
class Batch:
    """What one step learns one task from.

    Attributes:
        fine: `(B * T, 40, H / 8, W / 8)`, where the frozen stages left their stride-8 map.
        middle: `(B * T, 112, H / 16, W / 16)`.
        length: T.
        arguments: labels for the model's forward pass.
    """

    fine: torch.Tensor
    middle: torch.Tensor
    length: int
    arguments: dict

    @property
    def blank(self) -> torch.Tensor:
        """Pixels `(B, T, 3, H, W)` that take no memory, for a model whose backbone does not look at them."""
        height, width = (8 * side for side in self.fine.shape[-2:])
        return torch.zeros(1, 1, 1, 1, 1).expand(len(self.fine) // self.length, self.length, 3, height, width)


class ActionBatches:
    """Labelled clips in random order, each once before any comes again.

    Args:
        clips: with the maps at strides 8 and 16.
        batch_size: clips a batch.
        frames: of a clip.
        seed: of order, frames and mirroring.
        with_actors: whether the actors' boxes are taught, as `kinetrack train` teaches them.
    """

    def __init__(self, clips: list[ClipFeatures], batch_size: int, frames: int, seed: int, with_actors: bool = False):
        self.clips, self.batch_size, self.with_actors = clips, batch_size, with_actors
        self._rng, self._order = np.random.default_rng((seed, 1)), []
        self._choose = spread_frames(frames)

    def draw(self) -> Batch:
        """The next batch."""
        while len(self._order) < self.batch_size:
            self._order += self._rng.permutation(len(self.clips)).tolist()
        chosen, self._order = self._order[: self.batch_size], self._order[self.batch_size :]
        rng = self._rng
        flip = rng.random(len(chosen)) < 0.5
        return clip_batch([self.clips[n] for n in chosen], self._choose, rng, flip, self.with_actors)


def clip_batch(
    clips: list[ClipFeatures],
    choose: Callable[[int, np.random.Generator | None], np.ndarray],
    rng: np.random.Generator | None = None,
    flip: np.ndarray | None = None,
    with_actors: bool = False,
) -> Batch:
    """Clips side by side.

    Args:
        clips: with the maps at strides 8 and 16.
        choose: see `clip_training.FrameChoice`.
        rng: for `choose`.
        flip: `(B,)` bool, which clips are mirrored; None: none.
        with_actors: whether the arguments have the actors' boxes.
    """
    frames = [choose(len(clip.middle), rng) for clip in clips]
    maps = []
    for name in ("middle", "coarse"):  # of `ClipFeatures`: the first and the second map
        parts = [torch.from_numpy(getattr(clip, name)[rows]) for clip, rows in zip(clips, frames, strict=True)]
        for number in np.flatnonzero(flip) if flip is not None else ():
            parts[number] = parts[number].flip(-1)
        maps.append(torch.cat(parts).float())
    arguments = {"labels": torch.tensor([clip.label for clip in clips])}
    if with_actors:
        boxes = np.stack([clip.actor[rows] for clip, rows in zip(clips, frames, strict=True)])  # (B, T, 4)
        if flip is not None:
            boxes[flip] = 8 * maps[0].shape[-1] * np.array([1, 0, 1, 0]) + boxes[flip][..., [2, 1, 0, 3]] * _MIRROR
        arguments["region_boxes"] = torch.from_numpy(boxes)
    return Batch(*maps, len(frames[0]), arguments)


@dataclass(frozen=True)
class SequenceMaps:
    """A sequence as the frozen stages see it.

    Attributes:
        sequence: which frames.
        times: `(N,)` seconds.
        scale: pixels of the model input per pixel of the video.
        content: (height, width) of the scaled frame, top left on the canvas.
        fine: `(N, 40, H / 8, W / 8)` float16.
        middle: `(N, 112, H / 16, W / 16)` float16.
    """

    sequence: Sequence
    times: np.ndarray
    scale: float
    content: tuple[int, int]
    fine: np.ndarray
    middle: np.ndarray


def read_sequences(sequences: list[Sequence], encoder: FrozenEncoder, processor, cache) -> list[SequenceMaps]:
    """Maps of every frame, made now or read from the cache, of the very pixels that a session shows its model.

    Args:
        sequences: MOTChallenge folders or parts of them.
        encoder: the frozen stages.
        processor: a `KineTrackVideoProcessor`, which chooses the size of the input.
        cache: folder.
    """
    folder = Path(cache) / encoder.key
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(sequences, desc="maps of sequences", unit="sequence", disable=None, leave=False)
    return [_read_sequence(sequence, encoder, processor, folder) for sequence in bar]


def _read_sequence(sequence: Sequence, encoder: FrozenEncoder, processor, folder: Path) -> SequenceMaps:
    video = next(file for file in (sequence.folder / "video.mp4", sequence.folder / "img1") if file.exists())
    parts = (sequence.folder.name, sequence.part, dict(processor.size))
    path = folder / f"{content_key(video, *parts)}.npz"
    if not path.is_file():
        found, times, images = [], [], []
        for frame in sequence_frames(sequence):
            height, width = frame.image.shape[:2]
            canvas = processor.fit_size(height, width)
            images.append(processor.preprocess_frame(frame.image, canvas)[0])
            times.append(frame.time)
            if len(images) == _BATCH:
                found.append(encoder.maps(torch.cat(images)))
                images = []
        if images:
            found.append(encoder.maps(torch.cat(images)))
        fine, middle = (np.concatenate(maps) for maps in zip(*found, strict=True))
        scale = processor.resize_scale(height, width, canvas)
        content = processor.content_size(height, width, canvas)
        with atomic_path(path) as partial:
            np.savez(partial, fine=fine, middle=middle, times=times, scale=scale, content=content)
    with np.load(path) as arrays:
        content = tuple(arrays["content"].tolist())
        return SequenceMaps(
            sequence, arrays["times"], float(arrays["scale"]), content, arrays["fine"], arrays["middle"]
        )


class SequenceBatches:
    """Windows of tracked people, sequences drawn by the square root of their length.

    Args:
        sequences: with maps.
        sources: the same sequences with boxes.
        batch_size: windows a batch.
        frames: of a window.
        window: its (height, width) in pixels of the model input, multiples of 32.
        seed: of all that is drawn.

    Raises:
        ValueError: no sequence is long and large enough.
    """

    def __init__(
        self,
        sequences: list[SequenceMaps],
        sources: list[ClipSource],
        batch_size: int,
        frames: int,
        window: tuple[int, int],
        seed: int,
    ):
        fits = [
            (maps, source)
            for maps, source in zip(sequences, sources, strict=True)
            if len(maps.times) >= frames
            and 8 * maps.fine.shape[-2] >= window[0]
            and 8 * maps.fine.shape[-1] >= window[1]
        ]
        if not fits:
            raise ValueError(f"No sequence has {frames} frames and fills a window of {window} pixels.")
        self.sequences, self.batch_size, self.frames, self.window = fits, batch_size, frames, window
        lengths = np.sqrt([len(maps.times) for maps, _ in fits])
        self._shares, self._rng = lengths / lengths.sum(), np.random.default_rng((seed, 2))

    def draw(self) -> Batch:
        """The next batch."""
        parts = [self._draw_window() for _ in range(self.batch_size)]
        fine, middle = (torch.cat([part[index] for part in parts]).float() for index in (0, 1))
        return Batch(fine, middle, self.frames, {"frame_labels": [part[2] for part in parts]})

    def _draw_window(self) -> tuple[torch.Tensor, torch.Tensor, list[dict]]:
        rng = self._rng
        maps, source = self.sequences[int(rng.choice(len(self.sequences), p=self._shares))]
        step = round(source.frames.frame_rate / np.exp(rng.uniform(*np.log(_RATES))))
        step = int(np.clip(step, 1, (len(maps.times) - 1) // max(self.frames - 1, 1)))
        first = int(rng.integers(len(maps.times) - step * (self.frames - 1)))
        rows = first + step * np.arange(self.frames)
        boxes = source.boxes.at(source.first + int(rows[self.frames // 2]))
        top, left = self._draw_corner(maps, boxes.xyxy[~boxes.ignore] * maps.scale)
        flip = bool(rng.random() < 0.5)
        height, width = self.window
        bounds = np.array([left, top, left + width, top + height]) / maps.scale  # pixels of the video
        window = Window(tuple(bounds.tolist()), self.window, flip)
        cut = []
        for stride, whole in ((8, maps.fine), (16, maps.middle)):
            y, x = top // stride, left // stride
            part = whole[rows, :, y : y + height // stride, x : x + width // stride]
            cut.append(torch.from_numpy(part).flip(-1) if flip else torch.from_numpy(part))
        return *cut, [frame_labels(_FORM, source, source.first + int(row), window) for row in rows]

    def _draw_corner(self, maps: SequenceMaps, people: np.ndarray) -> tuple[int, int]:
        """Top and left of a window, multiples of 32: mostly with a person's middle in it."""
        rng, corner = self._rng, []
        lucky, choice = rng.random() < _FOCUS, rng.random()
        for axis, side in ((1, self.window[0]), (0, self.window[1])):
            places = np.arange(0, 8 * maps.fine.shape[-2 if axis else -1] - side + 1, 32)
            if lucky and len(people):
                person = people[int(choice * len(people))]
                middle = (person[axis] + person[axis + 2]) / 2
                held = (places <= middle) & (places + side > middle)
                places = places[held] if held.any() else places
            corner.append(int(rng.choice(places)))
        return corner[0], corner[1]
