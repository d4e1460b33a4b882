"""The model a training starts from, the pixels it wants, and what of its backbone stays as it is."""

import copy
import logging
import re
from collections.abc import Sequence

import torch
from torch import nn
from transformers import AutoVideoProcessor

from ..configuration.configuration_kinetrack import KineTrackConfig
from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ..processing.loading import SHIPPED_MODELS, shipped_models
from ..processing.video_processing_kinetrack import KineTrackVideoProcessor
from .pretrained import load_backbone_weights
from .train_config import TrainConfig

logger = logging.getLogger(__name__)

_CLASSES = ("id2label", "label_groups", "object_classes")
_HEADS = {"action_head": "actions", "tracking_head": "tracking"}
_HEAD_SWITCHES = {"actions": "classification_head", "tracking": "tracking_head"}
# Stages among the top modules of timm's feature extractors; what comes before the first is the stem.
_STAGE = re.compile(r"(layer|layers_|stages?_|s)\d+")


def build_model(
    settings: TrainConfig, data_labels: dict, tasks: Sequence[str] = ("tracking", "actions")
) -> tuple[KineTrackForVideoAnalysis, KineTrackVideoProcessor]:
    """The model to train, a checkpoint or a preset with pretrained weights in its backbone, and its video processor.

    A checkpoint whose classes differ from those of the data gets new ones; classes of the same name keep their weights.

    Args:
        settings: the run's settings.
        data_labels: `id2label`, `label_groups` and `object_classes` of the data, as far as they say them.
        tasks: what there are data for; a model from a preset has heads for nothing else.
    """
    given = settings.model
    normalisation = {}
    if given.checkpoint is not None:
        model = load_checkpoint_model(given.checkpoint, data_labels, given.config)
        processor = AutoVideoProcessor.from_pretrained(locate_checkpoint(given.checkpoint))
        normalisation = {"image_mean": list(processor.image_mean), "image_std": list(processor.image_std)}
    else:
        heads = {head: task in tasks for task, head in _HEAD_SWITCHES.items()}
        config = KineTrackConfig.from_preset(given.preset, **(heads | data_labels | given.config))
        model = KineTrackForVideoAnalysis(config)
        if given.backbone_weights is not None:
            loaded = load_backbone_weights(model, given.backbone_weights)
            normalisation = {"image_mean": list(loaded.image_mean), "image_std": list(loaded.image_std)}
    rates = {"frame_rate": model.config.frame_rate, "num_frames": model.config.num_frames}
    return model, KineTrackVideoProcessor(**rates, **normalisation)


def locate_checkpoint(name: str) -> str:
    """The folder of a model that is installed with the package, or the folder or Hub id as it was given."""
    return str(SHIPPED_MODELS / name) if name in shipped_models() else name


def load_checkpoint_model(name: str, data_labels: dict, overrides: dict) -> KineTrackForVideoAnalysis:
    """A model to go on from, with the classes of the data.

    Args:
        name: of an installed model, a folder or a Hub id.
        data_labels: see `build_model`.
        overrides: of the configuration; they count more than the data.
    """
    folder = locate_checkpoint(name)
    old = KineTrackConfig.from_pretrained(folder)
    if not old.trained:
        overrides = data_labels | overrides | {"ignore_mismatched_sizes": True}
        return KineTrackForVideoAnalysis.from_pretrained(folder, **overrides)
    classes = {key: value for key, value in data_labels.items() if key in _CLASSES}
    wanted = {key: value for key, value in classes.items() if _names(getattr(old, key)) != _names(value)}
    if not wanted:
        return KineTrackForVideoAnalysis.from_pretrained(folder, **overrides)
    model = KineTrackForVideoAnalysis.from_pretrained(folder, **(wanted | overrides), ignore_mismatched_sizes=True)
    if "id2label" in wanted:
        # What was chosen and calibrated for the old classes says nothing about the new ones.
        model.config.action_temperature, model.config.action_threshold = 1.0, 0.0
    original = KineTrackForVideoAnalysis.from_pretrained(folder)
    layers = [("id2label", "action_head.classifier"), ("object_classes", "tracking_head.heatmap")]
    if model.config.keypoints:
        layers.append(("id2label", "action_head.movement_classifier"))
    for key, layer in layers:
        if key in wanted:
            names, known = _names(wanted[key]), _names(getattr(old, key))
            kept = carry_classes(original.get_submodule(layer), known, model.get_submodule(layer), names)
            logger.info("%s: %d classes, %d of them as in %s.", layer, len(names), kept, name)
    return model


def _names(labels) -> list | dict:
    """Class names in order, however they are kept."""
    return [labels[number] for number in sorted(labels)] if labels and 0 in labels else labels or []


