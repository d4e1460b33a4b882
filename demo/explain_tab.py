"""The How it works tab: the architecture, what alpha and beta were in the visitor's clip, limits and intended use."""

import base64
import io

import gradio as gr
import numpy as np
from PIL import Image

from ..processing.drawing import overlay_attention
from ..processing.results import KeyFrame, VideoAnalysis
from .assets import read_asset
from .jobs import Finished
from .markup import clock_time, escape

_WAITING = (
    '<div class="kt-empty"><h2>α and β of your own clip</h2><p>Analyse a video in the first tab; this part then shows '
    "where the model looked in it, and which moments counted.</p></div>"
)


def explain_tab() -> gr.HTML:
    """Builds the tab; returns the part about the newest result, for `explain_clip`."""
    page = read_asset("how_it_works.html").replace("{architecture}", read_asset("architecture.svg"))
    gr.HTML(page, apply_default_css=False)
    clip = gr.HTML(_WAITING, elem_id="kt-explained", apply_default_css=False)
    gr.HTML(read_asset("intended_use.html"), apply_default_css=False)
    return clip


def explain_clip(finished: Finished) -> str:
    """What alpha and beta were in a clip: two moments as pictures, and the numbers in sentences."""
    analysis = finished.analysis
    frames = [frame for frame in analysis.key_frames if frame.attention is not None]
    if not frames or not len(analysis.tick_attention):
        return _WAITING
    weights = [beta_at(analysis, frame.time) for frame in frames]
    least, most = int(np.argmin(weights)), int(np.argmax(weights))
    pictures = "".join(
        f'<figure><img src="{_picture(frames[index])}" alt="{escape(_describe(frames[index]))}">'
        f"<figcaption><b>{clock_time(frames[index].time)}</b>: {text}, β = {weights[index]:.2f} × average</figcaption>"
        "</figure>"
        for index, text in ((most, "counted most of these moments"), (least, "counted least"))
    )
    lines = "".join(f"<li>{line}</li>" for line in _sentences(analysis, frames))
    return (
        f'<section class="kt-prose kt-clip"><h2>In this very clip: {escape(analysis.source["name"])}</h2>'
        f'<div class="kt-two">{pictures}</div><ul>{lines}</ul></section>'
    )


def beta_at(analysis: VideoAnalysis, time: float) -> float:
    """Temporal attention of the tick nearest to a time, relative to the average of its window."""
    ticks = analysis.tick_times[: len(analysis.tick_attention)]
    return float(analysis.tick_attention[int(np.abs(ticks - time).argmin())])


def people_share(frame: KeyFrame) -> tuple[float, float]:
    """(share of alpha, share of the picture) that lies in the boxes of people, both 0 to 1."""
    rows, columns = frame.attention.shape
    height, width = frame.image.shape[:2]
    y = (np.arange(rows) + 0.5)[:, None] * height / rows
    x = (np.arange(columns) + 0.5)[None] * width / columns
    inside = np.zeros((rows, columns), bool)
    for x1, y1, x2, y2 in frame.boxes:
        inside |= (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
    return float(frame.attention[inside].sum()), float(inside.mean())


def _sentences(analysis: VideoAnalysis, frames: list[KeyFrame]):
    peak = max(float(frame.attention.max()) * frame.attention.size for frame in frames)
    yield f"The place with the most attention had up to <b>{peak:.0f} times</b> an even share."
    shares = np.mean([people_share(frame) for frame in frames if len(frame.boxes)] or [(0, 0)], axis=0)
    if shares[1] > 0:
        yield (
            f"People’s boxes cover <b>{shares[1]:.1%}</b> of the picture and hold <b>{shares[0]:.0%}</b> of α "
            f"(mean over {len(frames)} key frames)."
        )
    values, times = analysis.tick_attention, analysis.tick_times
    low, high = (clock_time(float(times[int(index)])) for index in (values.argmin(), values.argmax()))
    text = f"β went from {values.min():.2f} (at {low}) to <b>{values.max():.2f}</b> times the average (at {high})"
    window = analysis.model["attention_window"]
    if window:
        text += f"; the average is over the {window / analysis.model['frame_rate']:.1f} s before each moment"
    yield text + "."
    if values.max() < 1.25:
        yield "So hardly any moment counted more than another: the model used the whole stretch alike."


def _picture(frame: KeyFrame) -> str:
    file = io.BytesIO()
    Image.fromarray(overlay_attention(frame.image, frame.attention)).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _describe(frame: KeyFrame) -> str:
    row, column = np.unravel_index(int(frame.attention.argmax()), frame.attention.shape)
    rows, columns = frame.attention.shape
    peak = float(frame.attention.max()) * frame.attention.size
    return (
        f"The frame at {clock_time(frame.time)} with attention over it, strongest {100 * row / rows:.0f} % from the "
        f"top and {100 * column / columns:.0f} % from the left, {peak:.0f} times an even share"
    )
