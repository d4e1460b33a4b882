"""A finished analysis as the page shows it: headline, player, timeline, table, downloads, how to get it again."""

import shlex
from pathlib import Path
from urllib.parse import quote, urlencode

from ..processing.drawing import in_words
from ..processing.findings_kinetrack import UNCERTAIN
from ..processing.loading import DEFAULT_MODEL
from ..processing.results import VideoAnalysis
from ..processing.sinks import ANALYSIS, ANNOTATED_VIDEO, SUMMARY, TRACKS
from .evidence import ATTENTION, VIEW
from .jobs import Choices, Finished, Progress
from .markup import clock_time, escape, percent, spoken_rate, spoken_task
from .people import people_table
from .timeline import timeline

BOXES = "boxes.csv"

_DAMAGED = "Parts of this video are damaged. What can be decoded was looked at."

_DOWNLOADS = (
    (ANNOTATED_VIDEO, "Video", "MP4, with boxes"),
    (TRACKS, "Tracks", "MOTChallenge text"),
    (ANALYSIS, "Everything", "JSON"),
    (BOXES, "Boxes", "CSV"),
    (SUMMARY, "Summary", "PNG"),
)


def save_extras(finished: Finished) -> None:
    """Adds to the files of an analysis what only the page needs, and the boxes as CSV."""
    folder = finished.analysis.output
    finished.analysis.to_pandas().to_csv(folder / BOXES, index=False, float_format="%.4f")
    finished.evidence.save(folder)


def file_url(path: Path) -> str:
    """Where Gradio serves a file of a workspace, relative to the page."""
    return f"gradio_api/file={quote(path.as_posix())}"


def result_view(finished: Finished) -> str:
    """The whole result; its files are in `finished.analysis.output`."""
    analysis = finished.analysis
    return (
        '<article class="kt-result" tabindex="-1">'
        + headline(analysis)
        + (notice(_DAMAGED) if finished.evidence.is_damaged else "")
        + player(analysis)
        + timeline(analysis)
        + people_table(analysis, finished.evidence.portraits)
        + downloads(analysis.output)
        + how_to_repeat(analysis, finished.choices)
        + "</article>"
    )


def headline(analysis: VideoAnalysis) -> str:
    """What was found, in one sentence and a few facts."""
    found = []
    if analysis.settings["task"] != "actions":
        count = len(analysis.tracks)
        noun = "person" if analysis.model["object_classes"] == ["person"] else "object"
        plural = {"person": "people", "object": "objects"}[noun]
        found.append(f"<b>{count or 'No'}</b> {noun if count == 1 else plural} tracked")
    if analysis.action == UNCERTAIN:
        name, probability = analysis.actions[0]
        found.append(f"what happens: <b>uncertain</b>, maybe {escape(in_words(name))} ({probability:.0%})")
    elif analysis.action is not None:
        found.append(f"what happens: <b>{escape(in_words(analysis.action))}</b> ({analysis.confidence:.0%})")
    source, speed = analysis.source, analysis.performance
    facts = [
        source["name"],
        f"{source['width']}×{source['height']}",
        clock_time(analysis.duration),
        f"{len(analysis.times)} frames",
        *map(in_words, analysis.group_phrases),
        f"{speed['frames_per_second']:.1f} frames/s here",
    ]
    return (
        f'<header class="kt-headline"><h2>{"; ".join(found)}</h2>'
        f"<p>{''.join(f'<span>{escape(fact)}</span>' for fact in facts)}</p></header>"
    )


def player(analysis: VideoAnalysis, label: str = "Annotated video") -> str:
    """The annotated video with a layer for attention, and the controls that browsers lack."""
    folder, source = analysis.output, analysis.source
    described = f"{label}: {escape(source['name'])} with a box, an identity and an action for everybody tracked"
    return (
        f'<div class="kt-player" data-view="{file_url(folder / VIEW)}" data-attention="{file_url(folder / ATTENTION)}">'
        f'<div class="kt-stage"><div class="kt-screen" style="aspect-ratio:{source["width"]}/{source["height"]}">'
        f'<video controls playsinline preload="auto" src="{file_url(folder / ANNOTATED_VIDEO)}" '
        f'aria-label="{described}"></video>'
        '<canvas class="kt-overlay" aria-hidden="true"></canvas></div></div><div class="kt-controls">'
        '<button type="button" class="kt-toggle" data-action="attention" aria-pressed="false">'
        '<i class="kt-heat" aria-hidden="true"></i>Show attention</button>'
        '<label class="kt-speed">Speed <select data-action="speed"><option value="0.25">¼×</option>'
        '<option value="0.5">½×</option><option value="1" selected>1×</option><option value="2">2×</option></select>'
        "</label>"
        '<span class="kt-scale" aria-hidden="true">average<i></i>16×</span>'
        '<output class="kt-now" aria-live="off"></output></div></div>'
    )


