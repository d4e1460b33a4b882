"""Looks at data before they are trained on: what is there, what is broken and why, and a picture of it."""

import os
from pathlib import Path

import numpy as np

from .check_clips import check_clips
from .check_report import DataReport
from .check_sequences import check_sequences
from .clips import ACTION_FORM, MOT_FORM, ActionClips, MotClips
from .contact_sheet import draw_contact_sheet

SHEET_ROWS = 8


def check_data(
    path: str | os.PathLike,
    output: str | os.PathLike | None = None,
    layout: str = "auto",
    fold: int = 1,
    decode: bool = True,
    progress: bool = False,
) -> DataReport:
    """Looks at tracking sequences, labelled clips, or both.

    Args:
        path: a folder, a CSV file, or the id of a data set on the Hub.
        output: folder for `tracking.png` and `actions.png`, clips as training varies them, with their boxes.
        layout: of labelled clips, one of `layouts.LAYOUTS`; "auto" looks.
        fold: official split of UCF-101 or HMDB-51.
        decode: decode every frame of the clips; else only their headers are read.
        progress: show a progress bar.

    Raises:
        FileNotFoundError: there is nothing that could be trained on.
    """
    from tqdm import tqdm

    report = DataReport(str(path))
    with tqdm(disable=not progress, unit="item") as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name[-40:])
            bar.update()

        if Path(path).is_dir():
            check_sequences(Path(path), report, advance)
        check_clips(str(path), report, advance, layout, fold, decode)
    if not report.lines and not report.problems:
        raise FileNotFoundError(
            f"There is nothing at {path} to train on: expected tracking sequences (<sequence>/gt/gt.txt beside img1/ "
            "or video.mp4), videos in class folders, UCF-101, HMDB-51, a CSV file, or a data set of the Hub."
        )
    if output is not None:
        _draw(report, Path(output))
    return report


def _draw(report: DataReport, folder: Path) -> None:
    """A few clips of each task, spread over what is healthy."""
    for task, make, form in (("tracking", MotClips, MOT_FORM), ("actions", ActionClips, ACTION_FORM)):
        sources = report.healthy.get(task)
        if not sources:
            continue
        folder.mkdir(parents=True, exist_ok=True)
        clips = make(sources, form)
        chosen = np.unique(np.linspace(0, len(clips) - 1, min(SHEET_ROWS, len(clips))).astype(int))
        draw_contact_sheet(clips, [(0, int(index)) for index in chosen], folder / f"{task}.png")
        report.lines.append(f"picture: {folder / f'{task}.png'}")
