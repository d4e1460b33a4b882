"""The table of tracks, as HTML: who, when, doing what, how sure; `assets/player.js` sorts and filters it."""

from ..processing.drawing import identity_color, in_words, text_color
from ..processing.findings_kinetrack import UNCERTAIN
from ..processing.results import VideoAnalysis
from .evidence import Portrait
from .markup import clock_time, escape, percent

# (key to sort by, heading, whether it starts with the largest)
_COLUMNS = (
    ("id", "Who", False),
    ("from", "From", False),
    ("to", "To", False),
    ("length", "In view", True),
    ("action", "Action", False),
    ("confidence", "Confidence", True),
)
_OF_ACTIONS = ("action", "confidence")


def people_table(analysis: VideoAnalysis, portraits: dict[int, Portrait]) -> str:
    """The table with its filter; empty when nobody was to be tracked.

    Args:
        analysis: of one video.
        portraits: pictures by identity.
    """
    if analysis.settings["task"] == "actions" or not analysis.tracks:
        return ""
    several = len({track.class_name for track in analysis.tracks}) > 1
    columns = [column for column in _COLUMNS if analysis.settings["task"] == "both" or column[0] not in _OF_ACTIONS]
    heads = "".join(
        f'<th scope="col" aria-sort="{"ascending" if key == "id" else "none"}"><button type="button" data-sort="{key}" '
        f'data-first="{"descending" if largest_first else "ascending"}">{heading}</button></th>'
        for key, heading, largest_first in columns
    )
    rows = "".join(_row(track, portraits.get(track.id), several, columns) for track in analysis.tracks)
    count = len(analysis.tracks)
    return (
        '<section class="kt-people" aria-label="Everybody tracked"><div class="kt-people-head">'
        f'<h3>Everybody tracked <span class="kt-shown">{count} of {count}</span></h3>'
        '<input type="search" class="kt-filter" placeholder="Filter: walk, #3, > 60 %" '
        'aria-label="Filter the table by action, identity or confidence, such as walk, #3 or > 60"></div>'
        '<div class="kt-scroll" tabindex="0" role="region" aria-label="Table of tracks">'
        f'<table class="kt-columns-{len(columns)}"><thead><tr>{heads}</tr>'
        f"</thead><tbody>{rows}</tbody></table></div></section>"
    )


def _row(track, portrait: Portrait | None, several: bool, columns) -> str:
    length = sum(end - start for start, end in track.visits)
    likeliest = in_words(track.actions[0][0]) if track.actions else ""
    sure = track.confidence or 0.0
    cells = {
        "id": (track.id, f'<th scope="row">{_who(track, portrait, several)}</th>'),
        "from": (track.first_time, f"<td>{clock_time(track.first_time)}</td>"),
        "to": (track.last_time, f"<td>{clock_time(track.last_time)}</td>"),
        "length": (length, f"<td>{length:.1f} s</td>"),
        "action": (likeliest, f"<td>{_action(track, likeliest)}</td>"),
        "confidence": (sure, f"<td>{_confidence(sure)}</td>"),
    }
    data = "".join(
        f' data-{key}="{escape(round(value, 4) if isinstance(value, float) else value)}"'
        for key, (value, _) in cells.items()
    )
    named = " uncertain" if track.action == UNCERTAIN else ""
    words = f"#{track.id} {likeliest}{named} {track.class_name}"
    return (
        f'<tr{data} data-words="{escape(words.lower())}" data-track="{track.id}">'
        + "".join(cells[key][1] for key, _, _ in columns)
        + "</tr>"
    )


def _who(track, portrait: Portrait | None, several: bool) -> str:
    """Picture and identity, which jump to where the track begins."""
    color, start = identity_color(track.id), clock_time(track.first_time)
    picture = '<span class="kt-no-picture" role="img" aria-label="no picture"></span>'
    if portrait:
        picture = (
            f'<img src="{portrait.data_uri()}" width="42" height="56" loading="lazy" '
            f'alt="Track {track.id} at {clock_time(portrait.time)}">'
        )
    return (
        f'<button type="button" class="kt-who" data-time="{track.first_time:.4f}" data-track="{track.id}" '
        f'aria-label="Track {track.id}: jump to {start}">{picture}'
        f'<span class="kt-badge" style="background:{color};color:{text_color(color)}">#{track.id}</span>'
        f"{escape(track.class_name) if several else ''}</button>"
    )


def _action(track, likeliest: str) -> str:
    if track.action == UNCERTAIN and likeliest:
        return f'<span class="kt-faint">uncertain</span> <small>maybe {escape(likeliest)}</small>'
    return "" if track.action is None else escape(in_words(track.action))


def _confidence(sure: float) -> str:
    return f'<span class="kt-meter" aria-hidden="true"><i style="width:{percent(sure)};"></i></span> {sure:.0%}'