def downloads(folder: Path) -> str:
    """Links to the files."""
    links = "".join(
        f'<a class="kt-download" href="{file_url(folder / name)}" download="{name}"><b>{title}</b>'
        f"<span>{kind}</span></a>"
        for name, title, kind in _DOWNLOADS
        if (folder / name).exists()
    )
    return f'<nav class="kt-downloads" aria-label="Downloads"><h3>Take it with you</h3><div>{links}</div></nav>'


def command_line(name: str, choices: Choices) -> str:
    """The command that gives the same result."""
    parts = ["kinetrack", "analyze", name, "--model", choices.model, "--task", choices.task]
    if choices.fps is not None:
        parts += ["--fps", f"{choices.fps:g}"]
    if choices.threshold is not None:
        parts += ["--threshold", f"{choices.threshold:g}"]
    if choices.size is not None:
        parts += ["--size", f"{choices.size[0]}x{choices.size[1]}"]
    return shlex.join(parts)


def settings_query(choices: Choices) -> str:
    """The settings as the query of the page's address."""
    values = {"task": choices.task, "fps": choices.fps, "threshold": choices.threshold}
    if choices.model != DEFAULT_MODEL:
        values["model"] = choices.model
    if choices.size is not None:
        values["size"] = f"{choices.size[0]}x{choices.size[1]}"
    return urlencode({key: f"{v:g}" if isinstance(v, float) else v for key, v in values.items() if v is not None})


def how_to_repeat(analysis: VideoAnalysis, choices: Choices) -> str:
    """The settings of this result: a command line and a link."""
    settings = analysis.settings
    rows = {
        "Model": analysis.model["name"],
        "Task": spoken_task(settings["task"]),
        "Threshold": f"{settings['threshold']:g}" + ("" if choices.threshold is not None else " (the model’s own)"),
        "Frames a second": spoken_rate(choices.fps),
        "Model input": "fitted to the video" if choices.size is None else f"{choices.size[0]}×{choices.size[1]} pixels",
        "Device": settings["device"],
    }
    listed = "".join(f"<div><dt>{key}</dt><dd>{escape(value)}</dd></div>" for key, value in rows.items())
    command = escape(command_line(analysis.source["name"], choices))
    return (
        '<section class="kt-repeat" aria-label="How to get this result again"><h3>Get this result again</h3>'
        f"<dl>{listed}</dl>"
        f'<div class="kt-copy"><code>{command}</code>'
        f'<button type="button" data-copy="{command}">Copy command</button></div>'
        f'<div class="kt-copy"><a href="?{escape(settings_query(choices))}">A link to these settings</a>'
        f'<button type="button" data-copy-link="?{escape(settings_query(choices))}">Copy link</button></div></section>'
    )


def progress_view(progress: Progress, what: str = "") -> str:
    """Frames done, and about how long it will still take; `what` goes before it."""
    share = 0.0 if not progress.total else min(1.0, progress.done / progress.total)
    left = progress.seconds_left
    if left is None:
        remaining = "estimating"
    elif share >= 1:
        remaining = "writing the files"
    else:
        remaining = f"about {max(1, round(left))} s left"
    of = f" of {progress.total}" if progress.total else ""
    return (
        f'<div class="kt-progress" role="progressbar" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{100 * share:.0f}" aria-label="Analysis"><div class="kt-bar-outer">'
        f'<i style="width:{percent(share)}"></i></div><p><b>{what}frame {progress.done}{of}</b>'
        f"<span>{progress.rate:.1f} frames/s</span><span>{remaining}</span></p></div>"
    )


def notice(text: str, kind: str = "info") -> str:
    """A sentence for the visitor: `info` or `error`."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="kt-notice kt-{kind}" role="{role}">{escape(text)}</p>'


EMPTY = (
    '<div class="kt-empty"><svg viewBox="0 0 320 150" role="img" aria-label="A video frame with three people in boxes, '
    'and a timeline below it"><rect x="40" y="8" width="240" height="96" rx="8" class="kt-line"/>'
    '<g fill="none" stroke-width="3"><rect x="74" y="38" width="26" height="54" rx="3" stroke="#E69F00"/>'
    '<rect x="146" y="26" width="26" height="58" rx="3" stroke="#0072B2"/>'
    '<rect x="218" y="44" width="24" height="50" rx="3" stroke="#009E73"/></g>'
    '<g stroke-width="6" stroke-linecap="round"><path d="M46 120H170" stroke="#E69F00"/>'
    '<path d="M96 131H250" stroke="#0072B2"/><path d="M150 142H274" stroke="#009E73"/></g></svg>'
    "<h2>What happens, who is where, and who does what</h2>"
    "<p>Choose the example or a video of your own, then press <b>Analyse</b>. The video comes back with boxes and "
    "identities, a timeline you can click, and a table of everybody in it.</p></div>"
)
