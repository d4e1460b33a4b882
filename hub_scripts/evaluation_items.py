"""What an evaluation runs over: tracking sequences and labelled clips, found on the disk or named by a list."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..processing.decoding_kinetrack import VideoFrame, iter_video_frames, probe_video
from .data.layouts import choose_part, class_names, list_clips
from .data.listed_clips import ListedClips
from .data.sequences import middle_frame, one_of_each_detector
from .data.sources import VIDEO_SUFFIXES, find_actor_boxes, read_seqinfo
from .data.splits import parse_item, read_split

EXPECTED = (
    "expected MOTChallenge sequence folders (video.mp4 or img1/, gt/gt.txt, seqinfo.ini) for tracking and clips in "
    "folders named by class for actions."
)

CACHE = Path("~/.cache/kinetrack")  # for videos that lie within a table


@dataclass(frozen=True)
class Sequence:
    """A MOTChallenge sequence, or a part of one.

    Attributes:
        folder: holds `video.mp4` or `img1/`, `gt/gt.txt` and `seqinfo.ini`.
        part: first and last frame to run and score, from 1; None: all.
    """

    folder: Path
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class LabelledClip:
    """A video and the name of what happens in it."""

    path: Path
    label: str

    @property
    def boxes_file(self) -> Path | None:
        """Where the labelled actor's boxes lie, if there are any."""
        return find_actor_boxes(self.path)


def list_items(data, split: str | None = None, half: str | None = None, fold: int = 1) -> list[Sequence | LabelledClip]:
    """What is to be evaluated, as a list.

    Args:
        data: a folder (see `find_items`) or a list of items.
        split: "val" or "dev": only what that committed list names below `data`, and on "val" all of `mot/val`; "test":
            the test clips of a data set in one of `data.layouts.LAYOUTS`.
        half: "val" takes the second half of every sequence, "train" the first, split as CenterTrack (arXiv 2004.01177)
            and the trackers after it split MOT17; None leaves sequences whole.
        fold: which official split of UCF-101 or HMDB-51, for "test".

    Raises:
        ValueError: no such split or half, or a half of a sequence of which only a part is listed.
        FileNotFoundError: no such folder.
    """
    for name, value, known in (("split", split, ("val", "dev", "test")), ("half", half, ("train", "val"))):
        if value is not None and value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))} or None, got {value!r}.")
    if isinstance(data, str | os.PathLike):
        items = _test_clips(Path(data), fold) if split == "test" else _listed(Path(data), split)
    else:
        items = list(data)
    if half is None:
        return items
    return [_half(item, half) if isinstance(item, Sequence) else item for item in items]


