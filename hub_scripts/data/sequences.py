"""Tracking sequences as MOT15, MOT16, MOT17, MOT20, DanceTrack, SportsMOT and CVAT lay them out.

All have `<sequence>/gt/gt.txt` beside `img1/` or `video.mp4`, perhaps below `train/` and `val/`. MOT17 has each of them
three times, with the detections of DPM, FRCNN and SDP: one copy is read. `gt/labels.txt`, as CVAT writes it, names
object classes, a line each; without it everything counted is a person.
"""

import os
import re
from pathlib import Path

from .clips import ClipSource
from .layouts import PARTS
from .sources import read_class_names, read_sequence
from .splits import GAP_FRAMES

_DETECTOR = re.compile(r"-(DPM|FRCNN|SDP)$")


def find_sequences(root: str | os.PathLike) -> dict[str, list[Path]]:
    """Sequences with ground truth anywhere below a folder, by part ("train", "dev", "test"), sorted by name.

    A sequence's part is the innermost folder name above it that says one (`train`, `train1`, `val` …); "train" where
    none does.
    """
    root, found = Path(root), {}
    for folder in one_of_each_detector([file.parent.parent for file in root.rglob("gt/gt.txt")]):
        above = reversed(folder.relative_to(root).parts[:-1])
        parts = (PARTS.get(re.sub(r"[\d_-]+$", "", name.lower())) for name in above)
        found.setdefault(next((part for part in parts if part), "train"), []).append(folder)
    return found


def one_of_each_detector(folders: list[Path]) -> list[Path]:
    """Of folders that differ only in `-DPM`, `-FRCNN` or `-SDP` the first, sorted."""
    once = {_DETECTOR.sub("", str(folder)): folder for folder in sorted(folders, reverse=True)}
    return sorted(once.values())


def object_classes(root: str | os.PathLike) -> list[str] | None:
    """Names from the `gt/labels.txt` files below a folder, in order of appearance; None without such files."""
    names: dict[str, None] = {}
    for folders in find_sequences(root).values():
        for folder in folders:
            names |= dict.fromkeys(read_class_names(folder) or [])
    return list(names) or None


def middle_frame(length: int) -> int:
    """Last frame of the first half, from 1, as CenterTrack (arXiv 2004.01177) and trackers after it split MOT17."""
    return length // 2 + 1


def list_sequences(
    root: str | os.PathLike,
    part: str,
    cache: str | os.PathLike | None = None,
    half: bool = False,
    dev_fraction: float = 0.1,
    classes: list[str] | None = None,
) -> list[ClipSource]:
    """Opens the sequences of one part.

    Args:
        root: folder of sequences, or of parts with sequences.
        part: "train" or "dev".
        cache: folder for decoded frames.
        half: train on the first half of every training sequence, and take the second as "dev".
        dev_fraction: where there is no part "dev": the share of frames at the end of each sequence that is one.
        classes: names of the model's object classes, for sequences with `labels.txt`.

    Raises:
        FileNotFoundError: no sequences there, or one without pictures.
    """
    found = find_sequences(root)
    if not found.get("train"):
        raise FileNotFoundError(f"No tracking sequences for training at {root}: expected <sequence>/gt/gt.txt.")
    own_dev = not half and "dev" in found
    folders = found["dev"] if own_dev and part == "dev" else found["train"]
    sources = []
    for folder in folders:
        name = folder.relative_to(root).as_posix() if folder != Path(root) else folder.name
        source = read_sequence(folder, name, None, cache, classes=classes)
        if half:
            middle = middle_frame(source.stop)
            source.first, source.stop = (0, middle) if part == "train" else (middle, source.stop)
        elif not own_dev:
            source.first, source.stop = _end_cut_off(source.stop, part, dev_fraction)
        if source.stop > source.first:
            sources.append(source)
    return sources


def _end_cut_off(length: int, part: str, fraction: float) -> tuple[int, int]:
    """First frame and one beyond the last of a part, with a gap between the parts; short sequences have no "dev"."""
    held_out = round(length * fraction)
    gap = min(GAP_FRAMES, length // 10)
    if length < 40 or not held_out:
        return (0, length) if part == "train" else (0, 0)
    return (0, length - held_out - gap) if part == "train" else (length - held_out, length)
