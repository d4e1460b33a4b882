"""Videos with what people say of them, as one CSV file.

    path,sentence,question,split
    clips/a.mp4,a person throws a ball,,train
    clips/a.mp4,two,how many people are there?,train

Paths are relative to the file. `question` may be left out: without one, a sentence describes the video. So may `split`
(`train` or `val`): then some videos are set aside by their names.
"""

import csv
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..data.layouts import PARTS

_COLUMNS = {"path": ("path", "video", "file"), "sentence": ("sentence", "caption", "text", "answer")}


@dataclass(frozen=True)
class SaidVideo:
    """A video file and all that is said of it.

    Attributes:
        path: of the file.
        said: questions with answers; with the question "", a sentence that describes the video.
        part: "train", "dev" or "test"; None where the file does not say.
    """

    path: Path
    said: tuple[tuple[str, str], ...]
    part: str | None


def read_pairs(path: str | os.PathLike) -> list[SaidVideo]:
    """Reads a file of pairs, videos in the order they first come.

    Args:
        path: a CSV file, or one with tabs (`.tsv`).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a header without what is needed, a line without a video or a sentence, or no lines.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}. Expected a CSV file with `path` and `sentence`.")
    said: dict[Path, list[tuple[str, str]]] = {}
    parts: dict[Path, str | None] = {}
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
        columns = {name.strip().lower(): name for name in reader.fieldnames or []}
        found = {
            key: next((columns[name] for name in names if name in columns), None) for key, names in _COLUMNS.items()
        }
        if None in found.values():
            raise ValueError(
                f"{file}: expected a header with `path` and `sentence`, perhaps `question` and `split`; got "
                f"{', '.join(columns) or 'nothing'}."
            )
        for number, row in enumerate(reader, start=2):
            cells = {key: (row.get(columns.get(key, key)) or "").strip() for key in ("question", "split")}
            video, sentence = (file.parent / (row[found["path"]] or "").strip()), (row[found["sentence"]] or "").strip()
            if not video.is_file():
                raise ValueError(f"{file}, line {number}: there is no video {video}.")
            if not sentence:
                raise ValueError(f"{file}, line {number}: the sentence is empty.")
            part = PARTS.get(cells["split"].lower()) if cells["split"] else None
            if cells["split"] and part is None:
                raise ValueError(f"{file}, line {number}: split is {cells['split']!r}, expected train, val or test.")
            if parts.setdefault(video, part) != part:
                raise ValueError(f"{file}, line {number}: {video.name} is in two parts.")
            said.setdefault(video, []).append((cells["question"], sentence))
    if not said:
        raise ValueError(f"{file} has a header and no lines.")
    return [SaidVideo(video, tuple(pairs), parts[video]) for video, pairs in said.items()]


def split_pairs(videos: list[SaidVideo], dev_fraction: float) -> tuple[list[SaidVideo], list[SaidVideo]]:
    """Videos to learn from and videos to choose the step by.

    Where no video is marked as the latter, some are set aside by their names: at least one.

    Args:
        videos: from `read_pairs`.
        dev_fraction: share that is set aside.

    Raises:
        ValueError: nothing is left to learn from.
    """
    train = [video for video in videos if video.part in (None, "train")]
    dev = [video for video in videos if video.part == "dev"]
    if not dev:
        train.sort(key=lambda video: (zlib.crc32(video.path.name.encode()), str(video.path)))
        count = max(1, round(dev_fraction * len(train)))
        train, dev = train[count:], train[:count]
    if not train:
        raise ValueError(f"Of {len(videos)} videos none is left to learn from: at least two are needed.")
    return train, dev
