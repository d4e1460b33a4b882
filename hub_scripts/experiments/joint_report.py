"""Figures and sentences that the experiments on jointly trained models have in common."""

from collections.abc import Iterable

import numpy as np

from .experiment import Results, Table, spread
from .statistics import Interval, bootstrap_difference, bootstrap_mean

ALONE = {"actions": "actions", "tracking": "tracking"}  # by task, the variant that learns nothing else
LEAST_SEEDS = 3  # from which on a difference between trainings can count as shown
SCORES = ("HOTA", "IDF1")  # of tracking, which differences are drawn of


def does(results: Results, name: str, task: str) -> bool:
    """Whether a variant was measured on a task."""
    return task in results.measures(name)[0]


def gap_between(results: Results, first: str, second: str, score: str, level: float) -> Interval:
    """Points between two variants of "top-1" or of a tracking score."""
    if score == "top-1":
        return action_gap(results, first, second, level)
    return score_gap(results, first, second, score, level)


def action_gap(results: Results, first: str, second: str, level: float) -> Interval:
    """Points of top-1 on `val` between two variants, paired on films."""
    return results.difference((first, "actions", "hits"), (second, "actions", "hits"), level)


def stretches(results: Results, name: str, score: str) -> np.ndarray:
    """`(S, stretches)` of a tracking score."""
    return np.array([measures["tracking"]["stretches"][score] for measures in results.measures(name)], np.float64)


def score_gap(results: Results, first: str, second: str, score: str, level: float) -> Interval:
    """Points of a tracking score between two variants, paired on stretches of `mot/val`."""
    return bootstrap_difference(*(stretches(results, name, score) for name in (first, second)), level=level, scale=1)


def score_table(results: Results, names: Iterable[str]) -> Table:
    """Every variant's scores on both tasks."""
    rows = []
    for name in names:
        row = [name]
        if does(results, name, "actions"):
            interval = results.accuracy(name, "actions", "hits")
            row += [spread(100 * results.hits(name, "actions", "hits").mean(1))]
            row += [f"{interval.low:.1f} to {interval.high:.1f}"]
        else:
            row += ["–", "–"]
        if does(results, name, "tracking"):
            whole = [results.values(name, "tracking", "whole", "COMBINED", key) for key in ("HOTA", "IDF1", "MOTA")]
            interval = bootstrap_mean(stretches(results, name, "HOTA"), scale=1)
            row += [spread(values) for values in whole]
            row += [f"{interval.low:.1f} to {interval.high:.1f}", spread(results.values(name, "tracking", "ap50"))]
        else:
            row += ["–"] * 5
        rows.append(row)
    return Table(
        "Top-1 on JHMDB `val` with intervals over films and seeds; HOTA, IDF1 and MOTA by TrackEval on the whole of "
        f"{tracked_on(results)} (mean ± standard deviation over seeds), HOTA's interval over stretches and seeds; "
        "average precision of detections at IoU 0.5.",
        ["", "top-1", "95 % interval", "HOTA", "IDF1", "MOTA", "95 % interval of a stretch's HOTA", "AP50"],
        rows,
    )


def tracked_on(results: Results) -> str:
    """Names of the sequences that tracking was measured on."""
    return " and ".join(dict.fromkeys(stretch.rsplit(" ", 1)[0] for stretch in results.data["stretches"]))


def few_seeds(results: Results, *names: str) -> bool:
    """Whether any of some variants (of all by default) has fewer seeds than `LEAST_SEEDS`.

    The interval of a difference then hardly knows other trainings than these, so that nothing is shown of training.
    """
    return min(len(results.measures(name)) for name in names or results.variants()) < LEAST_SEEDS


def seed_note(results: Results) -> str:
    """For a verdict, where some variant has few."""
    counts = sorted({len(results.measures(name)) for name in results.variants()})
    said = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f" ({said} seed{'' if said == '1' else 's'})" if few_seeds(results) else ""


def judge(results: Results, gap: Interval, first: str, second: str, better: str, worse: str) -> str:
    """What a difference between two variants shows, by rule."""
    if not gap.excludes_zero:
        return "not shown to differ"
    word = better if gap.mean > 0 else worse
    return f"{word} in these trainings, too few to show it" if few_seeds(results, first, second) else word


def scope(results: Results, gaps: Iterable[Interval]) -> str:
    """What the figures do not say."""
    protocol, data = results.protocol, results.data
    seeds = sorted({len(results.measures(name)) for name in results.variants()})
    counts = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    wide = max((gap.high - gap.low) / 2 for gap in gaps)
    return (
        f"**Not shown.** These are short trainings: {protocol['steps']} steps of {protocol['action_clips']} clips and "
        f"{protocol['windows']} windows, on small frames, with all but the last two stages of the encoder frozen and "
        "no change of colours or scale; far from what kinetrack-nano was trained for. Their number was raised from "
        f"120 after a look at what those had given on `val`. {data['val_clips']} clips of "
        f"{data['val_films']} films and {counts} seed{'' if counts == '1' else 's'} a variant; the widest interval "
        f"would not show a difference below {wide:.0f} points. Tracking was measured on {tracked_on(results)} alone, "
        f"in {len(data['stretches'])} stretches that follow one another, so its intervals are rough and say nothing of "
        "other scenes; what else `mot/val` has was left out before these runs, since a pilot hardly found the smaller "
        "people there. "
        + (
            f"With fewer than {LEAST_SEEDS} seeds a variant, intervals speak of these very trainings: other first "
            "weights and another order of batches may change more than they say, so no difference counts as shown. "
            if few_seeds(results)
            else ""
        )
        + "Longer trainings, larger models or other data may differ."
    )
