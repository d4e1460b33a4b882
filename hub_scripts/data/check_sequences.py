"""Looks at tracking sequences: pictures, `seqinfo.ini` and ground truth have to fit each other."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from .annotations import read_rows
from .check_report import DataReport, spread
from .sequences import find_sequences, object_classes
from .sources import read_class_names, read_seqinfo, read_sequence


def check_sequences(root: Path, report: DataReport, advance: Callable[[str], None]) -> None:
    """Adds what is to be said of the tracking sequences below a folder; nothing where there are none.

    Args:
        root: folder of sequences, or of parts with sequences.
        report: is added to.
        advance: called with the name of every sequence.
    """
    found = find_sequences(root)
    if not found:
        return
    classes = object_classes(root)
    report.lines.append("tracking sequences" + (f" of {', '.join(classes)}" if classes else " of people"))
    for part in sorted(found, reverse=True):  # train, test, dev
        for folder in found[part]:
            name = folder.relative_to(root).as_posix() if folder != root else folder.name
            advance(name)
            try:
                source = read_sequence(folder, name, classes=classes)
            except (OSError, ValueError) as error:
                report.error(name, str(error))
                continue
            if _check_sequence(folder, name, source, report):
                report.healthy.setdefault("tracking", []).append(source)
            report.lines.append(f"  {part:5} {name}: {_describe(source)}")
    copies = len(list(root.rglob("gt/gt.txt"))) - sum(len(folders) for folders in found.values())
    if copies:
        report.lines.append(f"  {copies} copies with other detections (-DPM, -FRCNN, -SDP) are not read")
    without = [images.parent for images in sorted(root.rglob("img1")) if not (images.parent / "gt/gt.txt").is_file()]
    if without:
        report.lines.append(f"  {len(without)} sequences without gt/gt.txt are not read, such as {without[0].name}")


def _describe(source) -> str:
    frames, boxes = source.frames, source.boxes
    counted = ~boxes.ignore
    return (
        f"{frames.num_frames} frames of {frames.width}x{frames.height} at {frames.frame_rate:g} Hz, "
        f"{int(counted.sum())} boxes of {len(np.unique(boxes.track_id[counted]))} identities"
        + (f", {spread(boxes.xyxy[counted, 3] - boxes.xyxy[counted, 1], 'pixels high')}" if counted.any() else "")
        + (f"; {int(boxes.ignore.sum())} ignored" if boxes.ignore.any() else "")
    )


def _check_sequence(folder: Path, name: str, source, report: DataReport) -> bool:
    """Notes what is wrong with one sequence; True where nothing is an error."""
    before = sum(problem.severity == "error" for problem in report.problems)
    _check_info(folder, name, source, report)
    rows = read_rows(folder / "gt" / "gt.txt")
    length, width, height = source.frames.num_frames, source.frames.width, source.frames.height
    beyond = (rows[:, 0] < 1) | (rows[:, 0] > length)
    if beyond.any():
        numbers = spread(rows[:, 0])
        report.error(name, f"{int(beyond.sum())} rows of gt.txt are not in frames 1 to {length}; it has {numbers}.")
    flat = (rows[:, 4:6] <= 0).any(1)
    if flat.any():
        report.error(name, f"{int(flat.sum())} boxes have no width or height, the first in frame {rows[flat][0, 0]:g}.")
    moments, counts = np.unique(rows[rows[:, 6] > 0][:, :2], axis=0, return_counts=True)
    if (counts > 1).any() and read_class_names(folder) is None:
        frame, identity = moments[counts > 1][0]
        report.error(name, f"identity {identity:g} is twice in frame {frame:g}; {int((counts > 1).sum())} such cases.")
    outside = (rows[:, 2] >= width) | (rows[:, 3] >= height) | (rows[:, 2:4] + rows[:, 4:6] <= 0).any(1)
    if len(rows) and outside.mean() > 0.02:
        report.warn(
            name,
            f"{outside.mean():.0%} of the boxes lie outside the {width}x{height} pictures: are they in pixels of "
            "another size?",
        )
    if not (~source.boxes.ignore).any():
        report.warn(name, "not one box counts: all are marked 0, of other classes, or hardly visible.")
    return sum(problem.severity == "error" for problem in report.problems) == before


def _check_info(folder: Path, name: str, source, report: DataReport) -> None:
    info = read_seqinfo(folder)
    if not info:
        report.warn(name, f"no seqinfo.ini: {source.frames.frame_rate:g} Hz are assumed, and it cannot be evaluated.")
        return
    stated = {key: info.get(key) for key in ("seqLength", "imWidth", "imHeight")}
    real = {"seqLength": source.frames.num_frames, "imWidth": source.frames.width, "imHeight": source.frames.height}
    for key, value in stated.items():
        if value is None:
            report.warn(name, f"seqinfo.ini does not say {key}.")
        elif value.strip() != str(real[key]):
            report.error(name, f"seqinfo.ini says {key}={value}, the pictures say {real[key]}.")
