r"""Trains a small model once for every fold of the labelled clips, and says how it does on clips that it did not see.

    python -m kinetrack.hub_scripts.cross_validate hub_scripts/configs/nano.yaml --data ROOT --output runs/folds \
        model.backbone_weights=PATH

The folds are made of whole films (`hub_scripts/data/splits.py`); the first is the committed `val` list. For each of
them everything is learned anew, by `kinetrack train` and then `train_statistics` with a `dev` list from the other
folds, but for poses, which need keypoints of all clips. What is finished is kept: begun again, the command goes on
where it stopped, also within a training; several may share the work with `--only`.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..configuration.configuration_kinetrack import KineTrackConfig
from .atomic_files import write_json_atomically
from .data.splits import read_split, write_splits
from .evaluate import evaluate
from .evaluation_items import LabelledClip
from .train import train
from .train_checkpoint import write_model
from .train_config import TrainConfig, load_train_config
from .train_statistics import Settings, train_statistics

_SCORES = ("top1", "top5", "mean_class_accuracy")


def score_fold(model: Path, data: Path, splits: Path) -> dict[str, float]:
    """What `kinetrack evaluate` says of the clips of actions that a fold holds out.

    Args:
        model: folder of a trained model.
        data: root of the data.
        splits: folder of the fold's `val.txt`.

    Returns:
        Top-1, top-5 and the mean over classes of whole clips, top-1 of the actors in their own boxes ("people_top1"),
        all in percent, and how many clips they are of.
    """
    paths = [data / name for name in read_split("val", splits) if "/jhmdb/" in name]
    found = evaluate(str(model), [LabelledClip(path, path.parent.name) for path in paths], "actions", progress=True)
    scores = {name: found["actions"]["actions"][name] for name in _SCORES}
    return scores | {"people_top1": found["people"]["top1"], "clips": len(paths)}


def run_fold(folder: Path, number: int, folds: int, settings: TrainConfig, statistics: Settings) -> dict[str, float]:
    """Trains and scores one fold; what is finished already stays as it is.

    Args:
        folder: for everything of this fold.
        number: which one, from 1.
        folds: how many there are.
        settings: of the training; `data.root` is where the clips are.
        statistics: settings of what follows it.

    Returns:
        `score_fold`, which is kept in `scores.json` as well.
    """
    scores, splits, joint, whole = (folder / name for name in ("scores.json", "splits", "model", "statistics"))
    data = settings.data.root
    if not scores.is_file():
        splits.mkdir(parents=True, exist_ok=True)
        write_splits(data, splits, number, folds)
        if not _is_trained(joint):
            train(replace(settings, output=str(folder), data=replace(settings.data, splits=str(splits))))
        if not whole.is_dir():
            model, processor, _ = train_statistics(str(joint), data, statistics, splits)
            write_model(whole, model, processor)
        write_json_atomically(scores, score_fold(whole, Path(data), splits))
    return json.loads(scores.read_text())


def _is_trained(folder: Path) -> bool:
    return (folder / "config.json").is_file() and KineTrackConfig.from_pretrained(folder).trained


def summarise(scores: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Mean over the folds, and the standard deviation of a fold, of every score."""
    names = [name for name in scores[0] if name != "clips"]
    values = {name: np.array([fold[name] for fold in scores]) for name in names}
    return {name: {"mean": float(of.mean()), "deviation": float(of.std(ddof=1))} for name, of in values.items()}


def main() -> None:
    """Runs the folds asked for, and writes `folds.json` and its figures when all of them are there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file for kinetrack train")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings that go before those of the file")
    parser.add_argument("--data", required=True, type=Path, help="data root that holds mot/ and actions/")
    parser.add_argument("--output", required=True, type=Path, help="folder for the folds")
    parser.add_argument("--folds", type=int, default=5, help="how many there are, at least 3; default: 5")
    parser.add_argument("--only", type=int, action="append", help="run this fold alone; may be repeated")
    parser.add_argument("--compile", action="store_true", help="of train_statistics")
    arguments = parser.parse_intermixed_args()
    if arguments.folds < 3 or not all(1 <= number <= arguments.folds for number in arguments.only or ()):
        parser.error(f"Give at least 3 --folds and an --only among them; got {arguments.folds} and {arguments.only}.")
    everything = range(1, arguments.folds + 1)
    place = {number: arguments.output / f"fold-{number}" for number in everything}
    settings = load_train_config(arguments.config, [*arguments.settings, f"data.root={arguments.data}"])
    for number in arguments.only or everything:
        found = run_fold(place[number], number, arguments.folds, settings, Settings(compile=arguments.compile))
        print(f"fold {number}: {found}")
    finished = [place[number] / "scores.json" for number in everything]
    if not all(path.is_file() for path in finished):
        print(f"{sum(path.is_file() for path in finished)} of {arguments.folds} folds are finished.")
        return
    scores = [json.loads(path.read_text()) for path in finished]
    summary = summarise(scores)
    write_json_atomically(arguments.output / "folds.json", {"folds": scores, **summary})
    for name, of in summary.items():
        print(f"{name}: {of['mean']:.1f} ± {of['deviation']:.1f}")


if __name__ == "__main__":
    main()
