"""KineTracker beside ByteTrack of the `trackers` package, on identical detections.

    python -m kinetrack.hub_scripts.benchmark_association --data DATA/mot

prints HOTA, IDF1 and MOTA on the validation sequences, both trackers at their defaults and both tuned by one random
search on the training sequences (the same knobs, the same ranges, the same draws, the same objective), and milliseconds
per frame at 10, 50 and 100 objects. Detections are the public ones (`det/det.txt`), without embeddings. ByteTrack is
told each sequence's frame rate; KineTracker gets each frame's time. Scores of detectors that count in per cent are
divided by 100 for both.
"""

import argparse
import configparser
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..processing.tracking_kinetrack import Detections, KineTracker
from .atomic_files import write_json_atomically
from .metrics.mot_metrics import read_mot_rows, score_tracks

TRAIN = ("KITTI-17", "ETH-Sunnyday", "TUD-Campus", "MOT17-11-FRCNN")
VALIDATION = ("TUD-Stadtmitte", "PETS09-S2L1")
# One knob each: how long a lost track lives, when a track starts, overlap needed, what counts as a sure detection,
# sightings needed. The ranges are those that `trackers` itself searches for ByteTrack.
SEARCH_SPACE = {
    "lost_seconds": lambda rng: rng.integers(10, 92) / 30,
    "new_track": lambda rng: rng.uniform(0.1, 0.9),
    "min_iou": lambda rng: rng.uniform(0.05, 0.7),
    "high": lambda rng: rng.uniform(0.3, 0.8),
    "min_hits": lambda rng: int(rng.integers(1, 5)),
}


@dataclass(frozen=True)
class PublicDetections:
    """The public detections of one sequence.

    Attributes:
        folder: the sequence's folder, with `gt/gt.txt`.
        frame_rate: frames a second.
        frames: per frame boxes `(N, 4)` xyxy in pixels and scores `(N,)` between 0 and 1.
    """

    folder: Path
    frame_rate: float
    frames: list[tuple[np.ndarray, np.ndarray]]


def read_public_detections(folder: Path) -> PublicDetections:
    """Read `det/det.txt` and `seqinfo.ini` of a MOTChallenge sequence.

    Raises:
        FileNotFoundError: if either is missing.
    """
    rows = read_mot_rows(folder / "det" / "det.txt")
    ini = configparser.ConfigParser()
    if not ini.read(folder / "seqinfo.ini"):
        raise FileNotFoundError(f"No such file: {folder / 'seqinfo.ini'}")
    scores = rows[:, 6] / (100.0 if rows[:, 6].max(initial=0) > 1 else 1.0)
    rows[:, 6] = np.clip(scores, 0.0, 1.0)
    frames = []
    for number in range(1, int(ini["Sequence"]["seqLength"]) + 1):
        here = rows[rows[:, 0] == number]
        boxes = np.concatenate([here[:, 2:4], here[:, 2:4] + here[:, 4:6]], axis=1)
        frames.append((boxes, here[:, 6]))
    return PublicDetections(folder, float(ini["Sequence"]["frameRate"]), frames)


def kinetrack_stepper(frame_rate: float, knobs: dict | None) -> Callable:
    """A function `(boxes, scores, frame number) -> (boxes, identities)` around a new KineTracker."""
    settings = {"frame_rate": frame_rate}
    if knobs:
        settings |= {
            "max_lost_seconds": knobs["lost_seconds"],
            "new_track_threshold": knobs["new_track"],
            "min_similarity": knobs["min_iou"],
            "high_threshold": knobs["high"],
            "min_hits": knobs["min_hits"],
        }
    tracker = KineTracker(**settings)

    def step(boxes, scores, number):
        tracks = tracker.update(Detections(boxes, scores), time=number / frame_rate)
        return tracks.xyxy, tracks.track_id

    return step


def bytetrack_stepper(frame_rate: float, knobs: dict | None) -> Callable:
    """The same around a new ByteTrackTracker; it counts its buffer in frames of a 30 Hz video."""
    import supervision
    from trackers import ByteTrackTracker

    settings = {"frame_rate": frame_rate}
    if knobs:
        settings |= {
            "lost_track_buffer": round(knobs["lost_seconds"] * 30),
            "track_activation_threshold": knobs["new_track"],
            "minimum_iou_threshold": knobs["min_iou"],
            "high_conf_det_threshold": knobs["high"],
            "minimum_consecutive_frames": knobs["min_hits"],
        }
    tracker = ByteTrackTracker(**settings)

    def step(boxes, scores, number):
        result = tracker.update(supervision.Detections(xyxy=boxes, confidence=scores))
        known = result.tracker_id >= 0
        return result.xyxy[known], result.tracker_id[known]

    return step


STEPPERS = {"KineTracker": kinetrack_stepper, "ByteTrack": bytetrack_stepper}


def track_sequence(make: Callable, sequence: PublicDetections, knobs: dict | None = None) -> np.ndarray:
    """Run one tracker over one sequence; MOTChallenge rows `(N, 7)`: frame, identity, left, top, width, height, 1."""
    step = make(sequence.frame_rate, knobs)
    rows = [np.zeros((0, 7))]
    for number, (boxes, scores) in enumerate(sequence.frames, start=1):
        found, ids = step(boxes, scores, number)
        sizes = found[:, 2:] - found[:, :2]
        rows.append(np.column_stack([np.full(len(ids), number), ids, found[:, :2], sizes, np.ones(len(ids))]))
    return np.concatenate(rows)


