"""The figures of an evaluation as pictures: who is taken for what, and precision against recall by class."""

import io

import numpy as np


def evaluation_figures(report: dict) -> dict[str, bytes]:
    """PNG files of what `kinetrack.hub_scripts.evaluate.evaluate` returns.

    Returns:
        Contents by file name: `confusion_<group>.png`, `confusion_people.png` and `precision_recall.png`, as far as the
        report has what they show.
    """
    files = {}
    confusions = dict(report.get("actions", {}))
    if "people" in report:
        confusions["people"] = report["people"]
    for group, scores in confusions.items():
        files[f"confusion_{group}.png"] = confusion_figure(np.array(scores["confusion"]), scores["names"])
    if "action_detection" in report:
        detection = report["action_detection"]
        files["precision_recall.png"] = precision_recall_figure(detection["curves"], detection["frame_ap"])
    return files


def confusion_figure(counts: np.ndarray, names: list[str]) -> bytes:
    """A confusion matrix `(C, C)`, rows the truth: colours are shares of each row, numbers are counts."""
    side = 2.0 + 0.32 * len(names)
    figure, axes = _figure(side + 0.6, side)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return _png(figure)


def precision_recall_figure(curves: dict[str, tuple[list[float], list[float]]], precision: dict[str, float]) -> bytes:
    """Small precision-recall curves by class, each with its average precision.

    Args:
        curves: precision and recall by class.
        precision: average precision by class.
    """
    columns = min(7, len(curves))
    rows = -(-len(curves) // columns)
    figure, axes = _figure(1.5 * columns, 1.5 * rows, rows, columns)
    flat = np.atleast_1d(axes).ravel()
    for place, (name, (y, x)) in zip(flat, curves.items(), strict=False):
        place.step([0, *x], [y[0] if y else 0, *y], where="pre", linewidth=1)
        place.set_title(f"{name} {precision[name]:.2f}", fontsize=7)
        place.set(xlim=(0, 1), ylim=(0, 1.02))
        place.tick_params(labelsize=5)
    for place in flat[len(curves) :]:
        place.axis("off")
    figure.supxlabel("recall", fontsize=8)
    figure.supylabel("precision", fontsize=8)
    return _png(figure)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1):
    """A figure that no window system is asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _png(figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
