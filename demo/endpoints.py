"""The API: named, typed endpoints for `gradio_client`, beside those that the page uses itself."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import gradio as gr

from .context import Context, sentence
from .controls import TASKS, read_choices
from .jobs import Finished
from .safety import uploaded_video
from .work import work

_ANALYZE = """What happens in a video, who is where, and who does what, as the JSON that `kinetrack analyze` writes.

Args: video: the file. task: both, tracking or actions. fps: frames a second to look at, every frame when null.
threshold: score from 0 to 1 from which somebody is reported, the model's own when null. size: model input such as
256x448, fitted to the video when empty. model: one of this demo's models, the first when empty.
Boxes are xyxy in pixels of the original frame as displayed; times are seconds."""
_ANNOTATE = """The video with boxes, identities and actions drawn in, H.264 in MP4. Arguments as for /analyze."""
_LIMITS = """What this demo takes on: models, longest video in seconds, most frames, largest file in megabytes."""


def add_endpoints(context: Context) -> None:
    """Registers `/analyze`, `/annotate` and `/limits` with the page that is being built."""
    with gr.Group(visible=False):
        inputs = [
            uploaded_video(label="video"),
            gr.Radio([value for _, value in TASKS], value="both", label="task"),
            gr.Number(None, label="fps"),
            gr.Number(None, label="threshold"),
            gr.Textbox("", label="size"),
            gr.Dropdown(list(context.options.models), value=context.options.models[0], label="model"),
        ]
        found, drawn, limits = gr.JSON(label="analysis"), gr.Video(label="annotated"), gr.JSON(label="limits")
        buttons = [gr.Button(name) for name in ("analyze", "annotate", "limits")]
    shared = {"concurrency_limit": context.options.workers, "concurrency_id": "analysis", "show_progress": "hidden"}

    def analyze(video, task="both", fps=None, threshold=None, size="", model="", request: gr.Request = None):
        return _finish(context, request, video, (model, task, fps, threshold, size), _as_json, keep=False)

    def annotate(video, task="both", fps=None, threshold=None, size="", model="", request: gr.Request = None):
        return _finish(context, request, video, (model, task, fps, threshold, size), _as_video, keep=True)

    def tell_limits() -> dict:
        options = context.options
        return {
            "models": list(options.models),
            "max_seconds": options.max_seconds,
            "max_frames": options.max_frames,
            "max_megabytes": options.max_megabytes,
        }

    buttons[0].click(analyze, inputs, found, api_name="analyze", api_description=_ANALYZE, **shared)
    buttons[1].click(annotate, inputs, drawn, api_name="annotate", api_description=_ANNOTATE, **shared)
    buttons[2].click(tell_limits, None, limits, api_name="limits", api_description=_LIMITS, queue=False)


def _finish(
    context: Context, request: gr.Request, video: str, values: tuple, form: Callable[[Finished], object], *, keep: bool
):
    """The result of an analysis in the form of an endpoint; a sentence where there is none.

    Args:
        context: of the demo.
        request: of the call.
        video: path of the upload.
        values: for `read_choices`.
        form: makes the answer.
        keep: whether the answer names a file, which Gradio serves later: the result then stays until the session ends
            or the sweep comes by. Else, and after an error, its files are deleted at once.
    """
    session, kept = request.session_hash, False
    purpose = f"api-{uuid.uuid4().hex}"  # of this call alone: a client may have several running
    context.workspaces.of(session).cancelled.clear()
    try:
        choices = read_choices(context.networks, *values)
        for news in work(context, session, purpose, video, choices):
            if isinstance(news, Finished):
                answer = form(news)
                kept = keep
                return answer
    except Exception as error:
        text = sentence(error, *([Path(video)] if video else [])) if str(error) else "The analysis was cancelled."
        raise gr.Error(text, print_exception=False) from None
    finally:
        if not kept:
            context.workspaces.drop_results(session, purpose)
    raise AssertionError("unreachable: an analysis ends with a result or an error")


def _as_json(finished: Finished) -> dict:
    return json.loads(finished.analysis.to_json())


def _as_video(finished: Finished) -> str:
    return str(finished.analysis.output / "annotated.mp4")