def score_tracker(make: Callable, sequences: list[PublicDetections], knobs: dict | None = None) -> dict:
    """Scores per sequence and `COMBINED`, as `score_tracks` gives them."""
    return score_tracks(
        {sequence.folder.name: track_sequence(make, sequence, knobs) for sequence in sequences},
        {sequence.folder.name: sequence.folder for sequence in sequences},
    )


def tune(make: Callable, sequences: list[PublicDetections], draws: int, seed: int = 0) -> dict:
    """Random search; the knobs with the best mean of HOTA + IDF1 over the sequences."""
    rng = np.random.default_rng(seed)
    best, best_knobs = -1.0, None
    for _ in range(draws):
        knobs = {name: draw(rng) for name, draw in SEARCH_SPACE.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # some draws are so strict that nothing is tracked
            scores = score_tracker(make, sequences, knobs)
        value = float(np.mean([scores[s.folder.name]["HOTA"] + scores[s.folder.name]["IDF1"] for s in sequences]))
        if value > best:
            best, best_knobs = value, knobs
    return best_knobs


def crossing_objects(count: int, frames: int, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noisy boxes of `count` walkers in a full-HD frame, one in ten missed, for timing."""
    rng = np.random.default_rng(seed)
    places, speeds = rng.uniform((0, 0), (1900, 980), (count, 2)), rng.normal(0, 2, (count, 2))
    made = []
    for number in range(frames):
        corners = places + speeds * number + rng.normal(0, 1, (count, 2))
        seen = rng.random(count) > 0.1
        boxes = np.concatenate([corners, corners + (40, 100)], axis=1)[seen]
        made.append((boxes, rng.uniform(0.3, 1.0, len(boxes))))
    return made


def time_trackers(count: int, frames: int = 150, rounds: int = 3) -> dict[str, float]:
    """Median milliseconds per frame at `count` objects; alternating rounds, so that a busy machine is fair."""
    video = crossing_objects(count, frames)
    rng = np.random.default_rng(1)
    looks = [rng.normal(size=(len(boxes), 128)) for boxes, _ in video]
    spent: dict[str, list[float]] = {name: [] for name in (*STEPPERS, "KineTracker + 128-d embeddings")}
    for _ in range(rounds):
        for name, make in STEPPERS.items():
            step = make(30.0, None)
            for number, (boxes, scores) in enumerate(video):
                start = time.perf_counter()
                step(boxes, scores, number)
                spent[name].append(time.perf_counter() - start)
        tracker = KineTracker()
        for (boxes, scores), look in zip(video, looks, strict=True):
            start = time.perf_counter()
            tracker.update(Detections(boxes, scores, data={"embedding": look}))
            spent["KineTracker + 128-d embeddings"].append(time.perf_counter() - start)
    return {name: 1000 * float(np.median(times)) for name, times in spent.items()}


def run_benchmark(root: Path, draws: int, seed: int = 0) -> dict:
    """Everything the command prints, as one dictionary."""
    validation = [read_public_detections(root / "val" / name) for name in VALIDATION]
    train = [read_public_detections(root / "train" / name) for name in TRAIN]
    report = {"scores": {}, "knobs": {}, "milliseconds": {}}
    for name, make in STEPPERS.items():
        report["scores"][f"{name}, defaults"] = score_tracker(make, validation)
        if draws:
            knobs = report["knobs"][name] = tune(make, train, draws, seed)
            report["scores"][f"{name}, tuned"] = score_tracker(make, validation, knobs)
    for count in (10, 50, 100):
        report["milliseconds"][count] = time_trackers(count)
    return report


def format_report(report: dict) -> str:
    """The report as Markdown tables."""
    lines = ["| sequence | tracker | HOTA | IDF1 | MOTA | IDSW |", "|---|---|---|---|---|---|"]
    for sequence in VALIDATION:
        for tracker, scores in sorted(report["scores"].items(), key=lambda item: item[0].split(", ")[1]):
            s = scores[sequence]
            lines.append(
                f"| {sequence} | {tracker} | {s['HOTA']:.1f} | {s['IDF1']:.1f} | {s['MOTA']:.1f} | {s['IDSW']} |"
            )
    names = list(next(iter(report["milliseconds"].values())))
    lines += ["", "| objects | " + " | ".join(f"{name}, ms" for name in names) + " |", "|---" * (len(names) + 1) + "|"]
    for count, times in report["milliseconds"].items():
        lines.append(f"| {count} | " + " | ".join(f"{times[name]:.2f}" for name in names) + " |")
    for name, knobs in report["knobs"].items():
        lines += ["", f"Tuned {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in knobs.items())]
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ MOTChallenge sequences")
    parser.add_argument("--draws", type=int, default=60, help="draws of the random search; 0 leaves tuning out")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random search, the same for both trackers")
    parser.add_argument("--output", type=Path, help="also write the report to this JSON file")
    arguments = parser.parse_args()
    report = run_benchmark(arguments.data, arguments.draws, arguments.seed)
    print(format_report(report))
    if arguments.output:
        write_json_atomically(arguments.output, report)


if __name__ == "__main__":
    main()
