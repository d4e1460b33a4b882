"""Pictures of reports: small, on white, without a display."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..atomic_files import atomic_path
from .statistics import Interval


def new_figure(width: float, height: float, columns: int = 1, rows: int = 1, **options) -> tuple[Figure, np.ndarray]:
    """A figure and its axes as a two-dimensional array; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG file whole or not at all."""
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=100)


def draw_intervals(
    axes: Axes,
    names: Sequence[str],
    seeds: Sequence[np.ndarray],
    intervals: Sequence[Interval],
    color: str = "tab:blue",
) -> None:
    """One line a variant: a dot for every seed, the mean, and its interval.

    Args:
        axes: where to draw.
        names: of the variants, from top to bottom.
        seeds: figures of the seeds of each.
        intervals: of the means.
        color: of the means.
    """
    places = np.arange(len(names))[::-1]
    for place, values, interval in zip(places, seeds, intervals, strict=True):
        axes.plot([interval.low, interval.high], [place, place], color=color, linewidth=2, alpha=0.5)
        axes.plot(values, np.full(len(values), place), ".", color="0.35", markersize=5, zorder=3)
        axes.plot(interval.mean, place, "o", color=color, markersize=8)
    axes.set_yticks(places, names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)


def draw_point(axes: Axes, place: float, seeds: np.ndarray, interval: Interval, label: str, left: bool = False) -> None:
    """A variant in a picture of one figure against another: a dot for every seed, the mean, and its interval.

    Args:
        axes: where to draw.
        place: along the horizontal axis.
        seeds: figures of the seeds.
        interval: of their mean.
        label: beside the upper end of the interval.
        left: whether it stands on the left.
    """
    axes.plot([place, place], [interval.low, interval.high], color="tab:blue", linewidth=2, alpha=0.5)
    axes.plot(np.full(len(seeds), place), seeds, ".", color="0.35", markersize=5, zorder=3)
    axes.plot(place, interval.mean, "o", color="tab:blue", markersize=8)
    offset, side = ((-4, -4), "right") if left else ((4, -4), "left")
    axes.annotate(label, (place, interval.high), offset, textcoords="offset points", fontsize=8, ha=side, va="top")


def draw_differences(axes: Axes, names: Sequence[str], differences: Sequence[Interval], colors: Sequence[str]) -> None:
    """One line a difference, from top to bottom, about a line at zero: the mean and its interval."""
    axes.axvline(0, color="0.6", linewidth=1)
    for place, (gap, color) in enumerate(zip(differences, colors, strict=True)):
        axes.plot([gap.low, gap.high], [place, place], color=color, linewidth=2, alpha=0.5)
        axes.plot(gap.mean, place, "o", color=color, markersize=7)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def draw_course(axes: Axes, series: np.ndarray, color: str, label: str, style: str = "-") -> None:
    """What `(seeds, pieces)` was over the course of a training: the mean, and the range of the seeds as a band."""
    places = (np.arange(series.shape[1]) + 0.5) * 100 / series.shape[1]
    axes.plot(places, series.mean(0), style, color=color, label=label)
    axes.fill_between(places, series.min(0), series.max(0), color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel("share of the training, %")


def draw_changes(axes: Axes, values: np.ndarray, rows: Sequence[str], columns: Sequence[str], strongest: float) -> None:
    """A table of numbers, coloured by how far each lies above (blue) or below (red) the first of its row.

    Args:
        axes: where to draw.
        values: `(rows, columns)`.
        rows: their names.
        columns: their names.
        strongest: the change that has the full colour.
    """
    axes.imshow(values - values[:, :1], cmap="RdBu", vmin=-strongest, vmax=strongest, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.1f}", ha="center", va="center")
