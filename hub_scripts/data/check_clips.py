"""Looks at labelled clips: every file is decoded, and what could spoil a training by stealth is looked for."""

import shutil
import tempfile
import warnings
import weakref
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

from ...processing.container_kinetrack import open_pyav
from .check_report import DataReport, spread
from .layouts import PARTS, choose_part, class_names, list_clips, recognise_layout
from .listed_clips import ListedClips

MIN_FRAMES = 8
MIN_CLIPS = 5


def check_clips(
    path: str, report: DataReport, advance: Callable[[str], None], layout: str, fold: int, decode: bool
) -> None:
    """Adds what is to be said of the labelled clips at a path; nothing where there are none.

    Args:
        path: as for `list_clips`, like `layout` and `fold`.
        report: is added to.
        advance: called with the name of every clip.
        layout: see `path`.
        fold: see `path`.
        decode: whether every frame is decoded, or only the headers are read.
    """
    if layout == "auto":
        layout = recognise_layout(path)
        if layout is None:
            return
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always", UserWarning)
            table = list_clips(path, layout, fold)
    except (OSError, ValueError) as error:
        report.error(path, str(error))
        return
    for warning in said:
        report.warn(path, str(warning.message))
    _count(table, report, layout)
    clips = ListedClips(table, _temporary_folder(report) if layout == "hub" else None)
    facts, contents = defaultdict(list), defaultdict(list)
    for number, row in enumerate(table):
        advance(row["name"])
        try:
            source = clips[number]
            _check_clip(source, row["name"], report, decode)
        except (OSError, ValueError) as error:
            report.error(row["name"], str(error))
            continue
        report.healthy.setdefault("actions", []).append(source)
        frames = source.frames
        facts["frames"].append(frames.num_frames)
        facts["rate"].append(frames.frame_rate)
        facts["width"].append(frames.width)
        facts["height"].append(frames.height)
        facts["boxes"].append(source.actor is not None)
        contents[_fingerprint(frames.path)].append(row)
    if facts:
        report.lines.append(
            f"  {spread(facts['frames'], 'frames')} at {spread(facts['rate'], 'Hz', 2)}, {spread(facts['width'])} "
            f"wide, {spread(facts['height'], 'high')}; {sum(facts['boxes'])} with boxes of the actor"
        )
    _find_doubles(contents, table, report)


def _temporary_folder(report: DataReport) -> str:
    """A folder for videos that a table itself holds; it goes with the report, whose healthy clips lie in it."""
    folder = tempfile.mkdtemp(prefix="kinetrack-check-")
    weakref.finalize(report, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _count(table, report: DataReport, layout: str) -> None:
    names = class_names(table)
    report.lines.append(f"labelled clips (layout {layout}), {len(names)} classes")
    for part in dict.fromkeys(PARTS.values()):
        chosen = choose_part(table, part)
        labels = Counter(names[label] for label in chosen["label"][:])
        note = " (set aside from train by their names)" if part == "dev" and "dev" not in table["part"][:] else ""
        if labels:
            listed = ", ".join(f"{name} {labels[name]}" for name in names if labels[name])
            report.lines.append(f"  {part:5} {len(chosen)} clips{note}: {listed}")
        if part == "train":
            for name in names:
                if not labels[name]:
                    report.error(name, "this class has no clips to train on.")
                elif labels[name] < MIN_CLIPS:
                    report.warn(name, f"only {labels[name]} clips to train on; ten or more are a start.")


def _check_clip(source, name: str, report: DataReport, decode: bool) -> None:
    promised = source.frames.num_frames
    if decode:
        with open_pyav(source.frames.path) as video:
            count = sum(1 for _ in video.decode())
        if count < promised:
            report.warn(name, f"{promised} frames are promised and {count} can be decoded; the last is repeated.")
    if promised < MIN_FRAMES:
        report.warn(name, f"{promised} frames are less than the {MIN_FRAMES} that training usually takes.")


def _fingerprint(path: Path) -> tuple[int, int]:
    with open(path, "rb") as file:
        return path.stat().st_size, zlib.crc32(file.read(1 << 20))


def _find_doubles(contents: dict, table, report: DataReport) -> None:
    """What is in training and in test alike flatters every figure."""
    for rows in contents.values():
        if len(rows) > 1:
            parts = {row["part"] for row in rows}
            note = report.error if len(parts) > 1 else report.warn
            where = f" and in {' and '.join(sorted(parts))}" if len(parts) > 1 else ""
            note(rows[0]["name"], f"is the same video as {rows[1]['name']}{where}.")
    parts_of: dict[str, set[str]] = defaultdict(set)
    for group, part in zip(table["group"][:], table["part"][:], strict=True):
        parts_of[group].add(part)
    shared = [group for group, parts in parts_of.items() if {"train", "test"} <= parts]
    if shared:
        report.warn(shared[0], f"{len(shared)} films like this one have clips both in train and in test.")
