"""Names of a backbone's weights in the libraries that publish them, and how they correspond."""

import re
from collections.abc import Iterable

# Stem and classifier of a ResNet: torchvision and timm on the left, Transformers on the right.
_RESNET_ENDS = {
    "conv1.": "embedder.embedder.convolution.",
    "bn1.": "embedder.embedder.normalization.",
    "fc.": "classifier.1.",
}
_CLASSIC_BLOCK = re.compile(
    r"layer(?P<stage>\d+)\.(?P<block>\d+)\.(?P<place>conv\d|bn\d|downsample\.[01])\.(?P<leaf>\w+)"
)
_TRANSFORMERS_BLOCK = re.compile(
    r"encoder\.stages\.(?P<stage>\d+)\.layers\.(?P<block>\d+)\."
    r"(?P<place>shortcut|layer\.\d)\.(?P<part>convolution|normalization)\.(?P<leaf>\w+)"
)


def is_classic_resnet(names: Iterable[str]) -> bool:
    """Whether these are the names that torchvision and timm give a ResNet's weights."""
    names = set(names)
    return "conv1.weight" in names and any(name.startswith("layer1.0.conv1.") for name in names)


def is_transformers_resnet(names: Iterable[str]) -> bool:
    """Whether these are the names that Transformers gives a ResNet's weights (without the leading `resnet.`)."""
    return "embedder.embedder.convolution.weight" in set(names)


def resnet_to_transformers(name: str) -> str:
    """`layer1.0.bn2.bias` to `encoder.stages.0.layers.0.layer.1.normalization.bias`; unknown names stay as they are."""
    if match := _CLASSIC_BLOCK.fullmatch(name):
        kind, number = match["place"][:-1], int(match["place"][-1])
        if kind == "downsample.":
            place, part = "shortcut", ("convolution", "normalization")[number]
        else:
            place, part = f"layer.{number - 1}", "convolution" if kind == "conv" else "normalization"
        return f"encoder.stages.{int(match['stage']) - 1}.layers.{match['block']}.{place}.{part}.{match['leaf']}"
    for classic, ours in _RESNET_ENDS.items():
        if name.startswith(classic):
            return ours + name.removeprefix(classic)
    return name


def resnet_from_transformers(name: str) -> str:
    """The inverse of `resnet_to_transformers`."""
    if match := _TRANSFORMERS_BLOCK.fullmatch(name):
        is_convolution = match["part"] == "convolution"
        if match["place"] == "shortcut":
            place = f"downsample.{0 if is_convolution else 1}"
        else:
            place = f"{'conv' if is_convolution else 'bn'}{int(match['place'][-1]) + 1}"
        return f"layer{int(match['stage']) + 1}.{match['block']}.{place}.{match['leaf']}"
    for classic, ours in _RESNET_ENDS.items():
        if name.startswith(ours):
            return classic + name.removeprefix(ours)
    return name


def flattened(name: str) -> str:
    """A name that timm's whole network and its feature extractor share.

    The extractor takes modules out of their containers (`stages.0.blocks` becomes `stages_0.blocks`), or puts the whole
    network under `model.`.
    """
    return name.removeprefix("model.").replace(".", "_")
