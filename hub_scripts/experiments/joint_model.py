"""The package's own model on cached maps: the frozen stages are left out, the last ones learn with all that follows."""

import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from ...configuration.configuration_kinetrack import KineTrackConfig
from ...modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ...processing.video_processing_kinetrack import KineTrackVideoProcessor
from ..initialise import timm_backbone_config
from ..pretrained import LITE0, load_backbone_weights

FROZEN = 5  # of an EfficientNet-Lite's seven stages; the two of stride 32 learn
MAPS = (2, 3)  # of timm's five: what the frozen stages give at strides 8 and 16
SHARED = {  # parts that both tasks' gradients reach, by what their parameters' names contain
    "stage 6": ("backbone.blocks.5.",),
    "stage 7": ("backbone.blocks.6.",),
    "neck": ("middle_lateral.", "coarse_lateral.", "smooth_features."),
    "propagation": ("kinetrack.propagation.", "kinetrack.norm."),
}


class TrainedStages(nn.Module):
    """Stands in for a backbone: its last stages, which go on from maps that were given beforehand.

    Args:
        backbone: EfficientNet-Lite of a KineTrack model.
    """

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.config, self.channels = backbone.config, backbone.channels
        stages = backbone._backbone.blocks
        self.blocks = nn.ModuleDict({str(number): stages[number] for number in range(FROZEN, len(stages))})
        self._fine = self._middle = torch.zeros(0)
        self._place = 0

    def give(self, fine, middle) -> None:
        """Maps `(N, C, h, w)` of the frames that will be asked for, in their order, tensors or arrays."""
        self._fine, self._middle, self._place = fine, middle, 0

    @property
    def left(self) -> int:
        """Frames that were given and not asked for yet."""
        return len(self._fine) - self._place

    def forward(self, frames: torch.Tensor) -> SimpleNamespace:
        """The maps of the next N frames, whatever the pixels `(N, 3, H, W)` show.

        Raises:
            IndexError: more frames than maps were given.
        """
        if len(frames) > self.left:
            raise IndexError(f"{len(frames)} frames were asked for, maps of {self.left} are left.")
        rows = slice(self._place, self._place + len(frames))
        self._place = rows.stop
        fine, middle = (
            torch.as_tensor(maps[rows]).float().contiguous(memory_format=torch.channels_last)
            for maps in (self._fine, self._middle)
        )
        coarse = middle
        for stage in self.blocks.values():
            coarse = stage(coarse)
        return SimpleNamespace(feature_maps=(fine, middle, coarse))


class BlankFrames(KineTrackVideoProcessor):
    """Spares a session the scaling of frames that a model with `TrainedStages` does not look at."""

    def preprocess_frame(self, frame: np.ndarray, size=None) -> torch.Tensor:
        """`(1, 1, 3, H, W)` zeros of the size that the frame would have."""
        return torch.zeros(1, 1, 3, *self._canvas(size))


@dataclass(frozen=True)
class Start:
    """Where all trainings of a seed start from.

    Attributes:
        seed: of the weights that are not ImageNet's.
        weights: of the encoder; None for random ones, for tests.
        labels: names of the actions.
        hidden_size: D.
        network: timm's name of the encoder, an EfficientNet-Lite.
    """

    seed: int
    weights: str | None
    labels: list[str]
    hidden_size: int
    network: str = LITE0

    def build(self, tasks: tuple[str, ...], spatial: bool = True, temporal: bool = True) -> KineTrackForVideoAnalysis:
        """A model with heads for some tasks; whatever it shares with those of other tasks is equal to the bit.

        Args:
            tasks: "actions", "tracking" or both.
            spatial: whether Eq. 3's weights are learned.
            temporal: whether Eq. 5's are.
        """
        torch.manual_seed(self.seed)
        options = {
            "backbone_config": timm_backbone_config(self.network),
            "hidden_size": self.hidden_size,
            "id2label": dict(enumerate(self.labels)),
            "spatial_attention": spatial,
            "temporal_attention": temporal,
        }
        model = KineTrackForVideoAnalysis(KineTrackConfig.from_preset("nano", **options))
        if self.weights is not None:
            load_backbone_weights(model, self.weights)
        if set(tasks) != {"actions", "tracking"}:
            heads = {"classification_head": "actions" in tasks, "tracking_head": "tracking" in tasks}
            single = KineTrackForVideoAnalysis(KineTrackConfig.from_preset("nano", **options, **heads))
            every = model.state_dict()
            single.load_state_dict({name: every[name] for name in single.state_dict()})
            model = single
        return model.to(memory_format=torch.channels_last)


def attach_trained_stages(model: KineTrackForVideoAnalysis) -> TrainedStages:
    """Replaces a model's backbone by its last stages; the rest stays in the cache."""
    model.kinetrack.encoder.backbone = TrainedStages(model.kinetrack.encoder.backbone)
    return model.kinetrack.encoder.backbone


@torch.inference_mode()
def time_frames(models: dict[str, nn.Module], size: tuple[int, int], times: int = 20) -> dict[str, float]:
    """Milliseconds of processor time that each model needs for one frame, on one thread: the least of some turns.

    Args:
        models: by name; they take turns, so that whatever else the machine does troubles all alike.
        size: (height, width) of the frame.
        times: turns.
    """
    frame, threads = torch.zeros(1, 1, 3, *size), torch.get_num_threads()
    spent: dict[str, list[float]] = {name: [] for name in models}
    torch.set_num_threads(1)
    for _ in range(times):
        for name, model in models.items():
            start = time.process_time()
            model.eval()(frame)
            spent[name].append(1000 * (time.process_time() - start))
    torch.set_num_threads(threads)
    return {name: round(min(values), 2) for name, values in spent.items()}


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """Of two gradients; 0 where one vanishes."""
    norms = float(first.norm() * second.norm())
    return float(first @ second) / norms if norms else 0.0


class SharedGradients:
    """Reads each task's gradient of the shared parts, while both add up in the same parameters.

    Args:
        model: whose parts are shared.
    """

    def __init__(self, model: nn.Module):
        named = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
        self.parts = {
            part: [value for name, value in named if any(piece in name for piece in pieces)]
            for part, pieces in SHARED.items()
        }
        self._sum: dict[str, torch.Tensor] = {}

    def begin(self) -> None:
        """A new step, with gradients of zero."""
        self._sum = {}

    def read(self) -> dict[str, torch.Tensor]:
        """By part, the gradient `(P,)` that was added since the last reading."""
        found = {}
        for part, values in self.parts.items():
            flat = [torch.zeros_like(v) if v.grad is None else v.grad for v in values]
            total = torch.cat([grad.flatten() for grad in flat])
            found[part] = total - self._sum[part] if part in self._sum else total
            self._sum[part] = total
        return found
