"""Figures as pictures: who is taken for what, precision against recall, failures of tracking, curves of a training."""

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
    return _encoded(figure, format="png")


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
    return _encoded(figure, format="png")


def curves_figure(panels: dict[str, dict[str, tuple[list[float], list[float]]]]) -> bytes:
    """Curves over the steps of a training: by panel and name their steps and values."""
    figure, axes = _figure(4.2 * len(panels), 3.2, 1, len(panels))
    for place, (title, curves) in zip(np.atleast_1d(axes).ravel(), panels.items(), strict=True):
        for name, (steps, values) in curves.items():
            place.plot(steps, values, linewidth=1, marker="." if len(steps) < 20 else None, label=name)
        place.set_title(title, fontsize=9)
        place.set_xlabel("step", fontsize=8)
        place.tick_params(labelsize=7)
        place.set_ylim(bottom=0)
        place.legend(fontsize=7)
    return _encoded(figure, format="png")


_ERRORS = {"found": ("tracked", "lime"), "changed": ("identity changed", "magenta"), "missed": ("missed", "red")}
_ERRORS |= {"false": ("on nobody", "yellow")}


def failure_figure(shown: list[tuple[np.ndarray, object]]) -> bytes:
    """Frames with what is right and wrong in them, as a JPEG file.

    Args:
        shown: pictures `(H, W, 3)` of 8 bits, and their `FrameErrors`.
    """
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    height, width = shown[0][0].shape[:2]
    figure, axes = _figure(6.0 * columns, (6.0 * height / width + 0.4) * rows, rows, columns)
    flat = np.atleast_1d(axes).ravel()
    for place, (image, errors) in zip(flat, shown, strict=False):
        place.imshow(image)
        said = []
        for kind, (name, colour) in _ERRORS.items():
            boxes = getattr(errors, kind)
            said += [f"{len(boxes)} {name}"] * bool(len(boxes))
            for left, top, right, bottom in boxes:
                frame = {"fill": False, "edgecolor": colour, "linewidth": 1 if kind == "found" else 1.8}
                place.add_patch(_rectangle(left, top, right - left, bottom - top, **frame))
        for (left, top, *_), (before, now) in zip(errors.changed, errors.identities, strict=True):
            place.text(left, top - 3, f"{before} → {now}", color="magenta", fontsize=8, weight="bold")
        place.set_title(f"frame {errors.frame}: {', '.join(said)}", fontsize=9)
    for place in flat:
        place.axis("off")
    figure.suptitle("; ".join(f"{colour}: {name}" for name, colour in _ERRORS.values()), fontsize=10)
    return _encoded(figure, format="jpg", pil_kwargs={"quality": 80})


def _rectangle(*corner_and_size, **options):
    from matplotlib.patches import Rectangle

    return Rectangle(corner_and_size[:2], *corner_and_size[2:], **options)


def _figure(width: float, height: float, rows: int = 1, columns: int = 1):
    """A figure that no window system is asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)


def _encoded(figure, **options) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, dpi=110, **options)
    return content.getvalue()