@torch.no_grad()
def carry_classes(source: nn.Module, known: list[str], target: nn.Module, names: list[str]) -> int:
    """Gives each class of a new classifier the weights of the old class of its name, or new ones.

    Args:
        source: a linear layer or a 1x1 convolution with a row a class.
        known: the names of its rows.
        target: its replacement.
        names: the names of its rows.

    Returns:
        How many classes were known.
    """
    bias = float(source.bias.mean())  # of detectors: a prior that new classes need as well
    for row, name in enumerate(names):
        if name in known:
            target.weight[row], target.bias[row] = source.weight[known.index(name)], source.bias[known.index(name)]
        else:
            nn.init.normal_(target.weight[row], std=float(source.weight.std()))
            target.bias[row] = bias
    return len(set(names) & set(known))


def choose_learned(model: KineTrackForVideoAnalysis, settings: TrainConfig, tasks: Sequence[str]) -> nn.Module:
    """Leaves a gradient to what shall be learned: all but the frozen stages, the heads, or heads and LoRA.

    Args:
        model: the whole model.
        settings: of the run.
        tasks: what there are data for; other heads stay as they are.

    Returns:
        The model, with adapters in it if `lora` was asked for.

    Raises:
        ValueError: an unknown `model.finetune`.
        ImportError: LoRA without `peft`.
    """
    mode = settings.model.finetune
    if mode not in ("full", "head", "lora"):
        raise ValueError(f"model.finetune must be full, head or lora, got {mode!r}.")
    heads = [head for head in _HEADS if getattr(model, head) is not None]
    taught = [head for head in heads if _HEADS[head] in tasks]
    if mode == "full":
        freeze_stages(model, settings.frozen_stages)
        for head in set(heads) - set(taught):
            getattr(model, head).requires_grad_(False)  # or its weights would decay
        if settings.model.checkpoint and len(taught) < len(heads):
            logger.warning(
                "There are no data for %s: it is not taught, while what it builds on changes. "
                "model.finetune=head leaves it as it is.",
                ", ".join(head for head in heads if head not in taught),
            )
        return model
    model.requires_grad_(False)
    if mode == "lora":
        return add_adapters(model, settings.model.lora_rank, taught)
    for head in taught:
        getattr(model, head).requires_grad_(True)
    return model


def add_adapters(model: KineTrackForVideoAnalysis, rank: int, heads: Sequence[str]) -> nn.Module:
    """Low-rank updates of every linear layer and every undivided convolution but the heads, which learn as a whole.

    Args:
        model: the whole model.
        rank: of the updates.
        heads: names of the heads that learn.

    Returns:
        A `peft.PeftModel`; `plain_model` gives the model back.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("model.finetune=lora needs peft: pip install peft, or kinetrack[lora].") from error
    targets = [
        name
        for name, module in model.kinetrack.named_modules(prefix="kinetrack")
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
    ]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, modules_to_save=list(heads))
    return get_peft_model(model, config)


def plain_model(model: nn.Module) -> KineTrackForVideoAnalysis:
    """The KineTrack model itself; of one with adapters a copy into which they are merged."""
    if hasattr(model, "merge_and_unload"):
        return copy.deepcopy(model).merge_and_unload()
    return model


def freeze_stages(model: nn.Module, count: int) -> None:
    """Stops the gradient of the backbone's stem and of its first `count - 1` stages.

    Raises:
        ValueError: a backbone without stages, or whose stages are not known.
    """
    if not count:
        return
    backbone = model.kinetrack.encoder.backbone
    inner = getattr(backbone, "_backbone", backbone)
    stem = getattr(inner, "embedder", getattr(inner, "embeddings", None))
    names = [name for name, _ in inner.named_children()]
    first = next((place for place, name in enumerate(names) if _STAGE.fullmatch(name)), None)
    if hasattr(inner, "conv_stem") and hasattr(inner, "blocks"):  # timm's EfficientNets and MobileNets
        frozen = [inner.conv_stem, inner.bn1, *inner.blocks[: count - 1]]
    elif stem is not None and hasattr(backbone.config, "depths"):  # Transformers' hierarchical networks
        stages = getattr(inner.encoder, "stages", getattr(inner.encoder, "layers", None))
        frozen = [stem, *stages[: count - 1]]
    elif first is not None:  # timm's other extractors
        starts = [place for place, name in enumerate(names) if _STAGE.fullmatch(name)] + [len(names)]
        frozen = [inner.get_submodule(name) for name in names[: starts[min(count - 1, len(starts) - 1)]]]
    else:
        raise ValueError(f"`frozen_stages` is not known for a {type(inner).__name__} backbone; set it to 0.")
    for part in frozen:
        part.requires_grad_(False)
