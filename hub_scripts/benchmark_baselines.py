"""What people use or would write, for speed alone: random weights, a clip (B, T, 3, H, W) in, scores of a class out."""

from collections.abc import Callable

import torch
from torch import nn

_CLASSES = 400


class SharedResNet(nn.Module):
    """ResNet-50 on every frame and something on its pooled features: the paper's two baselines.

    Args:
        temporal: "mean", after temporal shifts in every block (TSM, arXiv 1811.08383), or "lstm".
    """

    def __init__(self, temporal: str):
        super().__init__()
        from torchvision.models import resnet50

        self.encoder = resnet50()
        self.encoder.fc = nn.Identity()
        self.temporal, self.length = temporal, 1
        self.lstm = nn.LSTM(2048, 512, batch_first=True) if temporal == "lstm" else None
        self.classifier = nn.Linear(512 if self.lstm is not None else 2048, _CLASSES)
        if temporal == "mean":
            for module in self.encoder.modules():
                if type(module).__name__ == "Bottleneck":
                    module.conv1.register_forward_pre_hook(lambda _, inputs: (self._shift(inputs[0]),))

    def _shift(self, frames: torch.Tensor) -> torch.Tensor:
        """An eighth of the channels comes from the next frame and an eighth from the last: (BT, C, H, W)."""
        clip = frames.unflatten(0, (-1, self.length))
        fold, shifted = clip.shape[2] // 8, torch.zeros_like(clip)
        shifted[:, :-1, :fold] = clip[:, 1:, :fold]
        shifted[:, 1:, fold : 2 * fold] = clip[:, :-1, fold : 2 * fold]
        shifted[:, :, 2 * fold :] = clip[:, :, 2 * fold :]
        return shifted.flatten(0, 1)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """(B, T, 3, H, W) -> (B, 400)."""
        self.length = clip.shape[1]
        features = self.encoder(clip.flatten(0, 1)).unflatten(0, clip.shape[:2])  # (B, T, 2048)
        pooled = features.mean(1) if self.lstm is None else self.lstm(features)[0][:, -1]
        return self.classifier(pooled)


class InflatedBottleneck(nn.Module):
    """A ResNet bottleneck of which the first convolution sees three frames in every other block (I3D-R50)."""

    def __init__(self, channels: int, width: int, stride: int, temporal: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(channels, width, (temporal, 1, 1), padding=(temporal // 2, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, width, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
            nn.Conv3d(width, 4 * width, 1, bias=False),
            nn.BatchNorm3d(4 * width),
        )
        self.skip = nn.Identity()
        if stride > 1 or channels != 4 * width:
            self.skip = nn.Sequential(
                nn.Conv3d(channels, 4 * width, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(4 * width)
            )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(B, C, T, H, W) -> (B, 4 * width, T, H / stride, W / stride)."""
        return torch.relu(self.body(inputs) + self.skip(inputs))


class InflatedResNet50(nn.Module):
    """I3D with a ResNet-50 (arXiv 1705.07750 and 1711.07971): 5x7x7 stem, every other block over three frames."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(3, 64, (5, 7, 7), (1, 2, 2), (2, 3, 3), bias=False),
            nn.BatchNorm3d(64),
            nn.ReLU(),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
        )
        blocks, channels = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for index in range(depth):
                stride, temporal = (2 if stage and not index else 1), (1 if index % 2 else 3)
                blocks.append(InflatedBottleneck(channels, 64 << stage, stride, temporal))
                channels = 256 << stage
            if stage == 0:
                blocks.append(nn.MaxPool3d((2, 1, 1)))
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(2048, _CLASSES)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """(B, T, 3, H, W) -> (B, 400)."""
        return self.classifier(self.blocks(self.stem(clip.transpose(1, 2))).mean((2, 3, 4)))


class ConvGRU(nn.Module):
    """A convolutional GRU over feature maps (arXiv 1511.06432), 3x3 kernels: what propagation takes the place of.

    Args:
        channels: of the maps and of the state.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, T, D, H, W) -> the same shape."""
        state, states = torch.zeros_like(features[:, 0]), []
        for frame in features.unbind(1):
            update, reset = torch.sigmoid(self.gates(torch.cat([frame, state], 1))).chunk(2, 1)
            candidate = torch.tanh(self.candidate(torch.cat([frame, reset * state], 1)))
            state = state + update * (candidate - state)
            states.append(state)
        return torch.stack(states, 1)


def _torchvision(name: str) -> Callable[[], nn.Module]:
    class ChannelsFirst(nn.Module):
        def __init__(self):
            super().__init__()
            import torchvision.models.video as models

            self.model = getattr(models, name)()

        def forward(self, clip):
            return self.model(clip.transpose(1, 2))

    return ChannelsFirst


def _transformers(config: str, model: str, **settings) -> Callable[[], nn.Module]:
    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            import transformers

            self.model = getattr(transformers, model)(getattr(transformers, config)(**settings))

        def forward(self, clip):
            return self.model(clip).logits

    return Logits


# Name: how to make it, its own input (T, H, W), and whether it takes 224x224 as well (position embeddings may not).
RIVALS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "R(2+1)D-18": (_torchvision("r2plus1d_18"), (16, 112, 112)),
    "S3D": (_torchvision("s3d"), (16, 224, 224)),
    "MViT-v2-S": (_torchvision("mvit_v2_s"), (16, 224, 224)),
    "VideoMAE-base": (_transformers("VideoMAEConfig", "VideoMAEForVideoClassification"), (16, 224, 224)),
    "TimeSformer-base": (
        _transformers("TimesformerConfig", "TimesformerForVideoClassification", num_frames=16),
        (16, 224, 224),
    ),
    "V-JEPA 2 ViT-L": (
        _transformers("VJEPA2Config", "VJEPA2ForVideoClassification", crop_size=256, frames_per_clip=16),
        (16, 256, 256),
    ),
    "I3D-R50": (InflatedResNet50, (16, 224, 224)),
    "TSM-R50": (lambda: SharedResNet("mean"), (16, 224, 224)),
    "R50 + LSTM": (lambda: SharedResNet("lstm"), (16, 224, 224)),
}
