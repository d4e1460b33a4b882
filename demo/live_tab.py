"""The Live tab: the webcam through a session, with its rate and its delay on show. `live.py` is the other end."""

import gradio as gr

from .assets import read_asset
from .context import Context
from .live import MAX_MINUTES


def live_tab(context: Context) -> None:
    """Builds the tab."""
    page = read_asset("live.html").replace("{minutes}", f"{MAX_MINUTES:.0f}")
    gr.HTML(page, elem_id="kt-live", js_on_load=read_asset("live.js"), apply_default_css=False)
