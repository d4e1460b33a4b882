"""The Gradio app: `kinetrack demo`, `make demo` and the Hugging Face Space all start it here."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import gradio as gr
import transformers
from starlette.middleware import Middleware
from starlette.routing import WebSocketRoute

from .assets import FOLDER, read_asset
from .compare_tab import CompareTab
from .context import EXAMPLE, Context
from .controls import RATES, read_choices
from .endpoints import add_endpoints
from .explain_tab import explain_tab
from .limits import Refused
from .live import LiveDoor
from .live_tab import live_tab
from .networks import Networks
from .options import DemoOptions
from .run_buttons import PRIVATE
from .safety import NoProxy
from .video_tab import VideoTab
from .workspaces import Workspaces

TITLE = "KineTrack: what happens, who is where, who does what"

_HEADER = f"""<header class="kt-top">{read_asset("logo.svg")}
<div><h1>KineTrack</h1><p>What happens in a video, who is where, and who does what: one model, one pass.</p></div>
<button type="button" class="kt-theme" aria-label="Switch between light and dark"><i
aria-hidden="true">◐</i><span>Light or dark</span></button></header>"""

_SWITCH_THEME = """element.addEventListener("click", (event) => {
  if (event.target.closest(".kt-theme")) document.body.classList.toggle("dark");
});"""


def make_context(options: DemoOptions) -> Context:
    """Loads the default model and makes the folder for everything temporary, which goes when the process ends."""
    root = Path(tempfile.mkdtemp(prefix="kinetrack-demo-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    os.environ["GRADIO_TEMP_DIR"] = str(root)  # uploads lie there, and files in it are served
    networks = Networks(options)
    networks.get()
    return Context(options, networks, Workspaces(root, 60 * options.keep_minutes))


def build_app(context: Context) -> gr.Blocks:
    """The page.

    Args:
        context: from `make_context`, called before any component is made.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as app:
        gr.HTML(_HEADER, js_on_load=_SWITCH_THEME, apply_default_css=False, elem_id="kt-header")
        with gr.Tabs(elem_id="kt-tabs"):
            with gr.Tab("How it works", id="how", render=False) as how:
                explained = explain_tab()
            with gr.Tab("Video", id="video"):
                video = VideoTab(context, explained)
            with gr.Tab("Live", id="live"):
                live_tab(context)
            with gr.Tab("Compare", id="compare"):
                CompareTab(context)
            how.render()
        add_endpoints(context)

        def leave(request: gr.Request) -> None:
            context.workspaces.close(request.session_hash)

        def read_link(request: gr.Request):
            return _settings_of(context, dict(request.query_params))

        app.unload(leave)
        app.load(read_link, outputs=video.controls.inputs, queue=False, **PRIVATE)
    app.queue(max_size=context.options.queue_size, default_concurrency_limit=context.options.workers)
    return app


def _settings_of(context: Context, query: dict) -> list:
    """Values of `Controls.inputs` for a link that a result gave; what it does not say, or says wrongly, stays."""
    try:
        choices = read_choices(
            context.networks,
            query.get("model"),
            query.get("task", "both"),
            float(query.get("fps") or 0),
            float(query["threshold"]) if query.get("threshold") else None,
            query.get("size"),
        )
    except (Refused, ValueError):
        return [gr.skip()] * 5
    size = "" if choices.size is None else f"{choices.size[0]}x{choices.size[1]}"
    threshold = gr.skip() if choices.threshold is None else choices.threshold
    rate = int(choices.fps or 0)
    fps = rate if rate in dict(map(reversed, RATES)) else gr.skip()
    return [choices.model, choices.task, fps, threshold, size]


def theme() -> gr.themes.Base:
    """Calm greys and one blue; fonts of the system, so that the page asks no other server for anything."""
    fonts = [
        "ui-sans-serif",
        "system-ui",
        "-apple-system",
        "Segoe UI",
        "Roboto",
        "Arial",
        "sans-serif",
    ]
    base = gr.themes.Base(
        primary_hue=gr.themes.colors.blue,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_md,
        font=fonts,
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )
    return base.set(
        body_background_fill="#f6f7f9",
        body_background_fill_dark="#0f1318",
        block_background_fill="#ffffff",
        block_background_fill_dark="#171c23",
        block_border_color="#dfe4ea",
        block_border_color_dark="#2c343e",
        button_primary_background_fill="#0067a3",
        button_primary_background_fill_hover="#005688",
        button_primary_background_fill_dark="#0072b2",
        button_primary_background_fill_hover_dark="#0081c9",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        slider_color="#0067a3",
        slider_color_dark="#6cbdf0",
    )


def launch(options: DemoOptions, *, host: str = "127.0.0.1", port: int | None = None, wait: bool = True, **more):
    """Starts the demo.

    Args:
        options: see there.
        host: address to listen on.
        port: a free one from 7860 on when None.
        wait: whether to block until it ends.
        **more: for `gradio.Blocks.launch`.

    Returns:
        The `gradio.Blocks`, running, when not waiting.
    """
    transformers.utils.logging.disable_progress_bar()
    context = make_context(options)
    context.workspaces.sweep_for_ever()
    app = build_app(context)
    live = WebSocketRoute("/live", LiveDoor(context).__call__)
    app.launch(
        server_name=host,
        server_port=port,
        theme=theme(),
        css=read_asset("demo.css"),
        max_file_size=f"{options.max_megabytes}mb",
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        footer_links=["api"],
        allowed_paths=[str(EXAMPLE)],
        prevent_thread_lock=not wait,
        favicon_path=str(FOLDER / "favicon.png"),
        app_kwargs={
            "routes": [live],
            "middleware": [Middleware(NoProxy)],
        },
        **more,
    )
    return app
