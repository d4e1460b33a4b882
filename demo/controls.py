"""The settings a visitor sees, and what they mean."""

import functools
import re

import gradio as gr

from .jobs import Choices
from .limits import Refused
from .markup import short_names
from .networks import Networks

TASKS = [("Actions and tracking", "both"), ("Only tracking", "tracking"), ("Only actions", "actions")]
RATES = [("Every frame", 0), ("5 a second", 5), ("10 a second", 10), ("15 a second", 15), ("25 a second", 25)]


class Controls:
    """Components for the settings, in the order that `read_page` takes their values.

    Args:
        networks: the models to choose from.
        prefix: of the components' ids.
        threshold_step: added to the model's own threshold for the slider's first value.
    """

    def __init__(self, networks: Networks, prefix: str, threshold_step: float = 0.0):
        names = networks.options.models
        own = round(own_threshold(networks, None) + threshold_step, 2)
        self.task = gr.Radio(TASKS, value="both", label="What to look for", elem_id=f"{prefix}-task")
        self.threshold = gr.Slider(
            0.05,
            0.95,
            value=own,
            step=0.01,
            label="Detection threshold",
            info="Lower finds more people, and more that are none.",
            elem_id=f"{prefix}-threshold",
        )
        self.fps = gr.Dropdown(
            RATES,
            value=0,
            label="Frames a second",
            info="Fewer is faster and loses people more easily.",
            elem_id=f"{prefix}-fps",
        )
        with gr.Accordion("More settings", open=False):
            titles = [(title, name) for name, title in short_names(names).items()]
            self.model = gr.Dropdown(titles, value=names[0], label="Model", elem_id=f"{prefix}-model")
            self.size = gr.Textbox(
                label="Model input, height × width",
                placeholder="fitted to the video",
                info="Multiples of 32, such as 256x448. Smaller is faster and misses small people.",
                elem_id=f"{prefix}-size",
            )
        # What suits one model does not suit another. Only where a person chose: a link sets both.
        own_of_model = functools.partial(own_threshold, networks)
        self.model.input(own_of_model, self.model, self.threshold, queue=False, api_visibility="private")

    @property
    def inputs(self) -> list:
        """The components."""
        return [self.model, self.task, self.fps, self.threshold, self.size]


def own_threshold(networks: Networks, model: str | None) -> float:
    """The detection threshold of a model, to two digits."""
    return round(float(networks.get(model)[0].config.detection_threshold), 2)


def read_choices(networks: Networks, model, task, fps, threshold, size) -> Choices:
    """The settings that an API call, a link or a page asks for.

    Args:
        networks: the models there are.
        model: name; the first when empty.
        task: one of `TASKS`.
        fps: frames a second; every frame when 0 or None.
        threshold: 0 to 1; the model's own when None.
        size: `"256x448"`; fitted to the video when empty.

    Raises:
        Refused: a value that cannot be.
    """
    model = model or networks.options.models[0]
    if model not in networks.options.models:
        raise Refused(f"There is no model {model!r} here; there is {', '.join(networks.options.models)}.")
    if task not in [value for _, value in TASKS]:
        raise Refused(f"The task is both, tracking or actions; got {task!r}.")
    fps = float(fps) if fps else None
    if fps is not None and not 0.1 <= fps <= 240:
        raise Refused("Frames a second are 0.1 to 240, or 0 for every frame.")
    if threshold is not None and not 0 < float(threshold) < 1:
        raise Refused(f"The threshold is a number between 0 and 1; got {threshold}.")
    return Choices(model, task, fps, None if threshold is None else float(threshold), read_size(size))


def read_page(networks: Networks, model, task, fps, threshold, size) -> Choices:
    """As `read_choices`, for the values of `Controls.inputs`: the slider has two digits, the model's threshold more."""
    if model in networks.options.models and abs(float(threshold) - own_threshold(networks, model)) < 1e-6:
        threshold = None
    return read_choices(networks, model, task, fps, threshold, size)


def read_size(text: str | None) -> tuple[int, int] | None:
    """`"256x448"` as (256, 448); None when empty.

    Raises:
        Refused: anything else.
    """
    if not text or not text.strip():
        return None
    match = re.fullmatch(r"\s*(\d{2,4})\s*[x×X*]\s*(\d{2,4})\s*", text)
    height, width = (int(match[1]), int(match[2])) if match else (0, 0)
    if not match or height % 32 or width % 32 or not 32 <= height <= 1088 or not 32 <= width <= 1920:
        raise Refused(
            f"The model input is height x width in multiples of 32, such as 256x448, at most 1088x1920; got {text!r}."
        )
    return height, width
