"""Pictures of where tracking fails worst in a sequence: identities that change, people missed, boxes on nobody.

`kinetrack evaluate --output` makes them for every sequence. For tracks that are there already, of all of a sequence or,
with `--first`, of a part:

    python -m kinetrack.hub_scripts.evaluation_failures SEQUENCE tracks.txt --output failures.jpg
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from .atomic_files import write_atomically
from .data.annotations import FrameBoxes, box_iou, read_mot_ground_truth
from .evaluation_items import Sequence, check_sequences, sequence_frames
from .metrics.evaluation_figures import failure_figure

MIN_IOU = 0.5
OF_EACH = 2  # frames shown of each kind of error
APART = 10  # frames between two that are shown


@dataclass(frozen=True)
class FrameErrors:
    """What is right and wrong in one frame; boxes are `(n, 4)` corners in pixels of the video.

    Attributes:
        frame: its number, from 1.
        found: annotated boxes with the identity that they had before.
        changed: those that have another one.
        missed: annotated boxes without a track.
        false: tracks on nothing that is annotated.
        identities: of `changed`, `(n, 2)`: the identity before, and now.
    """

    frame: int
    found: np.ndarray
    changed: np.ndarray
    missed: np.ndarray
    false: np.ndarray
    identities: np.ndarray


def read_errors(sequence: Sequence, rows: np.ndarray, number: int | None = None) -> list[FrameErrors]:
    """Compares tracks with the ground truth, as the CLEAR metrics do (Bernardin and Stiefelhagen, 2008).

    What was matched before stays so while it overlaps by half; the rest is matched by overlap.

    Args:
        sequence: with `gt/gt.txt`.
        rows: MOTChallenge rows `(N, >= 6)`: frame from 1, identity, left, top, width, height.
        number: of the class in question, for ground truth with classes of its own; else it is pedestrians.

    Returns:
        An entry a frame.
    """
    file = sequence.folder / "gt" / "gt.txt"
    classes = None if number is None else {number: 0}
    truth = read_mot_ground_truth(file, sequence.folder.name, min_visibility=0.0, class_numbers=classes)
    first, last = sequence.part or (1, int(max(truth.frame.max(initial=-1) + 1, rows[:, 0].max(initial=0))))
    known: dict[int, int] = {}
    return [_compare(frame, truth.at(frame - 1), rows[rows[:, 0] == frame], known) for frame in range(first, last + 1)]


def _compare(frame: int, truth: FrameBoxes, rows: np.ndarray, known: dict[int, int]) -> FrameErrors:
    """One frame; `known`, the last identity of everybody annotated, is brought up to date."""
    wanted, keys = truth.xyxy[~truth.ignore], truth.track_id[~truth.ignore]
    given, identities = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1), rows[:, 1].astype(int)
    overlap = box_iou(wanted, given)  # (M, N)
    before = np.array([known.get(int(key), -1) for key in keys])
    worth = np.where(overlap >= MIN_IOU, overlap + 1000.0 * (before[:, None] == identities[None]), 0.0)
    pairs = np.stack(linear_sum_assignment(-worth), 1)
    pairs = pairs[worth[pairs[:, 0], pairs[:, 1]] > 0]  # (P, 2)
    changed = np.array([before[one] not in (-1, identities[other]) for one, other in pairs], bool)
    known |= {int(keys[one]): int(identities[other]) for one, other in pairs}
    alone = np.setdiff1d(np.arange(len(given)), pairs[:, 1])
    excused = box_iou(given[alone], truth.xyxy[truth.ignore]).max(1, initial=0.0) >= MIN_IOU
    kept, moved = pairs[~changed], pairs[changed]
    return FrameErrors(
        frame,
        found=wanted[kept[:, 0]],
        changed=wanted[moved[:, 0]],
        missed=np.delete(wanted, pairs[:, 0], 0),
        false=given[alone[~excused]],
        identities=np.stack([before[moved[:, 0]], identities[moved[:, 1]]], 1),
    )


def worst_moments(errors: list[FrameErrors]) -> list[FrameErrors]:
    """Frames with the most errors of each kind, not close to each other, in their order."""
    chosen: list[FrameErrors] = []
    for kind in ("changed", "missed", "false"):
        count = 0
        for entry in sorted(errors, key=lambda entry: -len(getattr(entry, kind))):
            near = any(abs(entry.frame - other.frame) < APART for other in chosen)
            if count < OF_EACH and not near and len(getattr(entry, kind)):
                chosen.append(entry)
                count += 1
    return sorted(chosen, key=lambda entry: entry.frame)


def draw_failures(sequence: Sequence, rows: np.ndarray, number: int | None = None) -> bytes | None:
    """A JPEG file of the worst moments of a sequence; None where nothing is wrong. Arguments as for `read_errors`."""
    moments = {entry.frame: entry for entry in worst_moments(read_errors(sequence, rows, number))}
    if not moments:
        return None
    first = sequence.part[0] if sequence.part else 1
    frames = enumerate(sequence_frames(sequence), start=first)
    return failure_figure([(frame.image, moments[place]) for place, frame in frames if place in moments])


def main() -> None:
    """Draws the tracks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequence", type=Path, help="folder with gt/gt.txt, seqinfo.ini, and video.mp4 or img1/")
    parser.add_argument("tracks", type=Path, help="result file in MOTChallenge form")
    parser.add_argument("--first", type=int, default=1, help="the frame of the sequence that is frame 1 of the tracks")
    parser.add_argument("--output", type=Path, default=Path("failures.jpg"), help="default: failures.jpg")
    arguments = parser.parse_args()
    from .metrics.mot_metrics import read_mot_rows  # slow to import

    try:
        rows = read_mot_rows(arguments.tracks)
        rows[:, 0] += arguments.first - 1
        part = None if arguments.first == 1 or not len(rows) else (arguments.first, int(rows[:, 0].max()))
        sequence = Sequence(arguments.sequence, part)
        check_sequences([sequence])
        picture = draw_failures(sequence, rows)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if picture is None:
        print("Nothing is wrong with these tracks.")
        return
    write_atomically(arguments.output, picture)
    print(arguments.output)


if __name__ == "__main__":
    main()
