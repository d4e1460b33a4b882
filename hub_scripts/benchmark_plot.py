"""A benchmark's report as a picture."""

from pathlib import Path

from .atomic_files import atomic_path
from .benchmark_report import device_name, model_input


def plot_report(report: dict, path: Path) -> bool:
    """Draws frames a second by backend, where a clip's time goes, cost by length, and rivals, as far as they are there.

    Args:
        report: of `run_benchmark`.
        path: a PNG file.

    Returns:
        Whether there was anything to draw.
    """
    panels = [panel for part, panel in _PANELS if report.get(part)]
    if not panels:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4 * len(panels), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        panel(axes, report)
        axes.spines[["top", "right"]].set_visible(False)
    machine = report["machine"]
    figure.suptitle(f"{device_name(machine)}, {machine['threads']} threads, {machine['date'][:10]}")
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120)
    return True


def _draw_speed(axes, report) -> None:
    rows = report["speed"][::-1]  # the first on top
    names = [f"{row['backend']}, {model_input(row)}" for row in rows]
    bars = axes.barh(names, [row["frames_per_second"] for row in rows], color="tab:blue")
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.margins(x=0.1)
    axes.set(title="From a file to tracks and actions", xlabel="frames a second")


def _draw_parts(axes, report) -> None:
    rows = [row for row in report["parts"] if row["frames"]]
    keys = sorted({(row["preset"], tuple(row["model_input"]), row["dtype"]) for row in rows})
    for preset, size, dtype in keys:
        chosen = [
            row for row in rows if (row["preset"], tuple(row["model_input"]), row["dtype"]) == (preset, size, dtype)
        ]
        label = f"{preset} {model_input(chosen[0])} {dtype}"
        axes.plot([row["frames"] for row in chosen], [row["ms_per_frame"] for row in chosen], "o-", label=label)
    axes.set(title="Cost of a clip's frame", xlabel="T", ylabel="ms a frame", xscale="log", ylim=(0, None))
    axes.set_xticks(sorted({row["frames"] for row in rows}), [str(t) for t in sorted({row["frames"] for row in rows})])
    axes.minorticks_off()
    _put_legend_below(axes, 2)


def _draw_shares(axes, report) -> None:
    longest = max(row["frames"] for row in report["parts"] if row["frames"] <= 16)
    rows = [row for row in report["parts"] if row["frames"] == longest]
    names = [f"{row['preset']}\n{model_input(row)}" for row in rows]
    left = [0.0] * len(rows)
    for part in rows[0]["parts"]:
        shares = [100 * row["parts"][part] / sum(row["parts"].values()) for row in rows]
        axes.barh(names, shares, left=left, label=part)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.set(title=f"Where the time of a clip goes, T = {longest}", xlabel="% of the parts", xlim=(0, 100))
    _put_legend_below(axes, 3)


def _put_legend_below(axes, columns: int) -> None:
    axes.legend(frameon=False, ncols=columns, loc="upper center", bbox_to_anchor=(0.5, -0.15))


def _draw_rivals(axes, report) -> None:
    rows = report["comparisons"]["rivals"]
    values = [row["ms"].get("rival", row["ms"]["own input"])["p50"] / row["ms"]["KineTrack"]["p50"] for row in rows]
    names = [row["name"] + ("" if row["ratio"] else " (own input)") for row in rows]
    bars = axes.barh(names, values, color=["tab:green" if value > 1 else "tab:orange" for value in values])
    axes.bar_label(bars, fmt="%.2f", padding=2)
    axes.margins(x=0.1)
    axes.axvline(1, color="0.3", linewidth=0.8)
    axes.set(title="Time of a clip over that of kinetrack-base", xlabel="16 frames of 224×224")


_PANELS = (("speed", _draw_speed), ("parts", _draw_parts), ("parts", _draw_shares), ("comparisons", _draw_rivals))
