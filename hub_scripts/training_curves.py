"""Draws a training's `log.jsonl`: losses by term, attention, and what the dev clips said.

    python -m kinetrack.hub_scripts.training_curves runs/nano/log.jsonl --output training.png

TensorBoard shows the same while it runs; this is one picture to put beside a model.
"""

import argparse
import json
from pathlib import Path

from .atomic_files import write_atomically
from .metrics.evaluation_figures import curves_figure

# Loss terms and figures by panel, as far as a log has them.
PANELS = {
    "loss: detection and identities": ("heatmap", "box", "identity", "keypoint"),
    "loss: actions and attention": ("action", "region", "attention", "group_fight"),
    "relative entropy of attention": ("alpha_entropy", "beta_entropy"),
    "dev clips: share that is right": ("dev_top1", "dev_region_top1", "dev_fight", "dev_ap50"),
}


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a log.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no log of a training, or has no line yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no log at {path}: `kinetrack train` writes it as OUTPUT/log.jsonl.")
    try:
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if records and all("step" in record for record in records):
            return records
    except (json.JSONDecodeError, TypeError):
        pass
    raise ValueError(f"{path} is no log of a training: expected lines of JSON with a step, at least one.")


def collect_curves(records: list[dict[str, float]]) -> dict[str, dict[str, tuple[list[float], list[float]]]]:
    """By panel and name the steps and values of what a log has."""
    curves: dict[str, dict] = {}
    for panel, names in PANELS.items():
        for name in names:
            points = [(record["step"], record[name]) for record in records if name in record]
            if points:
                curves.setdefault(panel, {})[name] = tuple(map(list, zip(*points, strict=True)))
    return curves


def main() -> None:
    """Draws the log that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="log.jsonl of a training")
    parser.add_argument("--output", type=Path, default=Path("training.png"), help="PNG file; default: training.png")
    arguments = parser.parse_args()
    try:
        curves = collect_curves(read_log(arguments.log))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    write_atomically(arguments.output, curves_figure(curves))
    print(arguments.output)


if __name__ == "__main__":
    main()
