"""Multi-object tracking scores by TrackEval, the reference implementation, as a metric of the `evaluate` library.

    metric = evaluate.load("hub_scripts/metrics/mot_metrics.py")
    metric.compute(predictions=["out/TUD-Stadtmitte/tracks.txt"], references=["data/TUD-Stadtmitte"])

HOTA, DetA and AssA follow Luiten et al. (arXiv 2009.07736), MOTA, MOTP, switches and fragments the CLEAR metrics, IDF1
Ristani et al. (arXiv 1609.01775). All shares are per cent. MOTP is the mean IoU of the matches, higher is better (some
libraries print 1 − that). MOT17 preprocessing is on: predictions on distractors (classes 2, 7, 8 and 12) are dropped,
and rows marked 0 do not count. This file stands alone, because `evaluate` copies it elsewhere before it imports it.
"""

import configparser
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import datasets
import evaluate
import numpy as np

_CITATION = "Luiten et al., HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking, IJCV 2021."
_PERCENT = {
    "HOTA": ("HOTA", "HOTA"),
    "DetA": ("HOTA", "DetA"),
    "AssA": ("HOTA", "AssA"),
    "MOTA": ("CLEAR", "MOTA"),
    "MOTP": ("CLEAR", "MOTP"),
    "IDF1": ("Identity", "IDF1"),
}
_COUNTS = {
    "IDSW": ("CLEAR", "IDSW"),
    "Frag": ("CLEAR", "Frag"),
    "FP": ("CLEAR", "CLR_FP"),
    "FN": ("CLEAR", "CLR_FN"),
}


