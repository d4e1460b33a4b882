"""Small pieces of HTML: escaping, times, and names of actions in words."""

import html
from collections.abc import Iterable
from pathlib import Path

from ..processing.drawing import in_words
from ..processing.findings_kinetrack import UNCERTAIN

# One colour a curve: Okabe and Ito's, told apart with every common form of colour blindness.
CURVE_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")


def escape(text: object) -> str:
    """Text for HTML, also within an attribute; `{`, `}` and `$` are escaped too, which mean something in templates."""
    return html.escape(str(text)).replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;")


def clock_time(seconds: float) -> str:
    """`65.25` as "1:05.2"; below a minute "5.2 s"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}:{rest:04.1f}"


def spoken_action(action: str | None, confidence: float | None, ranked=()) -> str:
    """What somebody does, with how sure the model is: "walk 71 %", or "uncertain (walk 31 %)".

    Args:
        action: name, "uncertain", or None.
        confidence: of the likeliest action.
        ranked: (name, probability), likeliest first; names what an uncertain action might be.
    """
    if action is None:
        return "not asked"
    if action == UNCERTAIN:
        return f"uncertain ({in_words(ranked[0][0])} {ranked[0][1]:.0%})" if ranked else "uncertain"
    return f"{in_words(action)} {confidence:.0%}"


def spoken_task(task: str) -> str:
    """`both` as "actions and tracking"."""
    return "actions and tracking" if task == "both" else task


def spoken_rate(fps: float | None) -> str:
    """Frames a second that were looked at: "10", or "every frame"."""
    return "every frame" if fps is None else f"{fps:g}"


def short_names(models: Iterable[str]) -> dict[str, str]:
    """What visitors read for each model: of a folder the last names, as many as tell it from the others.

    Args:
        models: names, folders or Hub ids.
    """
    parts = {model: Path(model).resolve().parts if Path(model).is_dir() else (model,) for model in models}
    short = {}
    for model, own in parts.items():
        others = [other for name, other in parts.items() if name != model]
        count = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        short[model] = "/".join(own[-count:])
    return short


def percent(value: float) -> str:
    """A share of 0 to 1 for CSS."""
    return f"{100 * value:.3f}%"
