"""Map-style datasets of short clips: tracked people in sequences, and labelled actions.

An item is chosen by its index, or by `(epoch, index)`; what is drawn depends on the seed, the epoch and the index
alone, never on the number of workers or on what was read before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch.utils.data import Dataset

from .annotations import FrameBoxes
from .augmentation import ClipForm, Window, centred_frames, draw_frames, draw_window, render, whole_window
from .frames import FrameStore
from .keypoints import MIRRORED

NO_LABEL = -100


@dataclass
class ClipSource:
    """A video, or a part of one, with what is known about it.

    Attributes:
        name: Path below the data root.
        frames: Its pixels.
        first, stop: The part in use, frames `first .. stop - 1`.
        boxes: People per frame; None when nobody looked for them.
        actor: `(frames, 4)` corners of the labelled actor, NaN where there is none; None without an actor.
        label: Index of the action, -100 for none.
        group_labels: Index within each further label group, -100 for none.
        stratum: What balanced sampling balances.
        keypoints: `(frames, K, 3)` joints of the labelled actor with weights; None when nobody looked for them.
    """

    name: str
    frames: FrameStore
    first: int
    stop: int
    boxes: FrameBoxes | None = None
    actor: np.ndarray | None = None
    label: int = NO_LABEL
    group_labels: dict[str, int] = field(default_factory=dict)
    stratum: str = ""
    keypoints: np.ndarray | None = None


class _Clips(Dataset):
    """What both datasets share: from a source and its moments to a sample."""

    def __init__(self, sources: Sequence[ClipSource], form: ClipForm, train: bool, seed: int):
        if not sources:
            raise ValueError("No clips to read: the folder is empty, or every clip is excluded by the split lists.")
        self.sources, self.form, self.train, self.seed, self.epoch = sources, form, train, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the draws of plain integer indices; `(epoch, index)` needs no call."""
        self.epoch = epoch

    def _rng(self, epoch: int, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, epoch, index))

    def _key(self, item: int | tuple[int, int]) -> tuple[int, int]:
        epoch, index = item if isinstance(item, tuple | list) else (self.epoch, item)
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} clips")
        return int(epoch), int(index)

    def _sample(
        self,
        form: ClipForm,
        source: ClipSource,
        frames: np.ndarray,
        focus,
        rng: np.random.Generator,
        tube: np.ndarray | None = None,
    ) -> dict:
        """`tube` is `(t, 4)`, the boxes of whom the labels speak; the source's actor when None."""
        store = source.frames
        if self.train:
            window = draw_window(form, rng, store.height, store.width, focus)
        else:
            window = whole_window(form, store.height, store.width)
        pixels, pixel_mask = render(
            form, store.read(frames, window.source), window, rng if self.train else None
        )  # (T, 3, H, W), (H, W)
        frame_mask = torch.zeros(form.num_frames, dtype=torch.bool)
        frame_mask[: len(frames)] = True
        region = np.full((form.num_frames, 4), np.nan, np.float32)
        if tube is None and source.actor is not None:
            tube = source.actor[frames]
        if tube is not None:
            moved = window.map_boxes(tube)  # (t, 4)
            moved[~(window.visible_share(moved) >= form.min_visible)] = np.nan
            region[: len(frames)] = moved
        labels = [frame_labels(form, source, frame, window) for frame in frames]
        return {
            "pixel_values_videos": pixels,
            "frame_mask": frame_mask,
            "pixel_mask": pixel_mask,
            "labels": source.label,
            "group_labels": dict(source.group_labels),
            "frame_labels": labels + [None] * (form.num_frames - len(frames)),
            "region_boxes": torch.from_numpy(region),
            "names": f"{source.name}:{frames[0] + 1}-{frames[-1] + 1}",
        }

    def _draw_focus(self, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """One of `(N, 4)` boxes, or None for any place; always two draws, so that all else stays the same."""
        lucky, choice = rng.random() < self.form.focus, rng.random()
        return boxes[int(choice * len(boxes))] if lucky and len(boxes) else None


def frame_labels(form: ClipForm, source: ClipSource, frame: int, window: Window) -> dict | None:
    """What `frame_labels` of the model wants of one frame of a source, seen through a window; None without boxes."""
    if source.boxes is None:
        return None
    rows = source.boxes.at(int(frame))
    moved = window.map_boxes(rows.xyxy)
    share = window.visible_share(moved)
    ignore = rows.ignore | (share < form.min_visible)
    ignore |= (moved[:, 2:] - moved[:, :2]).min(1, initial=np.inf) < form.min_size
    kept = share > 0
    labels = {
        "boxes": moved[kept],
        "class_labels": rows.class_label[kept],
        "track_ids": np.where(ignore, -1, rows.track_id)[kept],
        "ignore": ignore[kept],
        "weight": rows.weight[kept],
    }
    if source.keypoints is not None:
        joints = window.map_points(source.keypoints[frame])  # (K, 3)
        if window.flip:
            joints = joints[MIRRORED]
        # Nobody else in such a clip has an identity.
        labels["keypoints"] = joints * (labels["track_ids"] >= 0)[:, None, None]  # (n, K, 3)
    return {name: torch.from_numpy(values) for name, values in labels.items()}


def join_mosaic(parts: Sequence[dict]) -> dict:
    """Four clips in the quarters of one canvas: top left, top right, bottom left, bottom right.

    A box whose centre lies beyond its own quarter is not where it is labelled: it is ignored, cut to the quarter.

    Args:
        parts: Samples without action labels, of equal form `(T, 3, h, w)`.

    Returns:
        A sample of form `(T, 3, 2h, 2w)`.
    """
    pixels = [part["pixel_values_videos"] for part in parts]
    height, width = pixels[0].shape[-2:]
    shifts = [torch.tensor([x, y, x, y]) for y in (0, height) for x in (0, width)]
    limit = torch.tensor([width, height, width, height])
    labels = []
    for moment in zip(*(part["frame_labels"] for part in parts), strict=True):
        merged: dict[str, list] = {name: [] for name in moment[0]}
        for frame, shift in zip(moment, shifts, strict=True):
            boxes = frame["boxes"]
            centre = (boxes[:, :2] + boxes[:, 2:]) / 2
            outside = ~((centre >= 0) & (centre < limit[:2])).all(1)
            boxes = torch.where(outside[:, None], boxes.clamp(min=0).minimum(limit), boxes) + shift
            changed = {"boxes": boxes, "ignore": frame["ignore"] | outside}
            changed["track_ids"] = torch.where(outside, -1, frame["track_ids"])
            for name, values in (frame | changed).items():
                merged[name].append(values)
        labels.append({name: torch.cat(values) for name, values in merged.items()})
    first = parts[0]
    return first | {
        "pixel_values_videos": torch.cat((torch.cat(pixels[:2], -1), torch.cat(pixels[2:], -1)), -2),
        "pixel_mask": torch.ones(2 * height, 2 * width, dtype=torch.bool),
        "frame_mask": first["frame_mask"],
        "frame_labels": labels,
        "names": " + ".join(part["names"] for part in parts),
    }


class MotClips(_Clips):
    """Clips of tracked people from MOT sequences.

    One index stands for one stretch of `anchor_stride` frames; the clip drawn for it spans a moment of that stretch.

    Args:
        sources: Sequences with boxes; see `mot_train`.
        form: How clips are cut and varied.
        train: Varied clips; else each stretch's middle, the whole frame, no change.
        anchor_stride: Frames of a sequence for each index.
        seed: Another seed, other draws.
        walking: `labels` and `group_labels` of a clip in which somebody walks, given to the share `form.walkers` of the
            varied clips: pedestrians are what most people in a street are.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        form: ClipForm | None = None,
        train: bool = True,
        anchor_stride: int = 4,
        seed: int = 0,
        walking: dict | None = None,
    ):
        super().__init__(sources, form or ClipForm(), train, seed)
        self.anchor_stride = anchor_stride
        self.walking = walking
        self.anchors = [
            (number, frame)
            for number, source in enumerate(self.sources)
            for frame in range(source.first, source.stop, anchor_stride)
        ]
        self.strata = [self.sources[number].stratum for number, _ in self.anchors]

    def __len__(self) -> int:
        return len(self.anchors)

    def __getitem__(self, item: int | tuple[int, int]) -> dict:
        epoch, index = self._key(item)
        rng = self._rng(epoch, index)
        if not self.train:
            number, begin = self.anchors[index]
            source = self.sources[number]
            centre = min(begin + self.anchor_stride / 2, source.stop - 1)
            frames = centred_frames(self.form, source.first, source.stop, source.frames.frame_rate, centre)
            return self._sample(self.form, source, frames, None, rng)
        if rng.random() >= self.form.mosaic:
            return self._draw(self.form, index, rng)
        others = rng.integers(0, len(self), 3)
        return join_mosaic([self._draw(self.form.quarter(), int(place), rng) for place in (index, *others)])

    def _draw(self, form: ClipForm, index: int, rng: np.random.Generator) -> dict:
        number, begin = self.anchors[index]
        source = self.sources[number]
        anchor = int(rng.integers(begin, min(begin + self.anchor_stride, source.stop)))
        frames = draw_frames(form, rng, source.first, source.stop, source.frames.frame_rate, anchor)
        if len(frames) < form.num_frames:  # a very short sequence is played to and fro
            frames = np.pad(frames, (0, form.num_frames - len(frames)), mode="reflect" if len(frames) > 1 else "edge")
        rows = source.boxes.at(int(frames[len(frames) // 2]))
        tube = None
        if self.walking and rng.random() < form.walkers:
            tube = draw_walker(source.boxes, frames, source.frames.frame_rate, rng)
        if tube is None:
            return self._sample(form, source, frames, self._draw_focus(rows.xyxy[~rows.ignore], rng), rng)
        sample = self._sample(form, source, frames, tube[len(tube) // 2], rng, tube)
        seen = bool(torch.isfinite(sample["region_boxes"]).all(1).sum() > len(frames) // 2)
        return sample | self.walking if seen else sample


class ActionClips(_Clips):
    """Labelled clips, one index each.

    Args:
        sources: Clips with labels; see `action_train`.
        form: How clips are cut and varied.
        train: Varied clips; else the middle of each clip, the whole frame, no change.
        seed: Another seed, other draws.
    """

    def __init__(self, sources: Sequence[ClipSource], form: ClipForm | None = None, train: bool = True, seed: int = 0):
        super().__init__(sources, form or ACTION_FORM, train, seed)
        # A list of many clips knows their strata without opening them.
        self.strata = getattr(sources, "strata", None) or [source.stratum for source in self.sources]

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, item: int | tuple[int, int]) -> dict:
        epoch, index = self._key(item)
        rng = self._rng(epoch, index)
        source, form = self.sources[index], self.form
        rate = source.frames.frame_rate
        if not self.train:
            return self._sample(form, source, centred_frames(form, source.first, source.stop, rate), None, rng)
        frames = draw_frames(form, rng, source.first, source.stop, rate)
        sample = self._sample(form, source, frames, self._draw_focus(self._extent(source, frames), rng), rng)
        if source.actor is not None and rng.random() < form.backdrop:
            self._put_backdrop(sample, self.sources[int(rng.integers(len(self.sources)))], rng)
        return sample

    def _put_backdrop(self, sample: dict, other: ClipSource, rng: np.random.Generator) -> None:
        """Replaces all but the actor by one frame of another clip, so that the place tells nothing of the action."""
        frame = draw_frames(self.form, rng, other.first, other.stop, other.frames.frame_rate)[:1]
        still = self._sample(self.form, other, frame, None, rng)["pixel_values_videos"][0]  # (3, H, W)
        boxes = sample["region_boxes"]
        if not boxes.isfinite().all():
            return  # in a frame without a box nothing says where the actor is
        margin = 0.15 * (boxes[:, 2:] - boxes[:, :2])
        left, top, right, bottom = torch.cat((boxes[:, :2] - margin, boxes[:, 2:] + margin), 1)[..., None].unbind(1)
        rows, columns = (torch.arange(side) + 0.5 for side in self.form.canvas)
        inside = ((rows > top) & (rows < bottom))[:, :, None] & ((columns > left) & (columns < right))[:, None]
        shown = inside | ~sample["pixel_mask"]  # (T, H, W)
        sample["pixel_values_videos"] = torch.where(shown[:, None], sample["pixel_values_videos"], still)
        sample["frame_labels"] = [_actor_alone(labels, self.form.canvas) for labels in sample["frame_labels"]]

    @staticmethod
    def _extent(source: ClipSource, frames: np.ndarray) -> np.ndarray:
        """`(1, 4)` box around the actor in all frames, or around all people when there is no actor, or `(0, 4)`."""
        boxes = np.zeros((0, 4), np.float32)
        if source.actor is not None:
            boxes = source.actor[frames]
        elif source.boxes is not None:
            rows = [source.boxes.at(int(frame)) for frame in frames]
            boxes = np.concatenate([row.xyxy[~row.ignore] for row in rows])
        boxes = boxes[np.isfinite(boxes).all(1)]
        return np.concatenate((boxes[:, :2].min(0), boxes[:, 2:].max(0)))[None] if len(boxes) else boxes


def _actor_alone(labels: dict | None, canvas: tuple[int, int]) -> dict | None:
    """The labels of whoever has an identity; all the rest of the canvas, where nobody is labelled, is ignored."""
    if labels is None:
        return None
    kept = labels["track_ids"] >= 0
    everywhere = {
        "boxes": torch.tensor([[0.0, 0.0, canvas[1], canvas[0]]]),
        "class_labels": torch.zeros(1, dtype=torch.int64),
        "track_ids": torch.full((1,), -1),
        "ignore": torch.ones(1, dtype=torch.bool),
        "weight": torch.ones(1),
    }
    if "keypoints" in labels:
        everywhere["keypoints"] = torch.zeros_like(labels["keypoints"][:1])
    return {name: torch.cat([values[kept], everywhere[name]]) for name, values in labels.items()}


def draw_walker(
    boxes: FrameBoxes, frames: np.ndarray, frame_rate: float, rng: np.random.Generator
) -> np.ndarray | None:
    """The boxes `(t, 4)` of one known person who is there in all frames and goes somewhere, or None.

    Going somewhere is to move against the picture by a quarter of one's height a second: of people in a street that is
    a good guess at walking, and no more than a guess where the camera moves.
    """
    seconds = np.ptp(frames) / frame_rate
    rows = [boxes.at(int(frame)) for frame in frames]
    known = [dict(zip(row.track_id[~row.ignore].tolist(), row.xyxy[~row.ignore], strict=True)) for row in rows]
    walkers = []
    for track_id in sorted(set.intersection(*(set(row) for row in known)) - {-1}):
        tube = np.stack([row[track_id] for row in known])
        path = np.linalg.norm((tube[-1] - tube[0]).reshape(2, 2).mean(0))
        height = np.median(tube[:, 3] - tube[:, 1])
        if path > 0.25 * height * seconds:
            walkers.append(tube)
    return walkers[int(rng.integers(len(walkers)))] if walkers else None


MOT_FORM = ClipForm(canvas=(320, 512), reverse=0.3, mosaic=0.4)
ACTION_FORM = ClipForm(canvas=(224, 288), frame_rate=(6.0, 15.0), scale=(0.75, 1.35), fit=True, focus=0.9, backdrop=0.3)


def evaluation_form(form: ClipForm, canvas: tuple[int, int] = (352, 640), frame_rate: float = 12.5) -> ClipForm:
    """The same clips at one rate and on another canvas, for `train=False`."""
    return replace(form, canvas=canvas, frame_rate=(frame_rate, frame_rate))
