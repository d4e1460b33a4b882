"""The buttons that start and stop an analysis, and the line that says how it is going; the same in every tab."""

from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr

from .context import Context, sentence
from .jobs import Cancelled
from .result_view import notice

PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}
_READY = (gr.update(interactive=True), gr.update(visible=False))


class RunButtons:
    """A button that starts, and beside it, while something runs, one that cancels.

    Args:
        context: of the demo.
        label: of the button.
        prefix: of the components' ids.
    """

    def __init__(self, context: Context, label: str, prefix: str):
        self.context = context
        with gr.Row():
            self.run = gr.Button(label, variant="primary", elem_id=f"{prefix}-run", scale=2)
            self.cancel = gr.Button("Cancel", variant="stop", elem_id=f"{prefix}-cancel", visible=False, scale=1)

    def connect(self, respond: Callable[..., Iterator[tuple]], inputs: list, status: gr.HTML, outputs: list) -> None:
        """Says what happens when they are pressed.

        Args:
            respond: called with the session, and the values of `inputs`, of which the first is the video. Yields the
                HTML of `status` alone, or followed by the values of `outputs`.
            inputs: components.
            status: where progress and messages go.
            outputs: components of the result.
        """

        def run(request: gr.Request, *values):
            unchanged = [gr.skip()] * (len(outputs) + 2)
            try:
                for said, *found in respond(request.session_hash, *values):
                    yield said, *([*found, *_READY] if found else unchanged)
            except Cancelled:
                yield notice("Cancelled. Nothing of it was kept."), *unchanged[2:], *_READY
            except Exception as error:
                files = [Path(values[0])] if values[0] else []
                yield notice(sentence(error, *files), "error"), *unchanged[2:], *_READY

        buttons = [self.run, self.cancel]
        asked = self.run.click(self._wait, outputs=[status, *buttons], queue=False, **PRIVATE)
        job = asked.then(
            run,
            inputs=inputs,
            outputs=[status, *outputs, *buttons],
            concurrency_limit=self.context.options.workers,
            concurrency_id="analysis",
            **PRIVATE,
        )
        inputs[0].change(self._claim, inputs=inputs[0], queue=False, **PRIVATE)
        job.failure(self._turned_away, outputs=[status, *buttons], queue=False, **PRIVATE)
        self.cancel.click(self._cancel, outputs=status, queue=False, **PRIVATE)

    def _claim(self, video: str | None, request: gr.Request) -> None:
        """Notes at once whose an upload is, so that another page with the same file does not take it along."""
        if video:
            self.context.workspaces.claim(request.session_hash, Path(video))

    def _wait(self, request: gr.Request):
        self.context.workspaces.of(request.session_hash).cancelled.clear()
        return notice("Waiting for its turn."), gr.update(interactive=False), gr.update(visible=True)

    def _cancel(self, request: gr.Request) -> str:
        self.context.workspaces.of(request.session_hash).cancelled.set()
        return notice("Stopping.")

    def _turned_away(self):
        return notice("Too many people are waiting at the moment. Try again in a minute.", "error"), *_READY
