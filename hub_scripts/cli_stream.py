"""The command `kinetrack stream`."""

import contextlib
import os
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .cli_options import (
    Backend,
    BackendOption,
    DeviceOption,
    ModelOption,
    SizeOption,
    Task,
    TaskOption,
    ThresholdOption,
    UntrainedOption,
    parse_size,
)


class Policy(StrEnum):
    """What happens to frames that come faster than they can be looked at."""

    latest = "latest"
    every = "every"


class Output(StrEnum):
    """Kinds of files."""

    jsonl = "jsonl"
    mot = "mot"
    video = "video"


HELP = (
    "Watch live sources: who is where and who does what, for as long as they last.\n\n"
    "A SOURCE is one of these; several run side by side, their frames in one batch:\n\n"
    "[bold]0[/bold], [bold]1[/bold] …, /dev/video0: a camera\n\n"
    "[bold]rtsp://…[/bold], rtmp://…, http://…, HLS: an address\n\n"
    "[bold]my.mp4[/bold]: a file\n\n"
    "[bold]folder[/bold], [bold]'frames/*.jpg'[/bold]: images, or recordings that are played one after the other\n\n"
    "[bold]-[/bold]: the standard input, with a container or raw frames (--pipe-size)\n\n"
    "[bold]cameras.streams[/bold]: a list, one source a line\n\n"
    "Into DIR/<name of the source>/ go\n\n"
    "[bold]frames.jsonl[/bold]: a line for every frame, with tracks and actions, and for whatever happens to the source"
    "\n\n"
    "[bold]tracks.txt[/bold]: MOTChallenge lines: frame, id, left, top, width, height, score, -1, -1, -1\n\n"
    "[bold]annotated-000001.mp4[/bold] …: video in segments, with --write video\n\n"
    "Files of an earlier run are replaced, unless --state goes on with that stream. After a crash, frames of a file "
    "since the last save come again: text is cut back to the save, but video segments stay, and a new one shows them "
    "once more. A live source that breaks off is opened again, after waits that double up to 30 seconds. Ctrl-C or "
    "kill ends the run with complete files and exit code 0. "
    "Boxes are pixels of the frame as displayed; times are seconds of the source's own clock, gaps included."
)
EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "The first camera:  [cyan]kinetrack stream 0[/cyan]\n\n"
    "Two cameras, the last ten minutes of video kept:  [cyan]kinetrack stream rtsp://a/1 rtsp://b/1 --write jsonl "
    "--write video --keep-segments 10[/cyan]\n\n"
    "JSON lines for another program:  [cyan]kinetrack stream rtsp://a/1 --json | jq .tracks[/cyan]\n\n"
    "Raw frames from another program:  [cyan]my-camera | kinetrack stream - --pipe-size 480x640 --pixel-format bgr24 "
    "--fps 30[/cyan]\n\n"
    "Weeks, over restarts of the machine:  [cyan]kinetrack stream cameras.streams --state cameras.safetensors "
    "--wait[/cyan]"
)


