"""Teaches a trained model to read region statistics.

    python -m kinetrack.hub_scripts.train_statistics runs/nano-poses --data ROOT --output runs/nano-statistics --compile

The statistics (`modeling/statistics_kinetrack.py`) are of features that are learned already, so reading them is one
linear layer with one best solution: ridge regression onto the classes. In the labelled clips people are large, and
nobody just passes by: what is learned of them alone calls small pedestrians something else, with conviction. So the
clips are also shown from afar, and so are the people who go somewhere in the training sequences of `mot/`, as people
who walk. All else stays as it was, but for how much its parts count: what makes the `dev` clips likeliest; `kinetrack
calibrate` follows.
"""

import os
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import Subset

from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ..processing.loading import load_model
from .clip_summaries import VARIED, choose_weights, plain_clips, summarise_clips
from .data.augmentation import ClipForm
from .data.clips import NO_LABEL, ActionClips, MotClips
from .data.sources import ACTION_SET, action_names, action_sources, mot_sources
from .data.splits import SPLITS_DIR
from .teaching_command import teach_from_command_line

_FAR = replace(VARIED, scale=(0.2, 0.6))
_WALKERS = replace(VARIED, scale=(0.5, 2.0), walkers=1.0)  # of sequences about three times as large as a clip
_WALKER_STRIDE = 8  # frames of a sequence for each person who walks


@dataclass
class Settings:
    """Of a run.

    Attributes:
        far_passes: versions from afar of every clip, beside the clip as it is.
        walker_passes: turns through the training sequences of people who walk.
        penalty: of the regression, on the mean of squared errors.
        seed: of the variation.
        compile: encode with `torch.compile`, which takes a while to begin and is about twice as fast.
    """

    far_passes: int = 2
    walker_passes: int = 1
    penalty: float = 2.0
    seed: int = 0
    compile: bool = False


def with_statistics(model: nn.Module) -> nn.Module:
    """The same model with region statistics, which do not count for anything yet.

    Raises:
        ValueError: it has them already.
    """
    if model.config.statistics_channels:
        raise ValueError("This model has region statistics already; start from the one it was made from.")
    config = deepcopy(model.config)
    config.statistics_channels = model.kinetrack.encoder.channels[2]
    new = KineTrackForVideoAnalysis(config).eval()
    kept = model.state_dict()
    classifier = new.action_head.movement_classifier
    weight = torch.zeros_like(classifier.weight.data)
    bias = torch.zeros_like(classifier.bias.data)
    if model.action_head.movement_classifier is not None:
        before = kept["action_head.movement_classifier.weight"]
        weight[:, : before.shape[1]] = before
        bias = kept["action_head.movement_classifier.bias"]
    new.load_state_dict(
        kept | {"action_head.movement_classifier.weight": weight, "action_head.movement_classifier.bias": bias}
    )
    return new


