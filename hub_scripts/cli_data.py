"""Commands about data: `kinetrack data check`."""

from pathlib import Path
from typing import Annotated

import typer


def check(
    path: Annotated[
        str,
        typer.Argument(help="Folder, CSV file, or id of a data set on the Hub.", metavar="PATH", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.", metavar="DIR")] = Path(
        "kinetrack-data"
    ),
    layout: Annotated[
        str, typer.Option("--layout", help="Of labelled clips: ucf101, hmdb51, csv, folders or hub; auto looks.")
    ] = "auto",
    fold: Annotated[int, typer.Option("--fold", help="Official split of UCF-101 or HMDB-51, 1 to 3.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Read the headers of videos only, decode no frames.")] = False,
) -> None:
    r"""Say what is there to train on, what is broken and why, and draw some of it with its boxes.

    Ends with exit code 1 if anything is wrong.

    Needs  pip install -e '.\[train]'  in KineTrack's folder.
    """
    from .data.check import check_data

    report = check_data(path, output, layout, fold, decode=not quick, progress=True)
    print(report.text())
    if report.failed:
        raise typer.Exit(1)


def add_data_commands(app: typer.Typer) -> None:
    """Registers the commands."""
    data = typer.Typer(
        no_args_is_help=True,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Look at data before training on them.",
    )
    data.command(epilog="[bold]Example[/bold]\n\n[cyan]kinetrack data check my_clips[/cyan]")(check)
    # With one command alone, Typer would leave its name out.
    data.callback()(lambda: None)
    app.add_typer(data, name="data")
