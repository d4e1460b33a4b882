"""Tiny models with every parameter away from its initial value, so that no term is hidden by a zero."""

import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from torch import nn


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    """The models are so small that threads cost more than they bring, most of all beside other test processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def scatter_parameters(model: nn.Module) -> nn.Module:
    """Moves every parameter and BatchNorm statistic away from zeros, ones and the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32).to(parameter.dtype)
            # Attention that is nearly uniform would hide a wrong weight.
            parameter.add_(noise * (1.0 if "_projection" in name else 0.2))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.add_(torch.randn(module.running_mean.shape, generator=generator) * 0.1)
                module.running_var.mul_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def make_config(tiny_backbone):
    """`make_config(**overrides)`: a configuration of a few thousand parameters."""

    def make(**overrides) -> KineTrackConfig:
        settings = {
            "backbone_config": tiny_backbone,
            "hidden_size": 8,
            "motion_channels": 4,
            "motion_reach": 1,
            "keypoints": ["head", "left_foot", "right_foot"],
            "statistics_channels": 16,
            "keypoint_channels": 8,
            "pose_channels": 4,
            "embedding_size": 6,
            "num_propagation_layers": 2,
            "attention_window": None,
            "id2label": {0: "walk", 1: "run", 2: "sit"},
            "label_groups": {"fight": ["noFight", "fight"]},
            "object_classes": ["person", "ball"],
        }
        settings |= overrides
        if settings["attention_window"] is None:  # poses and statistics are followed through a window
            settings |= {"keypoints": [], "statistics_channels": 0} | overrides
        return KineTrackConfig(**settings)

    return make


@pytest.fixture(scope="session")
def scatter():
    """`scatter(model)`: see `scatter_parameters`."""
    return scatter_parameters


@pytest.fixture(scope="session")
def make_model(make_config):
    """`make_model(model_class=KineTrackForVideoAnalysis, dtype=torch.float64, **overrides)`, in eval mode."""

    def make(model_class=KineTrackForVideoAnalysis, dtype=torch.float64, **overrides):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return scatter_parameters(model_class(make_config(**overrides))).to(dtype).eval()

    return make


@pytest.fixture(scope="session")
def make_clip():
    """`make_clip(batch, frames, height=64, width=96, dtype=torch.float64)`: noise that changes from frame to frame."""

    def make(batch=1, frames=6, height=64, width=96, dtype=torch.float64, seed=3):
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, frames, 3, height, width, generator=generator, dtype=torch.float64).to(dtype)

    return make
