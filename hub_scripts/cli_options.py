"""Options that several commands have."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Task(StrEnum):
    """What a model is asked for."""

    both = "both"
    tracking = "tracking"
    actions = "actions"


class Backend(StrEnum):
    """What can run a model."""

    auto = "auto"
    torch = "torch"
    compile = "compile"
    onnx = "onnx"
    openvino = "openvino"


def parse_size(text: str) -> tuple[int, int]:
    """`384x512` to (384, 512)."""
    height, separator, width = text.lower().replace("×", "x").partition("x")
    if not (separator and height.strip().isdecimal() and width.strip().isdecimal()):
        raise typer.BadParameter(f"expected HEIGHTxWIDTH such as 352x640, got {text!r}")
    return int(height), int(width)


ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Installed model, folder, or Hub id (owner/name).", metavar="MODEL")
]
ModelArgument = Annotated[str, typer.Argument(help="Installed model, folder, or Hub id (owner/name).", metavar="MODEL")]
TrainedModelArgument = Annotated[
    Path, typer.Argument(help="Folder of a trained model, whose config.json is changed.", metavar="MODEL")
]
CheckpointArgument = Annotated[
    str, typer.Argument(help="Folder of a trained model, or one installed with KineTrack.", metavar="CHECKPOINT")
]
RepositoryArgument = Annotated[str, typer.Argument(help="Where on the Hub.", metavar="OWNER/NAME")]
PrivateOption = Annotated[bool, typer.Option("--private", help="A new repository is only for you.")]
MessageOption = Annotated[str | None, typer.Option("--message", help="Of the commit.")]
DryUploadOption = Annotated[bool, typer.Option("--dry-run", help="List what would go, and upload nothing.")]
TaskOption = Annotated[Task, typer.Option("--task", help="What to look for.")]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold", help="Report objects from this score on, 0 to 1. \\[default: the model's]", metavar="P"
    ),
]
SizeOption = Annotated[
    tuple | None,
    typer.Option(
        "--size",
        help="Pixels the model works on, such as 352x640; multiples of 32. \\[default: fitted to the video]",
        metavar="HEIGHTxWIDTH",
        parser=parse_size,
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1 … \\[default: a GPU if there is one]", metavar="DEVICE"),
]
BackendOption = Annotated[
    Backend,
    typer.Option("--backend", help="What runs the model; auto: on a CPU the fastest exact one that is installed."),
]
UntrainedOption = Annotated[
    bool, typer.Option("--allow-untrained", help="Take a model that was never trained; its results are noise.")
]
