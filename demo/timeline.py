"""The timeline under the video, as HTML: actions, attention and counts over time, and one lane a track.

Everything is placed in per cent of the video's length, so that it fits any width. A click is turned into a time by
`assets/player.js`; buttons carry their time in `data-time`.
"""

import numpy as np

from ..processing.drawing import identity_color, in_words, text_color
from ..processing.findings_kinetrack import UNCERTAIN
from ..processing.results import VideoAnalysis
from .markup import CURVE_COLORS, clock_time, escape, percent, spoken_action

_WIDTH, _HEIGHT = 1000, 100  # of the drawings, stretched to fit


def timeline(analysis: VideoAnalysis) -> str:
    """All rows, for a video whose player stands above."""
    span = Span(analysis)
    rows = [_action_row(analysis, span), _attention_row(analysis, span), _count_row(analysis, span)]
    return (
        '<section class="kt-timeline" aria-label="Timeline" data-start="0" '
        f'data-end="{span.end:.4f}">'
        + "".join(rows)
        + _lanes(analysis, span)
        + _axis(span)
        + '<div class="kt-playhead" aria-hidden="true"></div></section>'
    )


class Span:
    """The seconds that the timeline shows.

    Args:
        analysis: of one video.
    """

    def __init__(self, analysis: VideoAnalysis):
        last = float(analysis.times[-1])
        step = float(np.median(np.diff(analysis.times))) if len(analysis.times) > 1 else 1 / 25
        self.step = step
        self.end = max(last + step, 1e-3)

    def at(self, seconds: float) -> float:
        """Where a time is, 0 to 1."""
        return float(np.clip(seconds / self.end, 0, 1))

    def points(self, times, heights) -> str:
        """A curve for SVG; heights from 0 to 1."""
        return " ".join(
            f"{_WIDTH * self.at(time):.1f},{_HEIGHT * (1 - float(np.clip(height, 0, 1))):.1f}"
            for time, height in zip(times, heights, strict=True)
        )


def _row(name: str, hint: str, content: str, kind: str, legend: str = "") -> str:
    return (
        f'<div class="kt-row {kind}"><div class="kt-name"><strong>{name}</strong><span>{hint}</span>{legend}</div>'
        f'<div class="kt-area" data-seek>{content}</div></div>'
    )


def _drawing(description: str, shapes: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(description)}">{shapes}</svg>'
    )


def _action_row(analysis: VideoAnalysis, span: Span) -> str:
    probabilities, names = analysis.tick_probabilities, analysis.model["actions"]
    if not probabilities.size:
        return ""
    peaks = probabilities.max(0)
    shown = np.argsort(-peaks, kind="stable")[: len(CURVE_COLORS)]
    threshold = analysis.model["action_threshold"]
    shapes = (
        f'<rect class="kt-unsure" x="0" y="{_HEIGHT * (1 - threshold):.1f}" width="{_WIDTH}" '
        f'height="{_HEIGHT * threshold:.1f}"/>'
    )
    legend, spoken = "", []
    for index, color in zip(shown.tolist(), CURVE_COLORS, strict=False):
        times, heights = _held(analysis.tick_times, probabilities[:, index], span.end)
        shapes += f'<polyline class="kt-curve" style="stroke:{color}" points="{span.points(times, heights)}"/>'
        name = in_words(names[index])
        legend += f'<span class="kt-key"><i style="background:{color}"></i>{escape(name)}</span>'
        best = int(probabilities[:, index].argmax())
        spoken.append(f"{name} at most {peaks[index]:.0%} at {clock_time(float(analysis.tick_times[best]))}")
    note = f'<span class="kt-note" style="bottom:{percent(threshold)}">uncertain below {threshold:.0%}</span>'
    drawing = _drawing("Probability of the likeliest actions over time: " + "; ".join(spoken), shapes)
    return _row("What happens", "probability", drawing + note, "kt-actions", f'<div class="kt-keys">{legend}</div>')


def _attention_row(analysis: VideoAnalysis, span: Span) -> str:
    values = analysis.tick_attention
    if not len(values):
        return ""
    times = analysis.tick_times[: len(values)]
    top = max(2.0, 1.08 * float(values.max()))
    middle = _HEIGHT * (1 - 1 / top)
    best = int(values.argmax())
    return _filled_row(
        "Which moments count",
        "attention β",
        span.points(*_held(times, values / top, span.end)),
        f"Temporal attention beta over time, from {values.min():.2f} to {values.max():.2f} times the average of its "
        f"window; highest at {clock_time(float(times[best]))}",
        f'<span class="kt-note" style="bottom:{percent(1 / top)}">average</span>',
        "kt-attention",
        f'<line class="kt-average" x1="0" x2="{_WIDTH}" y1="{middle:.1f}" y2="{middle:.1f}"/>',
    )