def _listed(root: Path, split: str | None) -> list[Sequence | LabelledClip]:
    if split is None:
        return find_items(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No such folder: {root}")
    items = []
    for name, part in map(parse_item, read_split(split)):
        path = root / name
        if path.exists():
            items.append(Sequence(path, part) if path.is_dir() else LabelledClip(path, path.parent.name))
    if split == "val" and (root / "mot" / "val").is_dir():
        items += [item for item in find_items(root / "mot" / "val") if isinstance(item, Sequence)]
    return items


def _test_clips(root: Path, fold: int) -> list[LabelledClip]:
    table = choose_part(list_clips(root, fold=fold), "test")
    names = class_names(table)
    if not len(table):
        raise ValueError(f"{root} has no test clips: expected a folder `test`, a `split` column or official lists.")
    clips = ListedClips(table, CACHE.expanduser())
    return [LabelledClip(clips.file(number), names[row["label"]]) for number, row in enumerate(table)]


def _half(sequence: Sequence, half: str) -> Sequence:
    """One half; the first has the frame in the middle, as in the files that the field shares."""
    if sequence.part is not None:
        raise ValueError(f"{sequence.folder.name} is listed in part already ({sequence.part}); leave `half` out.")
    length = int(read_sequence_info(sequence.folder)["seqLength"])
    middle = middle_frame(length)
    if middle >= length:
        raise ValueError(f"{sequence.folder.name} has {length} frames: too few for two halves.")
    return Sequence(sequence.folder, (1, middle) if half == "train" else (middle + 1, length))


def find_items(root: Path) -> list[Sequence | LabelledClip]:
    """MOTChallenge sequences and clips in class folders anywhere below a folder.

    Of the detector copies of a MOT17 sequence (`-DPM`, `-FRCNN`, `-SDP`: the same video) only one is taken.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"No such folder: {root}")
    folders = sorted(file.parent.parent for file in root.rglob("gt/gt.txt"))
    if (root / "gt" / "gt.txt").is_file():
        folders = [root]
    videos = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
    clips = [LabelledClip(path, path.parent.name) for path in videos if path.parent not in folders]
    return [*map(Sequence, one_of_each_detector(folders)), *clips]


def read_sequence_info(folder: Path) -> dict[str, int | float]:
    """`seqLength`, `imWidth`, `imHeight` and `frameRate` of a sequence.

    Raises:
        ValueError: if `seqinfo.ini` is missing or lacks one of them.
    """
    stated = read_seqinfo(folder)
    if not stated:
        raise ValueError(
            f"{folder} has no seqinfo.ini with a [Sequence] part: write seqLength, imWidth, imHeight, frameRate."
        )
    try:
        info = {key: int(stated[key]) for key in ("seqLength", "imWidth", "imHeight")}
        return info | {"frameRate": float(stated["frameRate"])}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'seqinfo.ini'}: missing or malformed {error}.") from error


def check_sequences(sequences: list[Sequence]) -> None:
    """Fail before hours of work, not after.

    Raises:
        FileNotFoundError: one has no ground truth, or neither a video nor images.
        ValueError: a `seqinfo.ini` is not usable, a part does not fit it, or two have the same folder name.
    """
    for sequence in sequences:
        _check_sequence(sequence)
    check_names(sequences)


def check_names(sequences: list[Sequence]) -> None:
    """Fail where tracks and scores of one sequence would replace those of another.

    Args:
        sequences: what is to be scored together.

    Raises:
        ValueError: two of them have the same folder name.
    """
    known: dict[str, Path] = {}
    for folder in (sequence.folder for sequence in sequences):
        if folder.name in known:
            raise ValueError(
                f"Two sequences have the same folder name, {known[folder.name]} and {folder}: sequences are told apart "
                "by it. Rename one of the folders, or run them one at a time."
            )
        known[folder.name] = folder


def _check_sequence(sequence: Sequence) -> None:
    folder = sequence.folder
    if not (folder / "gt" / "gt.txt").is_file():
        raise FileNotFoundError(f"No such file: {folder / 'gt' / 'gt.txt'}")
    info = read_sequence_info(folder)
    if not (folder / "video.mp4").is_file() and not (folder / "img1").is_dir():
        raise FileNotFoundError(f"{folder} holds neither video.mp4 nor img1/.")
    if sequence.part and not 1 <= sequence.part[0] <= sequence.part[1] <= info["seqLength"]:
        raise ValueError(f"{folder.name} has frames 1 to {info['seqLength']}; part {sequence.part} does not fit.")


def sequence_frames(sequence: Sequence) -> Iterator[VideoFrame]:
    """The frames of a sequence, or of its part, from its video or its images.

    Raises:
        ValueError: if the video has another length or size than `seqinfo.ini` says.
    """
    name, info = sequence.folder.name, read_sequence_info(sequence.folder)
    first, last = sequence.part or (1, info["seqLength"])
    seen = 0
    for frame in _decoded(sequence.folder, info, first, last):
        height, width = frame.image.shape[:2]
        if (width, height) != (info["imWidth"], info["imHeight"]):
            raise ValueError(
                f"{name}: the video is {width}×{height}, but seqinfo.ini says "
                f"{info['imWidth']}×{info['imHeight']}: the boxes would not fit."
            )
        seen += 1
        yield frame
    if seen != last - first + 1:
        raise ValueError(
            f"{name}: seqinfo.ini says {info['seqLength']} frames, the video gave {seen} of frames "
            f"{first} to {last}. Is it another cut or frame rate?"
        )


def _decoded(folder: Path, info: dict, first: int, last: int) -> Iterator[VideoFrame]:
    if (folder / "video.mp4").is_file():
        count = probe_video(folder / "video.mp4").num_frames
        if count is not None and count != info["seqLength"]:
            raise ValueError(f"{folder.name}: video.mp4 has {count} frames, seqinfo.ini says {info['seqLength']}.")
        for number, frame in enumerate(iter_video_frames(folder / "video.mp4"), start=1):
            if number > last:
                return
            if number >= first:
                yield frame
        return
    from PIL import Image

    images = sorted(path for path in (folder / "img1").iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for number in range(first, min(last, len(images)) + 1):
        with Image.open(images[number - 1]) as image:
            yield VideoFrame(np.asarray(image.convert("RGB")), (number - 1) / info["frameRate"], number - 1)
