"""The model a training starts from, the pixels it wants, and what of its backbone stays as it is."""

import re

from torch import nn
from transformers import AutoVideoProcessor

from ..configuration.configuration_kinetrack import KineTrackConfig
from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ..processing.video_processing_kinetrack import KineTrackVideoProcessor
from .pretrained import load_backbone_weights
from .train_config import TrainConfig

# Stages among the top modules of timm's feature extractors; what comes before the first is the stem.
_STAGE = re.compile(r"(layer|layers_|stages?_|s)\d+")


def build_model(settings: TrainConfig, data_labels: dict) -> tuple[KineTrackForVideoAnalysis, KineTrackVideoProcessor]:
    """The model to train, a checkpoint or a preset with pretrained weights in its backbone, and its video processor.

    Args:
        settings: the run's settings.
        data_labels: `id2label` and `label_groups` of the data; an untrained checkpoint's labels give way to them.
    """
    given = settings.model
    normalisation = {}
    if given.checkpoint is not None:
        overrides = dict(given.config)
        if not KineTrackConfig.from_pretrained(given.checkpoint).trained:
            overrides = data_labels | overrides | {"ignore_mismatched_sizes": True}
        model = KineTrackForVideoAnalysis.from_pretrained(given.checkpoint, **overrides)
        processor = AutoVideoProcessor.from_pretrained(given.checkpoint)
        normalisation = {"image_mean": list(processor.image_mean), "image_std": list(processor.image_std)}
    else:
        model = KineTrackForVideoAnalysis(KineTrackConfig.from_preset(given.preset, **(data_labels | given.config)))
        if given.backbone_weights is not None:
            loaded = load_backbone_weights(model, given.backbone_weights)
            normalisation = {"image_mean": list(loaded.image_mean), "image_std": list(loaded.image_std)}
    rates = {"frame_rate": model.config.frame_rate, "num_frames": model.config.num_frames}
    return model, KineTrackVideoProcessor(**rates, **normalisation)


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
