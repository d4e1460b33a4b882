"""`kinetrack caption`: what a captioner of one's own says of a video."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = (
    "[bold]Examples[/bold]\n\n"
    "Train one on your own sentences:  [cyan]kinetrack train model=kinetrack-nano captions=pairs.csv "
    "output=runs/captions[/cyan]\n\n"
    "Describe a video:  [cyan]kinetrack caption my.mp4 --captioner runs/captions/model[/cyan]\n\n"
    "Ask about it:  [cyan]kinetrack caption my.mp4 -c runs/captions/model -q 'how many people are there?'[/cyan]"
)


def caption(
    videos: Annotated[list[Path], typer.Argument(help="Video files.", metavar="VIDEO...", show_default=False)],
    captioner: Annotated[
        Path, typer.Option("--captioner", "-c", help="Folder OUTPUT/model of a training with captions=.", metavar="DIR")
    ],
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="What to ask; may be repeated. \\[default: describe the video]"),
    ] = None,
) -> None:
    r"""Describe videos or answer questions about them, with a small text decoder that you trained yourself.

    No captioner comes with KineTrack: one knows the words, the kinds of sentences and the questions it was trained on,
    and nothing else. pairs.csv has a header and a line for each sentence:  path,sentence  and perhaps  question,split.

    Needs  pip install -e '.\[train]'  in KineTrack's folder.
    """
    from .captioning.train_pairs import caption_videos

    for video, answers in zip(videos, caption_videos(captioner, videos, question or ()), strict=True):
        for asked, said in zip(question or ("",), answers, strict=True):
            print(f"{video}: {asked} {said}" if asked else f"{video}: {said}")


def add_caption_command(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(epilog=EPILOG)(caption)
