"""Makes the starting point of a training: a preset, untrained, with a pretrained backbone (`kinetrack init`)."""

import os
import shutil
from pathlib import Path

import torch

from ..configuration.configuration_kinetrack import KineTrackConfig
from ..modeling.backbone_kinetrack import indices_of_strides
from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ..processing.video_processing_kinetrack import KineTrackVideoProcessor
from .pretrained import PretrainedBackbone, load_backbone_weights

_CARD = """---
library_name: transformers
tags:
- kinetrack
- untrained
---

# Untrained KineTrack model

**This model has not been trained: only its backbone has.** Everything after the backbone has random weights, so its
actions, boxes and identities are noise, and `kinetrack analyze` refuses it. It is what `kinetrack train` starts from.

| | |
|---|---|
| preset | `{preset}` |
| backbone | {backbone} |
| backbone weights | {source} ({tensors} tensors, names of {format}); their licence and limits apply |
| image mean, standard deviation | {mean}, {std} |
| actions | {labels} |

Train it with `kinetrack train CONFIG.yaml model.checkpoint={folder}`.
"""


def initialise(
    preset: str,
    backbone_weights: str | os.PathLike,
    output: str | os.PathLike,
    labels: list[str] | None = None,
    backbone: str | None = None,
    seed: int = 0,
) -> PretrainedBackbone:
    """Writes an untrained model whose backbone has pretrained weights: `config.json`, safetensors, processor and card.

    The folder appears in one piece, with `trained` false in its configuration.

    Args:
        preset: `base` or `nano`.
        backbone_weights: see `load_backbone_weights`.
        output: folder that does not exist yet, or is empty.
        labels: names of the actions, at least two; None leaves two without a name.
        backbone: timm's name of another backbone than the preset's.
        seed: of the random weights behind the backbone.

    Returns:
        What was loaded; the processor normalises with its mean and standard deviation.

    Raises:
        FileNotFoundError: no such weights.
        FileExistsError: something is in `output`.
        ValueError: no such preset or backbone, weights of another network, or labels that are not distinct names.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(f"{output} is not empty. Nothing is overwritten: give another folder, or remove it.")
    overrides = {}
    if labels is not None:
        if len(labels) < 2 or len(set(labels)) != len(labels) or not all(labels):
            raise ValueError(f"The labels must be two or more distinct names, got {labels}.")
        overrides["id2label"] = dict(enumerate(labels))
    if backbone is not None:
        overrides["backbone_config"] = timm_backbone_config(backbone)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = KineTrackForVideoAnalysis(KineTrackConfig.from_preset(preset, **overrides)).eval()
    loaded = load_backbone_weights(model, backbone_weights)
    with torch.no_grad():  # a backbone that cannot take such frames says so now and not in training
        model.kinetrack.encoder(torch.zeros(1, 3, 64, 96))
    processor = KineTrackVideoProcessor(
        image_mean=list(loaded.image_mean),
        image_std=list(loaded.image_std),
        frame_rate=model.config.frame_rate,
        num_frames=model.config.num_frames,
    )
    settings = model.config.backbone_config
    card = _CARD.format(
        preset=preset.removeprefix("kinetrack-"),
        backbone=f"{settings.backbone} (timm)" if settings.model_type == "timm_backbone" else settings.model_type,
        source=f"`{loaded.source}`",
        tensors=loaded.num_tensors,
        format=loaded.format,
        mean=list(loaded.image_mean),
        std=list(loaded.image_std),
        labels=", ".join(labels) if labels else "not named yet",
        folder=output.name,
    )
    staging = output.with_name(output.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        (staging / "README.md").write_text(card, encoding="utf-8")
        os.replace(staging, output)  # also over an empty folder
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return loaded


def read_labels(text: str) -> list[str]:
    """Names of actions, from `walk,run` or from a file with one name a line."""
    path = Path(text)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else text.split(",")
    return [line.strip() for line in lines if line.strip()]


def timm_backbone_config(name: str) -> dict:
    """`backbone_config` of any of timm's networks, with the maps at strides 8, 16 and 32 chosen.

    Raises:
        ValueError: timm has no such network, or it has no such maps.
    """
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('.')[0].partition('_')[0]}*")[:5]
        raise ValueError(
            f"timm has no network {name!r}. {'Similar: ' + ', '.join(near) + '. ' if near else ''}"
            "`timm.list_models('*part*')` lists them."
        )
    with torch.device("meta"):
        try:
            levels = timm.create_model(name, features_only=True, pretrained=False).feature_info.info
        except (RuntimeError, AttributeError, TypeError, IndexError) as error:
            raise ValueError(f"timm's {name} gives no feature maps; choose another backbone.") from error
    strides = [level["reduction"] for level in levels]
    indices = indices_of_strides(strides)
    if indices is None:
        raise ValueError(
            f"timm's {name} gives maps at strides {', '.join(map(str, strides))}; strides 8, 16 and 32 are needed, or "
            "16 alone. Choose another backbone."
        )
    return {"model_type": "timm_backbone", "backbone": name, "out_indices": indices}