def fit_reader(statistics: np.ndarray, actions: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, S) and bias (C,) of the linear layer that reads classes off statistics.

    Args:
        statistics: (n, S).
        actions: (n,) classes, from 0 to C - 1.
        penalty: see `Settings`.

    Raises:
        ValueError: a class has no clip.
    """
    if missing := sorted(set(range(actions.max() + 1)) - set(actions.tolist())):
        raise ValueError(f"There is no training clip of the classes {missing}.")
    scaler = StandardScaler().fit(statistics)
    wanted = np.eye(actions.max() + 1)[actions]  # (n, C)
    reader = Ridge(penalty * len(actions)).fit(scaler.transform(statistics), wanted)
    weight = reader.coef_ / scaler.scale_
    return weight, reader.intercept_ - weight @ scaler.mean_


def train_statistics(
    checkpoint: str, data: str, settings: Settings, splits: str | os.PathLike = SPLITS_DIR
) -> tuple[nn.Module, object, dict]:
    """A model that reads region statistics, its processor, and what the dev clips said.

    Args:
        checkpoint: folder, name or Hub id of a trained model.
        data: root of the data.
        settings: of the run.
        splits: folder of `val.txt` and `dev.txt`.

    Raises:
        ValueError: the model has region statistics already, or a class has no clip.
    """
    old, processor = load_model(checkpoint, "cpu")
    model = with_statistics(old)
    if settings.compile:
        model.kinetrack.encoder.compile()
    sources = action_sources(data, "train", splits=splits, sets=(ACTION_SET,))
    sources = [clip for clip in sources if clip.actor is not None]
    size = model.config.window_statistics_size
    summary, actions = summarise_clips(model, plain_clips(sources, model.config.frame_rate), "as they are")
    rows = [(summary[..., -size:].flatten(0, 1), actions.repeat(2))]
    window = {"num_frames": model.config.attention_window}
    far, walkers = replace(_FAR, **window), replace(_WALKERS, **window)
    varied = [ActionClips(sources, far, seed=settings.seed + 1 + turn) for turn in range(settings.far_passes)]
    varied += [walking_clips(data, walkers, settings.seed + turn, splits) for turn in range(settings.walker_passes)]
    for turn, clips in enumerate(varied, 1):  # cut and scaled, so that only what is in the box stays comparable
        summary, actions = summarise_clips(model, clips, f"varied, {turn} of {len(varied)}")
        rows.append((summary[0, :, -size:], actions))
    weight, bias = fit_reader(*(np.concatenate(parts) for parts in zip(*rows, strict=True)), settings.penalty)
    dev = plain_clips(action_sources(data, "dev", splits=splits, sets=(ACTION_SET,)), model.config.frame_rate)
    return model, processor, weigh_parts(model, dev, torch.from_numpy(weight).float(), torch.from_numpy(bias).float())


def walking_clips(data: str, form: ClipForm, seed: int, splits: str | os.PathLike = SPLITS_DIR) -> Subset:
    """Clips of people who walk, labelled so.

    Args:
        data: root of the data, with `mot/`.
        form: of the clips.
        seed: of the variation.
        splits: folder of `val.txt` and `dev.txt`.

    Raises:
        ValueError: there are none, or nothing among the actions is called "walk".
    """
    names = action_names(data)
    if "walk" not in names:
        raise ValueError("No action is called 'walk', so nobody can be shown to walk: give --walker-passes 0.")
    walking = {"labels": names.index("walk")}
    clips, kept = None, []
    if sources := mot_sources(data, splits=splits):
        clips = MotClips(sources, form, anchor_stride=_WALKER_STRIDE, seed=seed, walking=walking)
        kept = [index for index in range(len(clips)) if clips[index]["labels"] != NO_LABEL]
    if not kept:
        raise ValueError(f"Nobody walks in the sequences of {data}: give --walker-passes 0.")
    return Subset(clips, kept)


def weigh_parts(model: nn.Module, clips: ActionClips, weight: torch.Tensor, bias: torch.Tensor) -> dict:
    """Puts the statistics' reader into the model, and all parts to the weights that make the dev clips likeliest.

    Args:
        model: from `with_statistics`, changed in place.
        clips: of the dev list.
        weight: (C, S) from `fit_reader`.
        bias: (C,) likewise.

    Returns:
        Top-1 of the dev clips and the factors, by part.
    """
    head, size = model.action_head, model.action_head.size
    summary, wanted = summarise_clips(model, clips, "dev")
    with torch.no_grad():
        parts = {"look": head(summary[..., :size])[0], "movement": head.classify_movement(summary)}
        parts["statistics"] = summary[..., -weight.shape[1] :] @ weight.T + bias
        stacked = torch.stack(list(parts.values()))
        factors = dict(zip(parts, choose_weights(stacked, wanted).tolist(), strict=True))
        for tensor in head.classifier.parameters():
            tensor.mul_(factors["look"])
        for tensor in head.movement_classifier.parameters():
            tensor.mul_(factors["movement"])
        head.movement_classifier.weight[:, -weight.shape[1] :] = factors["statistics"] * weight
        head.movement_classifier.bias.add_(factors["statistics"] * bias)
    parts["all"] = sum(factors[name] * logits for name, logits in parts.items())
    top1 = {name: (logits.argmax(-1) == wanted).float().mean(1).tolist() for name, logits in parts.items()}
    return {"dev_top1_in_box_and_frame": top1, "factors": factors}


def main() -> None:
    """Trains and saves."""
    teach_from_command_line(__doc__, Settings(), train_statistics, "statistics.json")


if __name__ == "__main__":
    main()
