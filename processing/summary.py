"""One picture of a whole analysis: key frames with attention, actions and attention over time, a lane a track."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from .drawing import ATTENTION_FULL, identity_color, in_words, overlay_attention, text_color
from .findings_kinetrack import UNCERTAIN
from .results import VideoAnalysis

_WIDTH = 14.0  # inches, at 100 dots each
_MAX_LANES = 30
_INK, _FAINT = "#22262B", "#8A929B"
# Okabe and Ito's colours that are dark enough for lines on white.
_CURVE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")


def plot_summary(analysis: VideoAnalysis) -> Figure:
    """Draws `summary.png`.

    Args:
        analysis: of one video.

    Returns:
        A figure that belongs to no window and to no pyplot state; `figure.savefig(path)` writes it.
    """
    panels = _panels(analysis)
    heights = [height for _, height in panels]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 0.4), dpi=100, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08, hspace=0.02)
    rows = figure.subfigures(len(panels), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (draw, _) in zip(rows, panels, strict=True):
        draw(part, analysis)
    for text in figure.findobj(Text):
        text.set_parse_math(False)  # names may hold dollar signs
    return figure


def _panels(analysis: VideoAnalysis) -> list:
    """(function that draws it, inches) of what there is to show."""
    panels = [(_draw_header, 0.75)]
    if analysis.key_frames:
        columns, rows = _grid(analysis)
        height, width = analysis.key_frames[0].image.shape[:2]
        panels.append((_draw_key_frames, rows * ((_WIDTH - 1.2) / columns * height / width + 0.3)))
    time_height = (1.9 if len(analysis.clip_actions) else 0) + (1.25 if len(analysis.tick_attention) else 0)
    if analysis.settings["task"] != "actions":
        time_height += _lanes_height(analysis)
    if time_height:
        panels.append((_draw_timelines, time_height + 0.75))
    return panels


def _grid(analysis: VideoAnalysis) -> tuple[int, int]:
    """Columns and rows of the key frames: upright pictures stand side by side."""
    count = len(analysis.key_frames)
    height, width = analysis.key_frames[0].image.shape[:2]
    columns = min(count, 3 if width > 1.1 * height else 6)
    return columns, -(-count // columns)


def _lanes_height(analysis: VideoAnalysis) -> float:
    return 0.45 + 0.24 * max(1, min(_MAX_LANES, len(analysis.tracks)))


def _draw_header(part, analysis: VideoAnalysis) -> None:
    source = analysis.source
    headline = source["name"]
    if analysis.action is not None:
        name, probability = analysis.actions[0]
        phrase = f"{in_words(name)} {probability:.0%}"
        headline += f":  {phrase}" if analysis.action != UNCERTAIN else f":  uncertain (likeliest: {phrase})"
    facts = [f"{source['width']}×{source['height']}", f"{analysis.duration:.1f} s", f"{len(analysis.times)} frames"]
    if analysis.settings["task"] != "actions":
        facts.append(f"{len(analysis.tracks)} tracks")
    facts += analysis.group_phrases
    facts.append(f"model {analysis.model['name']}" + ("" if analysis.model["trained"] else " (UNTRAINED: noise)"))
    part.text(0.012, 0.88, headline, fontsize=17, fontweight="bold", color=_INK, va="top")
    part.text(0.012, 0.08, "   ·   ".join(facts), fontsize=10.5, color="#505861", va="bottom")


def _draw_key_frames(part, analysis: VideoAnalysis) -> None:
    columns, rows = _grid(analysis)
    grid = part.subplots(rows, columns, squeeze=False)
    frames, attended = analysis.key_frames, False
    for axes, frame in zip(grid.flat, frames, strict=False):
        image = frame.image
        if frame.attention is not None:
            image, attended = overlay_attention(image, frame.attention), True
        height, width = image.shape[:2]
        axes.imshow(image, extent=(0, width, height, 0), interpolation="antialiased")
        for (x1, y1, x2, y2), track_id in zip(frame.boxes, frame.track_ids, strict=True):
            if x2 <= 0 or y2 <= 0 or x1 >= width or y1 >= height:
                continue
            color = identity_color(track_id)
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.6))
            axes.text(
                np.clip(x1, 0, width),
                np.clip(y1, 0.05 * height, height),
                f"{track_id}",
                fontsize=7,
                fontweight="bold",
                color=text_color(color),
                va="bottom",
                clip_on=True,
                bbox={"facecolor": color, "edgecolor": "none", "pad": 1.2},
            )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_title(f"{frame.time:.1f} s", fontsize=9.5, color=_INK, loc="left", pad=3)
    for axes in grid.flat:
        axes.axis("off")
    if attended:
        _draw_attention_scale(part, grid)


def _draw_attention_scale(part, grid) -> None:
    """The colours of `overlay_attention`, as they look over mid-grey."""
    shades = overlay_attention(np.full((1, 256, 3), 128, np.uint8), np.geomspace(1, ATTENTION_FULL, 256)[None] / 256)
    scale = LinearSegmentedColormap.from_list("attention", shades[0] / 255)
    bar = part.colorbar(
        ScalarMappable(LogNorm(1, ATTENTION_FULL), scale), ax=grid.ravel().tolist(), shrink=0.55, aspect=28, pad=0.012
    )
    bar.set_ticks([1, 2, 4, 8, 16], labels=["≤1×", "2×", "4×", "8×", "≥16×"], fontsize=8)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label("spatial attention α, relative to uniform", fontsize=8.5, color=_INK)


def _draw_timelines(part, analysis: VideoAnalysis) -> None:
    drawn = []
    if len(analysis.clip_actions):
        drawn.append((_draw_actions, 1.9))
    if len(analysis.tick_attention):
        drawn.append((_draw_attention, 1.25))
    if analysis.settings["task"] != "actions":
        drawn.append((_draw_lanes, _lanes_height(analysis)))
    columns = part.subplots(
        len(drawn), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": [height for _, height in drawn]}
    )[:, 0]
    for axes, (draw, _) in zip(columns, drawn, strict=True):
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_FAINT)
        axes.tick_params(labelsize=8.5, color=_FAINT, labelcolor=_INK)
        draw(axes, analysis)
    end = max(float(analysis.times[-1]), 1e-3)
    # Room on the right for the names of curves and lanes.
    columns[-1].set_xlim(min(0.0, float(analysis.times[0])), end * 1.16)
    ticks = [tick for tick in columns[-1].get_xticks() if 0 <= tick <= end * 1.001]
    columns[-1].set_xticks(ticks)
    columns[-1].set_xlabel("time, s", fontsize=9.5, color=_INK)


def _title(axes, text: str) -> None:
    axes.set_title(text, fontsize=10, fontweight="bold", color=_INK, loc="left", pad=4)


def _draw_actions(axes, analysis: VideoAnalysis) -> None:
    _title(axes, "What happens: action probabilities of the whole frame (vertical lines part its windows)")
    names, times, curves = [*map(in_words, analysis.model["actions"])], analysis.tick_times, analysis.tick_probabilities
    best = np.argsort(-curves.mean(0), kind="stable")[: len(_CURVE_COLORS)]
    best = best[np.argsort(-curves[-1, best], kind="stable")]  # names stand in the order in which the curves end
    places = _spread(curves[-1, best], 0.155)
    for index, color, place in zip(best, _CURVE_COLORS, places, strict=False):
        axes.plot(times, curves[:, index], color=color, linewidth=1.8, marker="o" if len(times) == 1 else None)
        axes.annotate(
            f"{names[index]} {curves[-1, index]:.0%}",
            (times[-1], curves[-1, index]),
            xytext=(times[-1] + 0.012 * max(times[-1], 1e-3), place),
            textcoords="data",
            fontsize=8.5,
            fontweight="bold",
            color=color,
            va="center",
            annotation_clip=False,
        )
    for window in analysis.clip_actions[:-1]:
        axes.axvline(window.end, color=_FAINT, linewidth=0.6, alpha=0.5)
    threshold = analysis.model["action_threshold"]
    if threshold > 0:
        axes.axhspan(0, threshold, color="#000000", alpha=0.05, linewidth=0)
        place = "bottom" if threshold < 0.9 else "top"
        axes.text(times[0], threshold, " uncertain below", fontsize=7.5, color=_FAINT, va=place)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])


def _spread(values: np.ndarray, gap: float) -> np.ndarray:
    """Heights for names, in falling order, near their values and at least `gap` apart within 0 to 1."""
    places = np.array(values, float)
    for index in range(1, len(places)):
        places[index] = min(places[index], places[index - 1] - gap)
    low = 0.03
    for index in range(len(places) - 1, -1, -1):
        places[index] = max(places[index], low)
        low = places[index] + gap
    return places


def _draw_attention(axes, analysis: VideoAnalysis) -> None:
    _title(axes, "Which moments count: temporal attention β, relative to the average of its window")
    times, values = analysis.tick_times[: len(analysis.tick_attention)], analysis.tick_attention
    axes.fill_between(times, 1, values, where=values >= 1, color="#D55E00", alpha=0.35, linewidth=0, interpolate=True)
    axes.fill_between(times, 1, values, where=values < 1, color="#0072B2", alpha=0.25, linewidth=0, interpolate=True)
    axes.plot(times, values, color=_INK, linewidth=1.0, marker="o" if len(times) == 1 else None)
    axes.axhline(1, color=_FAINT, linewidth=0.8, linestyle="--")
    # From zero to at least twice the average, so that attention that is nearly uniform looks uniform.
    axes.set_ylim(0, max(2.0, 1.08 * float(values.max())))


def _draw_lanes(axes, analysis: VideoAnalysis) -> None:
    tracks = analysis.tracks
    kept = sorted(sorted(tracks, key=lambda track: -track.frames)[:_MAX_LANES], key=lambda track: track.id)
    title = "Who does what: one lane a track"
    if len(kept) < len(tracks):
        title += f" (the {len(kept)} longest of {len(tracks)}; all are in analysis.json)"
    _title(axes, title)
    step = max(analysis._frame_step, 0.004 * float(analysis.times[-1]))
    for lane, track in enumerate(kept):
        color = identity_color(track.id)
        bars = [(start, max(end - start, step)) for start, end in track.visits]
        axes.broken_barh(bars, (lane - 0.36, 0.72), facecolors=color, edgecolor="#00000055", linewidth=0.5)
        if track.action is not None:
            text = track.action if track.action == UNCERTAIN else f"{in_words(track.action)} {track.confidence:.0%}"
            axes.text(
                bars[-1][0] + bars[-1][1],
                lane,
                f"  {text}",
                fontsize=8,
                color=_FAINT if track.action == UNCERTAIN else _INK,
                va="center",
            )
    axes.set_yticks(range(len(kept)), labels=[f"#{track.id}" for track in kept])
    axes.set_ylim(max(len(kept), 1) - 0.4, -0.6)
    if not kept:
        axes.text(0.5, 0.5, "nobody was tracked", transform=axes.transAxes, ha="center", va="center", color=_FAINT)
        axes.set_yticks([])
