"""The command `kinetrack export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .cli_options import ModelArgument, UntrainedOption


class Format(StrEnum):
    """Kinds of file."""

    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class Mode(StrEnum):
    """Forms of the model."""

    step = "step"
    clip = "clip"


def export(
    model: ModelArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", metavar="DIR")],
    format: Annotated[Format, typer.Option("--format", help="Kind of file.")] = Format.onnx,
    mode: Annotated[
        Mode, typer.Option("--mode", help="step: one frame, state in and out. clip: T frames at once.")
    ] = Mode.step,
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit integers where they are faster; needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option(
            "--calibrate",
            help="Video, or folder of videos, like those to come, for --int8; may be repeated.",
            metavar="PATH",
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", help="T of a clip. \\[default: the model's]", metavar="T")
    ] = None,
    allow_untrained: UntrainedOption = False,
) -> None:
    r"""Write a model as a graph that runs without this package; a README in the folder says how.

    Every graph is compared with the model before the folder is there; 8 bits cannot be equal, what they are made of is.

    Batch and frame size stay free.

    Run it:  kinetrack analyze my.mp4 --model DIR

    Needs  pip install -e '.\[export]'  in KineTrack's folder.
    """
    if int8 != bool(calibrate):
        raise typer.BadParameter("--int8 and --calibrate belong together: 8 bits are chosen by looking at videos.")
    from .export import export as run_export

    folder = run_export(
        model,
        output,
        format.value,
        mode.value,
        calibration=calibrate or (),
        num_frames=frames,
        allow_untrained=allow_untrained,
    )
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def add_export_command(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(
        epilog="[bold]Examples[/bold]\n\n"
        "For ONNX Runtime:  [cyan]kinetrack export kinetrack-nano -o exported[/cyan]\n\n"
        "8 bits for OpenVINO:  [cyan]kinetrack export kinetrack-nano --format openvino --int8 --calibrate videos/ "
        "-o exported-int8[/cyan]"
    )(export)
