"""What the command line shows: errors as one line, and the table at the end of `kinetrack analyze`."""

import os
import signal
import sys
import warnings

# Which extra brings a package that not everybody installs.
_EXTRAS = {
    **dict.fromkeys(("datasets", "evaluate", "optuna", "yaml", "tensorboard", "trackeval"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime", "openvino", "nncf"), "export"),
    **dict.fromkeys(("gradio", "httpcore", "starlette", "websockets"), "demo"),
    "trackers": "dev",
}


_FORMAT = warnings.formatwarning

# What a person can put right. Two libraries have errors of their own for it.
_BAD_INPUT = (OSError, ValueError, ImportError, RuntimeError, MemoryError, ArithmeticError)
_BAD_INPUT_NAMES = {"StrictDataclassError", "SafetensorError"}


def is_bad_input(error: BaseException) -> bool:
    """Whether an error is about what was given, not a mistake in this package, which keeps its traceback."""
    return isinstance(error, _BAD_INPUT) or any(kind.__name__ in _BAD_INPUT_NAMES for kind in type(error).__mro__)


def prepare_console() -> None:
    """Makes `kill` end a run as cleanly as Ctrl-C, and other libraries' loading bars stay away."""
    if sys.argv[1:2] not in (["push"], ["push-space"]):  # an upload shows how far it is
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # OpenMP threads that spin for ever while they wait make everything many times slower as soon as another program
    # wants the same cores; threads that sleep at once cost half the speed of an idle machine. A short spin has neither.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    warnings.formatwarning = _plain_warning


def _plain_warning(message, category, filename, lineno, line=None) -> str:
    """What to tell of a warning: where in the code it was raised helps nobody who runs a command."""
    return f"Warning: {message}\n" if category is UserWarning else _FORMAT(message, category, filename, lineno, line)


def one_line(error: BaseException) -> str:
    """The message of an error on one line, with what to install where a package is missing."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if package in _EXTRAS:
            extra = _EXTRAS[package]
            return f"This needs the package {package}. In KineTrack's folder: pip install -e '.[{extra}]'"
        return f"This needs the package {package}, which is not installed. Install it with: pip install {package}"
    if isinstance(error, MemoryError):
        return "There is not enough memory. Try a smaller --size."
    return text


class AnalysisReport:
    """Collects how every video went, reports failures at once, and prints a table at the end."""

    def __init__(self):
        self.outcomes = []

    @property
    def failed(self) -> int:
        """Videos that could not be analysed."""
        return sum(outcome.error is not None for outcome in self.outcomes)

    def add(self, outcome) -> None:
        """Takes the next `Outcome`."""
        self.outcomes.append(outcome)
        if outcome.error is not None:
            print(f"Error: {outcome.source}: {one_line(outcome.error)}", file=sys.stderr, flush=True)

    def print(self) -> None:
        """Prints one row a video, and where its files are."""
        done = [outcome for outcome in self.outcomes if outcome.analysis is not None]
        if done:
            from rich import box
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text

            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            table.add_column("video", overflow="fold")
            for heading in ("length", "frames", "frames/s", "tracks"):
                table.add_column(heading, justify="right", no_wrap=True)
            table.add_column("what happens", overflow="fold")
            for outcome in done:
                table.add_row(*(Text(cell) for cell in _row(outcome.analysis)))
            console = Console()
            console.print(table)
            print("Results:")
            for outcome in done:
                names = sorted(path.name for path in outcome.folder.iterdir() if not path.name.startswith("."))
                print(f"  {outcome.folder}{os.sep}  ({', '.join(names)})")
        if self.failed and len(self.outcomes) > 1:
            print(f"{self.failed} of {len(self.outcomes)} videos could not be analysed.", file=sys.stderr)


def _row(analysis) -> list[str]:
    task = analysis.settings["task"]
    action = "–"
    if analysis.action is not None:
        name, probability = analysis.actions[0]
        action = f"{name} {probability:.0%}" if analysis.action == name else f"uncertain (likeliest: {name})"
    return [
        analysis.source["name"],
        f"{analysis.duration:.1f} s",
        str(len(analysis.times)),
        f"{analysis.performance['frames_per_second']:.1f}",
        "–" if task == "actions" else str(len(analysis.tracks)),
        action,
    ]