def stream(
    sources: Annotated[
        list[str], typer.Argument(help="Cameras, addresses, files …", metavar="SOURCE", show_default=False)
    ],
    model: ModelOption = "kinetrack-nano",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.", metavar="DIR")] = Path(
        "kinetrack-streams"
    ),
    write: Annotated[
        list[Output] | None, typer.Option("--write", help="May be repeated. \\[default: jsonl and mot]")
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="JSON lines to the standard output, and no files.")
    ] = False,
    policy: Annotated[
        Policy | None,
        typer.Option(
            "--policy",
            help="latest: drop frames rather than fall behind. every: look at all, and let the source wait. "
            "\\[default: latest for live sources, every for others]",
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            help="Look at this many frames a second; of images and raw frames it is their rate. "
            "\\[default: every frame, 25]",
            metavar="N",
        ),
    ] = None,
    task: TaskOption = Task.both,
    threshold: ThresholdOption = None,
    size: SizeOption = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="Stop after this many frames of each source.", metavar="N", min=1)
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state",
            help="Go on from this file if it is there, identities included, and keep it up to date.",
            metavar="FILE",
        ),
    ] = None,
    save_every: Annotated[
        float, typer.Option("--save-every", help="Seconds between two saves of the state.", metavar="S", min=1)
    ] = 60.0,
    segment_seconds: Annotated[
        float, typer.Option("--segment-seconds", help="Length of a segment of video.", metavar="S", min=1)
    ] = 60.0,
    keep_segments: Annotated[
        int | None,
        typer.Option("--keep-segments", help="Keep only the newest. \\[default: all]", metavar="N", min=1),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for a live source that is not there yet, instead of failing.")
    ] = False,
    give_up_after: Annotated[
        float | None,
        typer.Option(
            "--give-up-after",
            help="Seconds after which a live source that stays away is an error. \\[default: never]",
            metavar="S",
        ),
    ] = None,
    stall: Annotated[
        float, typer.Option("--stall", help="Seconds without data that count as a break.", metavar="S", min=0.1)
    ] = 10.0,
    pipe_size: Annotated[
        tuple | None,
        typer.Option(
            "--pipe-size",
            help="Size of raw frames in a pipe. \\[default: a container says it]",
            metavar="HEIGHTxWIDTH",
            parser=parse_size,
        ),
    ] = None,
    pixel_format: Annotated[
        str, typer.Option("--pixel-format", help="Of raw frames: rgb24, bgr24, gray, nv12 …", metavar="NAME")
    ] = "rgb24",
    source_option: Annotated[
        list[str] | None,
        typer.Option(
            "--source-option",
            "-O",
            help="For FFmpeg, such as rtsp_transport=udp or video_size=1280x720; may be repeated.",
            metavar="KEY=VALUE",
        ),
    ] = None,
    device: DeviceOption = None,
    backend: BackendOption = Backend.auto,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; events and errors still show.")] = False,
    allow_untrained: UntrainedOption = False,
) -> None:
    """Watch live sources: who is where and who does what, for as long as they last."""
    from ..processing.live_kinetrack import Reconnect
    from ..processing.sources_kinetrack import find_source
    from ..processing.streaming import OutputSettings
    from ..processing.streaming import stream as run_stream
    from .stream_display import StreamDisplay

    named = list_sources(sources)
    how = {
        "frame_rate": fps,
        "frame_size": pipe_size,
        "pixel_format": pixel_format,
        "options": parse_options(source_option or []),
        "stall_timeout": stall,
    }
    kinds = [kind.value for kind in write or (Output.jsonl, Output.mot)]
    if json_lines:
        files = OutputSettings(lines=sys.stdout)
    else:
        files = OutputSettings(output, kinds, segment_seconds, keep_segments)
    with reader_may_leave(), stopping() as stop, StreamDisplay(quiet) as display:
        statuses = run_stream(
            [find_source(source, **how) for source in named],
            model,
            output=files,
            on_event=display.event,
            on_progress=display.show,
            policy=policy and policy.value,
            fps=fps,
            reconnect=Reconnect(give_up_after=give_up_after, from_start=wait),
            state=state,
            save_every=save_every,
            max_frames=frames,
            stop=stop,
            device=device,
            backend=backend.value,
            task=task.value,
            threshold=threshold,
            size=size,
            allow_untrained=allow_untrained,
        )
        display.finish(statuses)
        if any(status.error is not None for status in statuses):
            raise typer.Exit(1)


def list_sources(given: list[str]) -> list[str]:
    """The sources, with those that `.streams` files name in place of the files."""
    from ..processing.sources_kinetrack import read_stream_list

    found = []
    for source in given:
        found += read_stream_list(source) if source.endswith(".streams") else [source]
    return found


def parse_options(given: list[str]) -> dict[str, str]:
    """`KEY=VALUE` texts as a dictionary."""
    found = {}
    for text in given:
        key, separator, value = text.partition("=")
        if not (key and separator):
            raise typer.BadParameter(f"expected KEY=VALUE such as rtsp_transport=udp, got {text!r}")
        found[key] = value
    return found


@contextlib.contextmanager
def reader_may_leave():
    """Whoever reads the standard output may stop reading, as `head` does; that ends the run and is no error."""
    try:
        yield
    except BrokenPipeError:
        # Python writes what is left when it ends, and must not complain then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def stopping():
    """An event that the first Ctrl-C or `kill` sets; the second one interrupts."""
    stop = threading.Event()

    def handle(number, frame):
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print("Stopping; the files are completed.", file=sys.stderr, flush=True)

    earlier = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def add_stream_command(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(help=HELP, epilog=EXAMPLES)(stream)
