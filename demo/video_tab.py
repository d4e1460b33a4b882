"""The Video tab: a video in, progress while it is looked at, the result out."""

from collections.abc import Iterator

import gradio as gr

from .assets import read_asset
from .context import EXAMPLE, Context, sentence
from .controls import Controls, read_page
from .explain_tab import explain_clip
from .fetching import fetch_video
from .jobs import Progress
from .limits import describe_limits
from .result_view import EMPTY, notice, progress_view, result_view
from .run_buttons import PRIVATE, RunButtons
from .safety import uploaded_video
from .work import work

_KEPT = "Files are deleted when you close this page, after {:.0f} minutes at the latest."


class VideoTab:
    """The components of the tab.

    Args:
        context: of the demo.
        explained: the part of another tab that talks about the newest result.
    """

    def __init__(self, context: Context, explained: gr.HTML):
        self.context, self.explained = context, explained
        with gr.Row(equal_height=False, elem_classes="kt-columns"):
            with gr.Column(scale=1, min_width=300, elem_classes="kt-side"):
                self._build_inputs()
            with gr.Column(scale=3, min_width=320, elem_classes="kt-main"):
                self.result = gr.HTML(
                    EMPTY, elem_id="kt-result", js_on_load=read_asset("player.js"), apply_default_css=False
                )
        self._connect()

    def _build_inputs(self) -> None:
        self.video = uploaded_video(
            label="Your video",
            sources=["upload", "webcam"],
            height=270,
            elem_id="kt-video",
            webcam_options=gr.WebcamOptions(mirror=False),
        )
        self.example = gr.Button("Use the example: ten seconds of a busy square", size="sm", elem_id="kt-example")
        if self.context.options.allow_urls:
            with gr.Accordion("From an address", open=False):
                self.address = gr.Textbox(
                    label="Address of a video file", placeholder="https://…", elem_id="kt-address"
                )
                self.fetch = gr.Button("Fetch", size="sm", elem_id="kt-fetch")
        self.buttons = RunButtons(self.context, "Analyse", "kt")
        self.status = gr.HTML("", elem_id="kt-status", apply_default_css=False)
        options = self.context.options
        limits = f"{describe_limits(options)} {_KEPT.format(options.keep_minutes)}"
        gr.HTML(f'<p class="kt-limits">{limits}</p>', apply_default_css=False)
        self.controls = Controls(self.context.networks, "kt")

    def _connect(self) -> None:
        self.example.click(lambda: str(EXAMPLE), outputs=self.video, queue=False, **PRIVATE)
        inputs = [self.video, *self.controls.inputs]
        self.buttons.connect(self._analyse, inputs, self.status, [self.result, self.explained])
        if self.context.options.allow_urls:
            self.fetch.click(self._fetch, inputs=self.address, outputs=[self.status, self.video], **PRIVATE)

    def _fetch(self, address: str, request: gr.Request):
        try:
            folder = self.context.workspaces.of(request.session_hash).folder
            path = fetch_video(address or "", folder / "fetched", self.context.options.max_megabytes)
        except Exception as error:
            return notice(sentence(error), "error"), gr.skip()
        return notice("Fetched. Press Analyse."), str(path)

    def _analyse(self, session: str, video, *values) -> Iterator[tuple]:
        choices = read_page(self.context.networks, *values)
        for news in work(self.context, session, "video", video, choices):
            if isinstance(news, Progress):
                yield (progress_view(news),)
            else:
                yield "", result_view(news), explain_clip(news)
