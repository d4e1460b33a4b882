"""Frozen features of labelled clips, computed once and kept on disk, so that many small models can be trained on them.

The encoder is EfficientNet-Lite0 (or another of its family) with its ImageNet weights and not that of the shipped
kinetrack-nano, which was trained on the labels of the very clips that the experiments train on. Its maps at strides 16
and 32 of every frame are kept in half precision: about 75 KB a frame of 224x224.
"""

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from ..atomic_files import atomic_path
from ..data.clips import ClipSource
from ..data.sources import ACTION_SET, FIGHT_GROUP, FIGHT_SET, action_names, action_sources, film_names
from ..pretrained import LITE0, load_efficientnet_lite_imagenet

_BATCH = 8


@dataclass(frozen=True)
class ClipFeatures:
    """One labelled clip as the encoder sees it.

    Attributes:
        name: path below the data root.
        film: which source video it was cut from, as far as file names tell; clips of one film are not independent.
        label: index of the action.
        middle: `(T, C', H / 16, W / 16)` float16, every frame of the clip; of Lite0, C' is 112.
        coarse: `(T, C, H / 32, W / 32)` float16; of Lite0, C is 320. Of an encoder with another choice of two maps,
            these are the first and the second.
        actor: `(T, 4)` xyxy in pixels of the H x W input, NaN where there is no box.
    """

    name: str
    film: str
    label: int
    middle: np.ndarray
    coarse: np.ndarray
    actor: np.ndarray


