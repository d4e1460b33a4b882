"""The Compare tab: one clip, two settings or checkpoints, side by side and in step."""

from collections.abc import Iterator

import gradio as gr
import numpy as np

from ..processing.drawing import in_words
from ..processing.findings_kinetrack import UNCERTAIN
from ..processing.results import VideoAnalysis
from .assets import read_asset
from .context import EXAMPLE, Context
from .controls import Controls, read_page
from .jobs import Finished, Progress
from .markup import escape, short_names, spoken_action, spoken_rate, spoken_task
from .result_view import headline, player, progress_view
from .run_buttons import PRIVATE, RunButtons
from .safety import uploaded_video
from .timeline import timeline
from .work import work

_EMPTY = (
    '<div class="kt-empty"><h2>The same clip, seen twice</h2><p>Set the two sides differently: another threshold, '
    "fewer frames a second, another checkpoint. Then both videos play in step, with what differs below.</p></div>"
)


class CompareTab:
    """The components of the tab, connected.

    Args:
        context: of the demo.
    """

    def __init__(self, context: Context):
        self.context = context
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=280):
                self.video = uploaded_video(
                    label="The clip", sources=["upload"], height=230, elem_id="kt-compare-video"
                )
                self.example = gr.Button("Use the example", size="sm", elem_id="kt-compare-example")
            with gr.Column(scale=1, min_width=280):
                gr.HTML('<h3 class="kt-side-name">Left</h3>', apply_default_css=False)
                self.left = Controls(context.networks, "kt-left")
            with gr.Column(scale=1, min_width=280):
                gr.HTML('<h3 class="kt-side-name">Right</h3>', apply_default_css=False)
                self.right = Controls(context.networks, "kt-right", threshold_step=0.15)
        self.buttons = RunButtons(context, "Compare", "kt-compare")
        self.status = gr.HTML("", elem_id="kt-compare-status", apply_default_css=False)
        self.result = gr.HTML(
            _EMPTY, elem_id="kt-compare-result", js_on_load=read_asset("player.js"), apply_default_css=False
        )
        self.example.click(lambda: str(EXAMPLE), outputs=self.video, queue=False, **PRIVATE)
        inputs = [self.video, *self.left.inputs, *self.right.inputs]
        self.buttons.connect(self._compare, inputs, self.status, [self.result])

    def _compare(self, session: str, video, *values) -> Iterator[tuple]:
        finished, half = [], len(values) // 2
        for name, chosen in (("Left", values[:half]), ("Right", values[half:])):
            choices = read_page(self.context.networks, *chosen)
            for news in work(self.context, session, f"compare-{name.lower()}", video, choices):
                if isinstance(news, Progress):
                    yield (progress_view(news, f"{name}: "),)
                else:
                    finished.append(news)
        yield "", compare_view(*finished)


def compare_view(left: Finished, right: Finished) -> str:
    """Two results side by side, and a table of their differences."""
    sides = "".join(
        f'<article class="kt-result" aria-label="{name}">{headline(side.analysis)}'
        f"{player(side.analysis, f'{name}, annotated video')}{timeline(side.analysis)}</article>"
        for name, side in (("Left", left), ("Right", right))
    )
    rows = "".join(
        f'<tr{"" if a == b else " class=kt-differs"}><th scope="row">{name}</th>'
        f"<td>{escape(a)}</td><td>{escape(b)}</td></tr>"
        for name, a, b in differences(left, right)
    )
    return (
        f'<div class="kt-pair">{sides}</div><section class="kt-people kt-differences"><h3>What differs</h3>'
        '<div class="kt-scroll" tabindex="0" role="region" aria-label="Differences"><table><thead><tr><td></td>'
        f'<th scope="col">Left</th><th scope="col">Right</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def differences(left: Finished, right: Finished) -> Iterator[tuple[str, str, str]]:
    """(what, left, right) of settings and findings, in words."""
    titles = short_names((left.choices.model, right.choices.model))
    one, other = (dict(_facts(side, titles[side.choices.model])) for side in (left, right))
    for name in one | other:
        yield name, one.get(name, "not asked"), other.get(name, "not asked")


def _facts(finished: Finished, model: str) -> Iterator[tuple[str, str]]:
    analysis, choices = finished.analysis, finished.choices
    yield "Model", model
    yield "Task", spoken_task(choices.task)
    yield "Threshold", f"{analysis.settings['threshold']:g}"
    yield "Frames a second", spoken_rate(choices.fps)
    yield "Frames looked at", str(len(analysis.times))
    if choices.task != "tracking":
        yield "What happens", spoken_action(analysis.action, analysis.confidence, analysis.actions)
    if choices.task != "actions":
        yield from _track_facts(analysis, with_actions=choices.task == "both")
    yield "Speed", f"{analysis.performance['frames_per_second']:.1f} frames/s"


def _track_facts(analysis: VideoAnalysis, with_actions: bool) -> Iterator[tuple[str, str]]:
    counts = np.bincount(analysis.observations.position, minlength=len(analysis.times))
    seen = [sum(end - start for start, end in track.visits) for track in analysis.tracks]
    yield "Identities", str(len(analysis.tracks))
    yield "In view at once", f"{counts.mean():.1f} on average, {counts.max()} at most"
    yield "Time in view", f"{np.median(seen):.1f} s (median)" if seen else "none"
    if with_actions:
        sure = [in_words(track.action) for track in analysis.tracks if track.action not in (None, UNCERTAIN)]
        named = ", ".join(f"{sure.count(name)} {name}" for name in sorted(set(sure)))
        yield "Actions of people", named or "all uncertain"