class MOTMetrics(evaluate.Metric):
    """HOTA, DetA, AssA, MOTA, MOTP, IDF1, IDSW, Frag, FP and FN of MOTChallenge result files."""

    def _info(self):
        return evaluate.MetricInfo(
            description="Multi-object tracking scores by TrackEval.",
            citation=_CITATION,
            inputs_description="predictions: result files in MOTChallenge form; references: the sequences' folders.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(self, predictions, references, style="auto"):
        pairs = {Path(folder).name: (file, folder) for file, folder in zip(predictions, references, strict=True)}
        if len(pairs) < len(references):
            raise ValueError("Two references have the same folder name: sequences are told apart by it.")
        scores = score_tracks(
            {name: file for name, (file, _) in pairs.items()},
            {name: folder for name, (_, folder) in pairs.items()},
            style=style,
        )
        return {**scores["COMBINED"], "sequences": {name: scores[name] for name in pairs}}


def score_tracks(
    predictions: Mapping[str, str | Path | np.ndarray],
    references: Mapping[str, str | Path],
    style: str = "auto",
    frames: Mapping[str, tuple[int, int]] | None = None,
    classes: Mapping[str, int] | None = None,
) -> dict[str, dict[str, float]]:
    """Score tracking results against MOTChallenge ground truth.

    Args:
        predictions: per sequence name, a result file or its rows `(N, ≥ 6)`: frame (from 1), identity, left, top,
            width, height in
            pixels of the annotated video, then a score.
        references: per sequence name, the folder with `gt/gt.txt` and `seqinfo.ini`.
        style: "MOT15" (no classes), "MOT16", "MOT17" or "MOT20" (classes, distractors removed); "auto" looks at the
            file.
        frames: per sequence name, first and last frame to score (inclusive), for halves of a sequence; all by default.
        classes: per sequence name, the number in the class column of what is scored instead of pedestrians; all else is
            left out. For ground truth with classes of its own, such as CVAT's.

    Returns:
        `{sequence: scores, …, "COMBINED": scores}`; see the module's text.

    Raises:
        FileNotFoundError: if a ground truth or result file is missing.
        ValueError: if frame numbers do not fit the sequence, a file is malformed, or an identity appears twice in a
        frame.
    """
    from trackeval.metrics import CLEAR, HOTA, Identity

    if set(predictions) != set(references):
        odd = sorted(set(predictions) ^ set(references))
        raise ValueError(f"Predictions and references must name the same sequences; only one side has {odd}.")
    metrics = {
        "HOTA": HOTA(),
        "CLEAR": CLEAR({"THRESHOLD": 0.5, "PRINT_CONFIG": False}),
        "Identity": Identity({"THRESHOLD": 0.5, "PRINT_CONFIG": False}),
    }
    raw = {}
    for name, folder in references.items():
        chosen = ((frames or {}).get(name), (classes or {}).get(name))
        data = _preprocess(name, predictions[name], Path(folder), style, *chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # empty results divide by zero inside
            raw[name] = {metric: scorer.eval_sequence(data) for metric, scorer in metrics.items()}
    table = {name: _summary(result) for name, result in raw.items()}
    combined = {
        metric: scorer.combine_sequences({name: result[metric] for name, result in raw.items()})
        for metric, scorer in metrics.items()
    }
    table["COMBINED"] = _summary(combined)
    return table


def read_sequence_length(folder: Path) -> int:
    """Number of frames that `seqinfo.ini` states, or else the last annotated frame."""
    ini = folder / "seqinfo.ini"
    if ini.is_file():
        parser = configparser.ConfigParser()
        try:
            parser.read(ini)
            return int(parser["Sequence"]["seqLength"])
        except (configparser.Error, KeyError, ValueError) as error:
            raise ValueError(f"{ini} has no [Sequence] part with a number seqLength: {error}") from error
    return int(read_mot_rows(folder / "gt" / "gt.txt")[:, 0].max())


def read_mot_rows(file: str | Path) -> np.ndarray:
    """Rows of a MOTChallenge text file, `(N, columns)`; an empty file gives `(0, 10)`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a row is not numbers.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"No such file: {file}")
    if not file.read_text().strip():
        return np.zeros((0, 10))
    try:
        return np.loadtxt(file, delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{file} is not comma-separated numbers as MOTChallenge files are: {error}") from error


def detect_style(rows: np.ndarray, name: str = "") -> str:
    """Tell MOT17 or MOT20 ground truth (classes in the eighth column) from MOT15 (none)."""
    has_classes = len(rows) and rows.shape[1] >= 8 and np.isin(rows[:, 7], np.arange(1, 14)).all()
    if not has_classes:
        return "MOT15"
    return "MOT20" if name.startswith("MOT20") else "MOT17"


def _preprocess(
    name: str, prediction, folder: Path, style: str, window: tuple[int, int] | None, number: int | None
) -> dict:
    """Ground truth and predictions of one sequence, as TrackEval's own data set class prepares them."""
    from trackeval.datasets import MotChallenge2DBox
    from trackeval.utils import TrackEvalException

    truth = read_mot_rows(folder / "gt" / "gt.txt")
    rows = prediction if isinstance(prediction, np.ndarray) else read_mot_rows(prediction)
    length = read_sequence_length(folder)
    first, last = window or (1, length)
    _check_rows(name, rows, truth, length)
    _check_span(name, rows, truth, first, last)
    truth, rows = (part[(part[:, 0] >= first) & (part[:, 0] <= last)].copy() for part in (truth, rows))
    truth[:, 0] -= first - 1
    rows[:, 0] -= first - 1
    benchmark = detect_style(truth, name) if style == "auto" else style
    if number is not None:
        truth, benchmark = truth[truth[:, 7] == number], "MOT15"  # which has no classes
    # TrackEval takes pedestrians only; whatever the result file says in its class column, one class is scored.
    result = np.full((len(rows), 10), -1.0)
    result[:, :6] = rows[:, :6]
    result[:, 6] = rows[:, 6] if rows.shape[1] > 6 else 1.0
    with tempfile.TemporaryDirectory() as work:
        gt_file, result_file = Path(work, "gt", name, "gt", "gt.txt"), Path(work, "results", "tracker", f"{name}.txt")
        for file, content in ((gt_file, truth), (result_file, result)):
            file.parent.mkdir(parents=True)
            np.savetxt(file, content, delimiter=",", fmt=["%d", "%d"] + ["%.9g"] * (content.shape[1] - 2))
        try:
            dataset = MotChallenge2DBox(
                {
                    "GT_FOLDER": str(Path(work, "gt")),
                    "TRACKERS_FOLDER": str(Path(work, "results")),
                    "TRACKERS_TO_EVAL": ["tracker"],
                    "TRACKER_SUB_FOLDER": "",
                    "BENCHMARK": benchmark,
                    "SEQ_INFO": {name: last - first + 1},
                    "SKIP_SPLIT_FOL": True,
                    "PRINT_CONFIG": False,
                }
            )
            return dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data("tracker", name), "pedestrian")
        except TrackEvalException as error:
            raise ValueError(f"TrackEval refused sequence {name}: {error}") from error


def _check_rows(name: str, rows: np.ndarray, truth: np.ndarray, length: int) -> None:
    """Say plainly what is wrong with a result file before the scores only look bad."""
    if rows.ndim != 2 or (len(rows) and rows.shape[1] < 6):
        raise ValueError(f"{name}: rows need frame, id, left, top, width, height; got shape {rows.shape}.")
    if not len(truth):
        raise ValueError(f"{name}: the ground truth is empty.")
    if truth[:, 0].max() > length:
        raise ValueError(f"{name}: ground truth reaches frame {truth[:, 0].max():.0f}, seqinfo.ini states {length}.")
    if not len(rows):
        warnings.warn(f"{name}: the result is empty; recall is zero.", stacklevel=4)
        return
    if not np.isfinite(rows[:, :6]).all():
        raise ValueError(f"{name}: the result holds numbers that are not finite.")
    first, last = int(rows[:, 0].min()), int(rows[:, 0].max())
    if first < 1:
        raise ValueError(f"{name}: the result starts at frame {first}; MOTChallenge counts from 1. Add {1 - first}.")
    if last > length:
        raise ValueError(
            f"{name}: the result reaches frame {last}, the sequence has {length}. Was another video or frame rate used?"
        )


def _check_span(name: str, rows: np.ndarray, truth: np.ndarray, first: int, last: int) -> None:
    """Say when results seem to belong to other frames of the sequence than those they are numbered as."""
    if not len(rows):
        return
    here = rows[(rows[:, 0] >= first) & (rows[:, 0] <= last)]
    if not len(here):
        raise ValueError(
            f"{name}: frames {first} to {last} are scored, the result has frames {rows[:, 0].min():.0f} to "
            f"{rows[:, 0].max():.0f}. Frames of a part are numbered as in the whole sequence: is {first - 1} to be "
            "added?"
        )
    truth = truth[(truth[:, 0] >= first) & (truth[:, 0] <= last)]
    end = truth[:, 0].max() if len(truth) else last
    if here[:, 0].max() < first + 0.75 * (end - first):
        warnings.warn(
            f"{name}: the result ends at frame {here[:, 0].max():.0f}, the ground truth at {end:.0f}. Was a shorter "
            "cut of the video used?",
            stacklevel=5,
        )
    recall = _sampled_recall(here, truth)
    if not len(truth) or 0.1 + 1.3 * recall >= 1:
        return  # nothing can be that much better
    _check_offset(name, here, truth, recall)
    _check_scale(name, here, truth, recall)


def _check_offset(name: str, rows: np.ndarray, truth: np.ndarray, recall: float) -> None:
    found = {shift: _sampled_recall(rows, truth, shift) for shift in sorted(range(-30, 31), key=abs)}
    best = max(found, key=lambda shift: found[shift])  # the smallest of those that are equally good
    if found[best] > 0.1 + 1.3 * recall:
        warnings.warn(
            f"{name}: boxes fit the ground truth better {abs(best)} frames {'later' if best > 0 else 'earlier'} "
            f"(recall {found[best]:.2f} instead of {recall:.2f}). Are the frames numbered from 1, without an "
            "offset?",
            stacklevel=6,
        )


def _check_scale(name: str, rows: np.ndarray, truth: np.ndarray, recall: float) -> None:
    height = np.median(truth[:, 5]) / max(np.median(rows[:, 5]), 1e-9)
    guesses = [(height, height), tuple(_reach(truth) / np.maximum(_reach(rows), 1e-9))]
    usual = [1 / 3, 0.375, 0.5, 5 / 9, 0.6, 2 / 3, 0.75, 0.8]
    guesses += [(factor, factor) for factor in (*usual, *(1 / factor for factor in usual))]
    found = {factors: _sampled_recall(rows, truth, factors=factors) for factors in guesses}
    best = max(found, key=lambda factors: found[factors])
    if found[best] > max(0.4, 0.1 + 1.3 * recall):  # of many factors one fits a little by chance
        warnings.warn(
            f"{name}: boxes fit the ground truth better with {best[0]:.3g} times their x and {best[1]:.3g} times their "
            f"y (recall {found[best]:.2f} instead of {recall:.2f}). Are they in pixels of another resolution?",
            stacklevel=6,
        )


def _reach(rows: np.ndarray) -> np.ndarray:
    """How far most boxes reach to the right and down, (2,)."""
    return np.percentile(rows[:, 2:4] + rows[:, 4:6], 99, axis=0)


def _sampled_recall(
    rows: np.ndarray, truth: np.ndarray, shift: int = 0, factors: tuple[float, float] = (1.0, 1.0), samples: int = 40
) -> float:
    """Share of annotated boxes that a result overlaps by half, in a few frames.

    Args:
        rows: the result.
        truth: what is annotated.
        shift: is added to the result's frame numbers.
        factors: multiply the result's boxes, in x and in y.
        samples: how many frames are looked at.
    """
    numbers = np.unique(truth[:, 0])
    numbers = numbers[np.linspace(0, len(numbers) - 1, min(samples, len(numbers))).astype(int)]
    found = total = 0
    for number in numbers:
        wanted, given = truth[truth[:, 0] == number, 2:6], np.tile(factors, 2) * rows[rows[:, 0] == number - shift, 2:6]
        total += len(wanted)
        if not len(given):
            continue
        low = np.maximum(wanted[:, None, :2], given[None, :, :2])
        high = np.minimum(wanted[:, None, :2] + wanted[:, None, 2:], given[None, :, :2] + given[None, :, 2:])
        shared = np.clip(high - low, 0, None).prod(2)
        union = wanted[:, None, 2:].prod(2) + given[None, :, 2:].prod(2) - shared
        found += int((shared >= 0.5 * np.maximum(union, 1e-9)).any(1).sum())
    return found / max(total, 1)


def _summary(result: dict) -> dict[str, float]:
    """The scores people quote, shares in per cent."""
    shares = {key: 100 * float(np.mean(result[metric][field])) for key, (metric, field) in _PERCENT.items()}
    return {**shares, **{key: int(result[metric][field]) for key, (metric, field) in _COUNTS.items()}}
