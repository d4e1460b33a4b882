"""The command `kinetrack`: every command parses, calls and prints; what it does lives elsewhere."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .cli_caption import add_caption_command
from .cli_data import add_data_commands
from .cli_demo import add_demo_commands
from .cli_experiment import add_experiment_command
from .cli_export import add_export_command
from .cli_hub import add_hub_commands
from .cli_options import (
    Backend,
    BackendOption,
    DeviceOption,
    ModelArgument,
    ModelOption,
    SizeOption,
    Task,
    TaskOption,
    ThresholdOption,
    TrainedModelArgument,
    UntrainedOption,
)
from .cli_stream import add_stream_command

app = typer.Typer(
    name="kinetrack",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="What happens in a video, who is where, and who does what: one model, one pass.\n\n"
    "Start with  [bold]kinetrack analyze my.mp4[/bold]  and open kinetrack-results/my/annotated.mp4, or watch a camera "
    "with  [bold]kinetrack stream 0[/bold].",
    epilog="Each command explains itself: kinetrack COMMAND --help",
)


class Split(StrEnum):
    """Held-out data: by committed lists, or the test part of a data set."""

    val = "val"
    dev = "dev"
    test = "test"


class Half(StrEnum):
    """Halves of tracking sequences."""

    val = "val"
    train = "train"


class Ablation(StrEnum):
    """Parts of a model that can be switched off."""

    reset = "reset"
    uniform = "uniform"


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"kinetrack {__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(
    help="Find out what happens in videos, who is where, and who does what.\n\n"
    "Writes into DIR/<name of the video>/:\n\n"
    "[bold]annotated.mp4[/bold]: boxes, identities, traces, everybody's action, the clip's action; sound kept\n\n"
    "[bold]tracks.txt[/bold]: MOTChallenge lines: frame, id, left, top, width, height, score, -1, -1, -1\n\n"
    "[bold]analysis.json[/bold]: everything: clip actions over time, tracks with times, boxes and actions\n\n"
    "[bold]summary.png[/bold]: key frames with attention, actions and attention over time, a lane a track\n\n"
    "Files of an earlier run are replaced when the new ones are complete; an interrupted run changes nothing. Videos "
    "with the same name get folders of their own (name, name-2, …). Boxes are pixels of the original frame as "
    "displayed, times are seconds.",
    epilog="[bold]Examples[/bold]\n\n"
    "Everything about one video:  [cyan]kinetrack analyze my.mp4[/cyan]\n\n"
    "Several videos, own folder, ten frames a second:  [cyan]kinetrack analyze a.mp4 b.mov -o out --fps 10[/cyan]\n\n"
    "Only tracks, as text:  [cyan]kinetrack analyze my.mp4 --task tracking --no-video[/cyan]\n\n"
    "Your own model on a GPU:  [cyan]kinetrack analyze my.mp4 --model runs/nano/model --device cuda[/cyan]",
)
def analyze(
    videos: Annotated[list[str], typer.Argument(help="Video files or URLs.", metavar="VIDEO", show_default=False)],
    model: ModelOption = "kinetrack-nano",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.", metavar="DIR")] = Path(
        "kinetrack-results"
    ),
    task: TaskOption = Task.both,
    fps: Annotated[
        float | None,
        typer.Option("--fps", help="Look at this many frames a second. \\[default: every frame]", metavar="N"),
    ] = None,
    threshold: ThresholdOption = None,
    size: SizeOption = None,
    device: DeviceOption = None,
    backend: BackendOption = Backend.auto,
    no_video: Annotated[bool, typer.Option("--no-video", help="Do not write annotated.mp4 (faster).")] = False,
    allow_untrained: UntrainedOption = False,
) -> None:
    """Find out what happens in videos, who is where, and who does what."""
    from ..processing.analyze import analyze_videos
    from .console import AnalysisReport

    report = AnalysisReport()
    for outcome in analyze_videos(
        videos,
        output,
        model=model,
        task=task.value,
        fps=fps,
        threshold=threshold,
        size=size,
        device=device,
        video=not no_video,
        progress=True,
        allow_untrained=allow_untrained,
        backend=backend.value,
    ):
        report.add(outcome)
    report.print()
    if report.failed:
        raise typer.Exit(1)


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "The paper's encoder, pretrained:  [cyan]kinetrack init --backbone-weights microsoft/resnet-50 --labels walk,run "
    "-o start[/cyan]\n\n"
    "Another backbone:  [cyan]kinetrack init --preset nano --backbone convnextv2_atto --backbone-weights "
    "timm/convnextv2_atto.fcmae_ft_in1k -o start[/cyan]"
)
def init(
    backbone_weights: Annotated[
        str,
        typer.Option(
            "--backbone-weights",
            help="File (.safetensors, .pth), folder or Hub id, of Transformers, torchvision or timm.",
            metavar="PATH_OR_ID",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to make.", metavar="DIR")],
    preset: Annotated[str, typer.Option("--preset", help="base or nano.", metavar="PRESET")] = "base",
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Actions: names between commas, or a file with one a line.", metavar="NAMES"),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="timm's name of another backbone.", metavar="NAME")
    ] = None,
) -> None:
    """Make an untrained model whose backbone has pretrained weights: what a training starts from."""
    from .initialise import initialise, read_labels

    loaded = initialise(preset, backbone_weights, output, labels and read_labels(labels), backbone)
    print(f"{output}: backbone weights of {loaded.source} ({loaded.format}), everything else not trained.")
    print(f"Train it with: kinetrack train CONFIG.yaml model.checkpoint={output}")


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "Fine-tune to your own classes:  [cyan]kinetrack train model=kinetrack-nano data=my_clips output=runs/my[/cyan]\n\n"
    "Only the head, or with LoRA:  [cyan]kinetrack train model=kinetrack-nano data=my_clips model.finetune=head[/cyan]"
    "\n\n"
    "Train, or go on where the last run stopped:  [cyan]kinetrack train hub_scripts/configs/nano.yaml "
    "data.root=data output=runs/nano[/cyan]\n\n"
    "Change any setting:  [cyan]kinetrack train nano.yaml steps=500 data.actions.batch_size=2[/cyan]\n\n"
    "A text decoder on your own sentences:  [cyan]kinetrack train model=kinetrack-nano captions=pairs.csv "
    "output=runs/captions[/cyan]\n\n"
    "Many processes:  [cyan]accelerate launch -m kinetrack.hub_scripts.cli train nano.yaml[/cyan]"
)
def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            help="YAML file with settings, or model=NAME to fine-tune; then settings that differ, dots for nesting.",
            metavar="[CONFIG.yaml] [KEY=VALUE ...]",
        ),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming.")] = False,
) -> None:
    r"""Train on tracking sequences, on labelled clips, or on both jointly; fine-tune a model to your own classes.

    data=PATH may be MOTChallenge sequences, videos in class folders, UCF-101, HMDB-51, a CSV file, or a data set of the
    Hugging Face Hub; kinetrack data check PATH says what it makes of them.

    Needs  pip install -e '.\[train]'  in KineTrack's folder.

    The trained model is written to OUTPUT/model, the best one so far to OUTPUT/best, ready for  kinetrack analyze
    --model OUTPUT/model.

    A training that was stopped goes on from its last checkpoint, and ends as if nothing had stopped it. One of captions
    does so too: videos that were watched are read from the cache, the text decoder goes on from OUTPUT/captions.pt.
    """
    from .train import train as run_training
    from .train_config import load_train_config, split_arguments

    config, settings = split_arguments(arguments or [])
    print(f"Trained model: {run_training(load_train_config(config, settings), resume=not fresh)}")


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "Both tasks, the held-out data:  [cyan]kinetrack evaluate runs/nano/model --data data --split val[/cyan]\n\n"
    "Only tracking, report into a folder:  [cyan]kinetrack evaluate kinetrack-nano --data data/mot/val "
    "--task tracking -o report[/cyan]"
)
def evaluate(
    model: ModelArgument,
    data: Annotated[
        Path, typer.Option("--data", help="Folder with MOT sequences, folders of clips by class, or both.")
    ],
    task: TaskOption = Task.both,
    split: Annotated[
        Split | None,
        typer.Option(
            "--split",
            help="Only held-out items: val for figures to report, dev for choosing settings; test: the test part of "
            "UCF-101, HMDB-51, a CSV file or class folders.",
        ),
    ] = None,
    fold: Annotated[int, typer.Option("--fold", help="Official split of UCF-101 or HMDB-51, with --split test.")] = 1,
    half: Annotated[
        Half | None,
        typer.Option(
            "--half", help="Only the first (train) or second (val) half of every sequence, as MOT17 is usually split."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for evaluation.json, evaluation.md, figures and the tracks."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out two actors, other frame rates, action detection and labels.")
    ] = False,
    ablation: Annotated[
        list[Ablation] | None,
        typer.Option(
            "--ablation",
            help="Score once more with memory (reset) or attention (uniform) switched off; may be repeated.",
        ),
    ] = None,
    tracked_actors: Annotated[
        bool,
        typer.Option(
            "--tracked-actors", help="Score two actors also by the boxes of the tracker, not only by the true ones."
        ),
    ] = False,
    threshold: ThresholdOption = None,
    size: SizeOption = None,
    device: DeviceOption = None,
    backend: BackendOption = Backend.auto,
    allow_untrained: UntrainedOption = False,
) -> None:
    r"""Score a model: HOTA, MOTA, IDF1 by TrackEval; actions of clips, and of people where they have boxes.

    Clips: top-1, top-5, by class, calibration; whether labels hold at 10, 15 and 30 frames a second.

    People: top-1 on their own boxes, two actors side by side, frame-mAP and video-mAP at 0.5.

    Needs  pip install -e '.\[train]'  in KineTrack's folder.
    """
    from .evaluate import evaluate as run_evaluation
    from .metrics.evaluation_report import evaluation_markdown

    report = run_evaluation(
        model,
        data,
        task.value,
        output,
        split=split and split.value,
        half=half and half.value,
        fold=fold,
        detailed=not quick,
        ablations=tuple(kind.value for kind in ablation or ()),
        tracked_actors=tracked_actors,
        threshold=threshold,
        size=size,
        device=device,
        backend=backend.value,
        allow_untrained=allow_untrained,
        progress=True,
    )
    print(evaluation_markdown(report))


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]kinetrack calibrate runs/nano/model --data data[/cyan]")
def calibrate(
    model: TrainedModelArgument,
    data: Annotated[Path, typer.Option("--data", help="Root of the data, with mot/ and actions/.")],
    precision: Annotated[
        float, typer.Option("--precision", help="Share of right actions wanted among those not called uncertain.")
    ] = 0.85,
    task: Annotated[Task, typer.Option("--task", help="What to choose for; all else stays as it is.")] = Task.both,
) -> None:
    r"""Choose the temperature and the thresholds of a trained model on the held-out dev list.

    Needs  pip install -e '.\[train]'  in KineTrack's folder.
    """
    import json

    from .calibrate import calibrate as run_calibration

    print(json.dumps(run_calibration(model, data, precision, task.value), indent=2))


@app.command(epilog="[bold]Example[/bold]\n\n[cyan]kinetrack tune runs/nano/model --data data[/cyan]")
def tune(
    model: TrainedModelArgument,
    data: Annotated[Path, typer.Option("--data", help="Root of the data, with mot/.")],
    trials: Annotated[int, typer.Option("--trials", help="How many settings to try.")] = 150,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the search.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave config.json as it is.")] = False,
) -> None:
    r"""Choose the tracker's settings for a trained model on the held-out dev list; its weights stay as they are.

    The model runs once; its detections are kept in ~/.cache/kinetrack. The best settings go into config.json, where
    every session picks them up.

    Needs  pip install -e '.\[train]'  in KineTrack's folder.
    """
    import json

    from .tune import tune as run_search

    print(json.dumps(run_search(model, data, trials, seed, write=not dry_run), indent=2))


@app.command(
    epilog="[bold]Examples[/bold]\n\n"
    "Everything, report into a folder:  [cyan]kinetrack benchmark -o kinetrack-benchmark[/cyan]\n\n"
    "Only speed, on two threads:  [cyan]kinetrack benchmark --part speed --threads 2[/cyan]"
)
def benchmark(
    model: ModelOption = "kinetrack-nano",
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="speed, backends, parts, comparisons, trackers, memory, recurrence or association; may be repeated. "
            "\\[default: all]",
        ),
    ] = None,
    backend: Annotated[
        list[Backend] | None,
        typer.Option("--backend", help="Runs the model; may be repeated. \\[default: those installed]"),
    ] = None,
    exported: Annotated[
        list[Path] | None,
        typer.Option("--exported", help="Folder from `kinetrack export` to time beside the model; may be repeated."),
    ] = None,
    rival: Annotated[
        list[str] | None, typer.Option("--rival", help="Model to compare with; may be repeated. \\[default: all]")
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option("--dtype", help="float32, bfloat16 or float16, for parts; may be repeated.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Runs of each video in the speed part.")] = 3,
    seconds: Annotated[float, typer.Option("--seconds", help="Time for each comparison.")] = 10.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for benchmark.json, .md and .png.")
    ] = None,
    mot_data: Annotated[
        Path | None, typer.Option("--mot-data", help="Folder with train/ and val/ sequences, to score associations.")
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, …")] = "cpu",
    allow_untrained: UntrainedOption = False,
) -> None:
    """Measure speed, its parts, memory, the recurrence, the association and what others use, on this machine."""
    from .benchmark import PARTS, run_benchmark
    from .benchmark_report import format_report

    report = run_benchmark(
        model=model,
        parts=part or PARTS,
        repeats=repeats,
        output=output,
        mot_data=mot_data,
        threads=threads,
        device=device,
        allow_untrained=allow_untrained,
        backends=[choice.value for choice in backend] if backend else None,
        rivals=rival or None,
        dtypes=dtype or ("float32",),
        seconds=seconds,
        exported=exported or (),
    )
    print(format_report(report))


add_demo_commands(app)
add_export_command(app)
add_stream_command(app)
add_hub_commands(app)
add_data_commands(app)
add_experiment_command(app)
add_caption_command(app)


def main() -> None:
    """Entry point: bad input ends with one line and exit code 1, an interruption with 130; neither with a traceback.

    Set KINETRACK_DEBUG=1 to see where an error came from.
    """
    from .console import is_bad_input, one_line, prepare_console

    prepare_console()
    try:
        app()
    except SystemExit as end:
        if end.code == 130:
            print("Interrupted. No unfinished file was left behind.", file=sys.stderr)
        raise
    except Exception as error:
        if not is_bad_input(error) or os.environ.get("KINETRACK_DEBUG"):
            raise
        print(f"Error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