class FrozenEncoder:
    """An EfficientNet-Lite up to the second of two of its maps, those at strides 16 and 32 by default.

    Args:
        weights: see `load_efficientnet_lite_imagenet`; None for random weights, which is for tests alone.
        size: side of the square that frames are resized to, or (height, width).
        network: timm's name of it.
        out_indices: which of timm's five maps.
    """

    def __init__(
        self,
        weights: str | os.PathLike | None,
        size: int | tuple[int, int] = 224,
        network: str = LITE0,
        out_indices: tuple[int, int] = (3, 4),
    ):
        torch.manual_seed(0)
        self.network = timm.create_model(network, features_only=True, out_indices=out_indices)
        del self.network.blocks[self.network.feature_info.info[out_indices[1]]["stage"] :]
        if weights is not None:
            wanted = self.network.state_dict()
            tensors = load_efficientnet_lite_imagenet(weights, network)
            self.network.load_state_dict({name: tensors[name] for name in wanted})
        self.network = self.network.eval().to(memory_format=torch.channels_last)
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        digest = "random" if weights is None else hashlib.sha1(Path(weights).read_bytes()).hexdigest()[:12]
        self.key = f"{network}-{digest}-{size if isinstance(size, int) else 'x'.join(map(str, size))}"
        if out_indices != (3, 4):
            self.key += "-maps-" + "-".join(map(str, out_indices))

    @torch.inference_mode()
    def encode(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`(T, h, w, 3)` uint8 RGB to the maps `(T, C', H/16, W/16)` and `(T, C, H/32, W/32)`, float16."""
        found = []
        for start in range(0, len(frames), _BATCH):
            images = torch.from_numpy(frames[start : start + _BATCH]).permute(0, 3, 1, 2)  # (n, 3, h, w)
            images = transforms.resize(images, list(self.size), antialias=True).float().div_(127.5).sub_(1)
            found.append(self.maps(images))
        middle, coarse = (np.concatenate(maps) for maps in zip(*found, strict=True))
        return middle, coarse

    @torch.inference_mode()
    def maps(self, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Both maps, float16, of `(N, 3, H, W)` pixels in -1..1; H and W multiples of 32."""
        return tuple(maps.half().contiguous().numpy() for maps in self.network(images))


def content_key(path: Path, *parts) -> str:
    """Names what was made of a video by what is in it, so that a copy of the data, with other times, finds it again.

    Args:
        path: a file, or a folder of frames.
        *parts: whatever else it depends on.
    """
    digest = hashlib.sha1(repr(parts).encode())
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha1").digest())
    return digest.hexdigest()[:16]


def neighbour_names(sources: Sequence[ClipSource]) -> dict[str, str]:
    """By clip, its class and which five neighbours in number it is one of, where names say no more than a number."""
    numbers = {source.name: int(re.sub(r"\D", "", Path(source.name).stem) or 0) for source in sources}
    return {source.name: f"{Path(source.name).parent.name} {numbers[source.name] // 5}" for source in sources}


@dataclass(frozen=True)
class LabelledSet:
    """A set of clips, each with one label.

    Attributes:
        name: as people call it.
        folder: below `actions/`.
        about: for a report.
        labels: how many there are, given the data root.
        label: the label of one clip.
        films: by name, which film each clip is from, or what stands for films.
    """

    name: str
    folder: str
    about: str
    labels: Callable[[Path], int]
    label: Callable[[ClipSource], int]
    films: Callable[[Sequence[ClipSource]], dict[str, str]]


JHMDB = LabelledSet(
    "JHMDB",
    ACTION_SET,
    "JHMDB split 1, training half, by the committed lists",
    lambda root: len(action_names(root)),
    lambda source: source.label,
    film_names,
)
FIGHTS = LabelledSet(
    "fights",
    FIGHT_SET,
    "surveillance clips, fight or not, by the committed lists; films: five neighbours in number, which share a camera",
    lambda root: len(FIGHT_GROUP),
    lambda source: source.group_labels["fight"],
    neighbour_names,
)


def read_clips(
    root,
    part: str,
    encoder: FrozenEncoder,
    cache,
    limit: int | None = None,
    labelled: LabelledSet = JHMDB,
    count: int | None = None,
) -> list[ClipFeatures]:
    """The clips of one part with their features, encoded now or read from the cache.

    Args:
        root: data root with `actions/`.
        part: "train", "dev" or "val", by the committed lists.
        encoder: what sees the frames.
        cache: folder for features; a run that stops goes on where it was.
        limit: this many clips of each class alone.
        labelled: which set.
        count: this many frames alone, spread evenly over each clip.

    Raises:
        ValueError: the part is empty.
    """
    sources = action_sources(root, part, sets=(labelled.folder,))
    if limit is not None:
        sources = _first_of_each_class(sources, labelled, limit)
    if not sources:
        raise ValueError(
            f"No clip of the {part} list lies below {root}. Expected actions/{labelled.folder}/train/CLASS/*.mp4."
        )
    films = labelled.films(sources)
    folder = Path(cache) / (encoder.key if count is None else f"{encoder.key}-{count}-frames")
    folder.mkdir(parents=True, exist_ok=True)
    bar = tqdm(sources, desc=f"features of {part}", unit="clip", disable=None, leave=False)
    return [
        _read_clip(source, labelled.label(source), films[source.name], encoder, folder, _spread(source, count))
        for source in bar
    ]


def _spread(source: ClipSource, count: int | None) -> np.ndarray:
    """Numbers of the frames wanted of a clip, in its file."""
    if count is None:
        return np.arange(source.first, source.stop)
    return np.linspace(source.first, source.stop - 1, count).round().astype(int)


def _read_clip(
    source: ClipSource, label: int, film: str, encoder: FrozenEncoder, folder: Path, frames: np.ndarray
) -> ClipFeatures:
    path = folder / f"{content_key(source.frames.path, source.name)}.npz"
    if not path.is_file():
        middle, coarse = encoder.encode(source.frames.read(frames))
        with atomic_path(path) as partial:
            np.savez(partial, middle=middle, coarse=coarse)
    with np.load(path) as arrays:
        middle, coarse = arrays["middle"], arrays["coarse"]
    actor = np.full((len(middle), 4), np.nan, np.float32)
    if source.actor is not None:
        sides = np.array([source.frames.width, source.frames.height] * 2, np.float32)
        factor = np.array(encoder.size[::-1] * 2, np.float32) / sides
        actor = source.actor[frames] * factor
    return ClipFeatures(source.name, film, label, middle, coarse, actor)


def _first_of_each_class(sources: Sequence[ClipSource], labelled: LabelledSet, limit: int) -> list[ClipSource]:
    counts: dict[int, int] = {}
    kept = []
    for source in sources:
        label = labelled.label(source)
        counts[label] = counts.get(label, 0) + 1
        if counts[label] <= limit:
            kept.append(source)
    return kept