def _count_row(analysis: VideoAnalysis, span: Span) -> str:
    if analysis.settings["task"] == "actions":
        return ""
    counts = np.bincount(analysis.observations.position, minlength=len(analysis.times))
    least, most, best = int(counts.min()), int(counts.max()), int(counts.argmax())
    steps = np.repeat(np.append(analysis.times, span.end), 2)[1:-1]
    steps[0] = 0.0
    return _filled_row(
        "How many",
        "in view",
        span.points(steps, np.repeat(counts, 2) / (1.1 * max(1, most))),
        f"How many are in view over time: {least} to {most}, {counts.mean():.1f} on average, most at "
        f"{clock_time(float(analysis.times[best]))}",
        f'<span class="kt-note kt-top">{least} to {most}</span>',
        "kt-counts",
    )


def _filled_row(name: str, hint: str, points: str, description: str, note: str, kind: str, behind: str = "") -> str:
    """A row with one curve over the whole time, filled down to the ground; `behind` is drawn behind the curve."""
    ground = f'<polygon class="kt-ground" points="0,{_HEIGHT} {points} {_WIDTH},{_HEIGHT}"/>'
    shapes = f'{ground}{behind}<polyline class="kt-curve" points="{points}"/>'
    return _row(name, hint, _drawing(description, shapes) + note, kind)


def _lanes(analysis: VideoAnalysis, span: Span) -> str:
    if analysis.settings["task"] == "actions":
        return ""
    if not analysis.tracks:
        return '<p class="kt-nobody">Nobody was tracked. A lower threshold may find more.</p>'
    lanes = "".join(_lane(track, span) for track in sorted(analysis.tracks, key=lambda track: track.id))
    return f'<div class="kt-lanes" role="group" aria-label="One lane a track">{lanes}</div>'


def _lane(track, span: Span) -> str:
    color = identity_color(track.id)
    said = spoken_action(track.action, track.confidence, track.actions)
    faint = " kt-faint" if track.action in (None, UNCERTAIN) else ""
    bars = ""
    for start, end in track.visits:
        left, right = span.at(start), span.at(end + span.step)
        label = f"Track {track.id}, {said}: seen {clock_time(start)} to {clock_time(end)}. Jump there."
        bars += (
            f'<button type="button" class="kt-bar" data-time="{start:.4f}" data-track="{track.id}" '
            f'style="left:{percent(left)};width:{percent(max(right - left, 0.004))};background:{color};'
            f'color:{text_color(color)}" aria-label="{escape(label)}"></button>'
        )
    place = _label_place(track.visits, span, color, faint)
    action = "" if track.action is None else f"<span {place}>{escape(said)}</span>"
    return (
        f'<div class="kt-row kt-lane" data-track="{track.id}"><div class="kt-name">'
        f'<i class="kt-swatch" style="background:{color}"></i><strong>#{track.id}</strong></div>'
        f'<div class="kt-area" data-seek data-track="{track.id}">{bars}{action}</div></div>'
    )


def _label_place(visits, span: Span, color: str, faint: str) -> str:
    """Where the name of an action stands: on the longest bar, or behind the last one, or before the first one."""
    ends = [(span.at(start), span.at(end + span.step)) for start, end in visits]
    left, right = max(ends, key=lambda bar: bar[1] - bar[0])
    if right - left > 0.2:
        place = f"left:{percent(left)};width:{percent(right - left)};color:{text_color(color)}"
        return f'class="kt-said" style="{place}"'
    if ends[-1][1] < 0.75:
        return f'class="kt-said{faint}" style="left:{percent(ends[-1][1])};right:0"'
    return f'class="kt-said kt-before{faint}" style="right:{percent(1 - ends[0][0])};left:0"'


def _axis(span: Span) -> str:
    step = next((step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60) if span.end / step <= 8), 120)
    marks = "".join(
        f'<span style="left:{percent(span.at(time))}">{_tick_name(time, step)}</span>'
        for time in np.arange(0, span.end - 0.02 * span.end, step)
    )
    return (
        '<div class="kt-row kt-axis" aria-hidden="true"><div class="kt-name"></div>'
        f'<div class="kt-area">{marks}</div></div>'
    )


def _tick_name(time: float, step: float) -> str:
    if time >= 60:
        return f"{int(time // 60)}:{int(time % 60):02d}"
    return f"{time:.1f} s" if step < 1 else f"{time:.0f} s"


def _held(times, values, end: float):
    """A curve that begins at 0 and keeps its last value to the end."""
    return np.concatenate([[0.0], times, [end]]), np.concatenate([values[:1], values, values[-1:]])
