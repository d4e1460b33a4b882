"""What `kinetrack stream` shows while it runs: a table that is kept up to date, or a line now and then."""

import os
import sys
import time
from datetime import datetime

# Seconds between two lines where nothing can be kept up to date, such as in a log.
_LINE_EVERY = 10.0


class StreamDisplay:
    """The progress of all streams on the standard error.

    Args:
        quiet: shows events only.
    """

    def __init__(self, quiet: bool = False):
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._quiet, self._told = quiet, None
        live = self._console.is_terminal and not quiet
        self._live = Live(console=self._console, refresh_per_second=4, transient=True) if live else None

    def __enter__(self) -> "StreamDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, stream: str, event) -> None:
        """Prints something that happened to a source."""
        from rich.text import Text

        colors = {"disconnected": "red", "damaged": "yellow", "connected": "green", "reconnected": "green"}
        line = Text(f"{datetime.now():%H:%M:%S}  {stream}  ")
        line.append(event.kind, style=colors.get(event.kind, "cyan")).append(f": {event.message}")
        self._console.print(line, soft_wrap=True)

    def show(self, statuses) -> None:
        """Shows how all streams are doing."""
        if self._live is not None:
            self._live.update(_table(statuses))
        elif not self._quiet and self._is_time():
            for status in statuses:
                print(_line(status), file=sys.stderr, flush=True)

    def _is_time(self) -> bool:
        now = time.monotonic()
        self._told = now if self._told is None else self._told
        due = now - self._told > _LINE_EVERY
        self._told = now if due else self._told
        return due

    def finish(self, statuses) -> None:
        """Says how every stream ended and where its files are."""
        from .console import one_line

        for status in statuses:
            if status.error is not None:
                print(f"Error: {status.name}: {one_line(status.error)}", file=sys.stderr)
            if self._quiet:
                continue
            parts = [f"{status.frames} frames", f"{status.dropped} dropped"]
            if status.breaks:
                parts.append(f"{status.breaks} breaks")
            where = f"  {status.folder}{os.sep}" if status.folder is not None else ""
            print(f"{status.name}: {', '.join(parts)}{where}", file=sys.stderr)


def _table(statuses):
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("source", overflow="ellipsis")
    table.add_column("", no_wrap=True)
    for heading in ("frames", "frames/s", "latency", "dropped", "tracks", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for status in statuses:
        table.add_row(
            status.name,
            status.state,
            str(status.frames),
            f"{status.frames_per_second:.1f}",
            f"{1000 * status.latency:.0f} ms",
            str(status.dropped),
            str(status.tracks),
            _clock(status.time),
        )
    return table


def _line(status) -> str:
    return (
        f"{datetime.now():%H:%M:%S}  {status.name}  {status.state}: {status.frames} frames, "
        f"{status.frames_per_second:.1f} a second, latency {1000 * status.latency:.0f} ms, {status.dropped} dropped, "
        f"{status.tracks} tracks, at {_clock(status.time)}"
    )


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
