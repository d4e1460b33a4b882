"""Streams played from encoded frames are the model's own; beta over any window is Eq. 5; an hour is described."""

import json
import math

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.long_streams import EncodedFrames, attend, play, shapes_loop, sharpness
from kinetrack.processing.loading import load_model
from typer.testing import CliRunner

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def model(model_folder):
    return load_model(model_folder, "cpu", backend="torch")[0]


@pytest.fixture(scope="module")
def played(model):
    """A loop of 6 frames, 20 frames long, and the same frames as tensors."""
    frames = shapes_loop(6, (64, 96), scene=3)
    encoder = model.kinetrack.encoder
    encoded = EncodedFrames(encoder, frames, (64, 96), HALF, HALF)
    trace = play(model.kinetrack, encoded, np.arange(20) % 6)
    assert model.kinetrack.encoder is encoder
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div(127.5).sub(1)[np.arange(20) % 6]
    return trace, pixels[None]  # (1, T, 3, H, W)


@torch.no_grad()
def test_a_stream_of_encoded_frames_is_the_models_own(model, played):
    trace, pixels = played
    whole = model.kinetrack(pixels)
    window = model.config.attention_window
    assert torch.allclose(trace.scores[-window:], whole.state.scores[0], atol=1e-5)
    assert torch.allclose(trace.pooled[-window:], whole.state.features[0], atol=1e-5)
    beta, summary = attend(trace, 20, window)
    assert torch.allclose(beta, whole.temporal_attention[0, -window:], atol=1e-5)
    assert torch.allclose(summary, whole.pooler_output[0], atol=1e-5)
    assert trace.state_rms.shape == (math.ceil(20 / window), len(whole.state.hidden))


def test_sharpness_knows_uniform_and_single_frames(played):
    trace, _ = played
    scores = trace.scores
    trace.scores = torch.zeros(20)
    assert sharpness(trace, 10)["effective"] == pytest.approx(10) and sharpness(trace, 10)["largest"] == pytest.approx(
        1
    )
    trace.scores = torch.tensor([0.0, 99.0] * 10)
    assert sharpness(trace, 2)["effective"] == pytest.approx(1) and sharpness(trace, 2)["largest"] == pytest.approx(2)
    trace.scores = scores


def test_a_quick_run_of_a_stream_writes_its_report(clips_root, model_folder, tmp_path):
    arguments = ["experiment", "long-video", "--data", clips_root, "-o", tmp_path / "out", "--quick"]
    arguments += ["--seeds", "1"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--model", str(model_folder), "--variant", "shapes"])
    assert result.exit_code == 0, result.output
    [cell] = json.loads((tmp_path / "out" / "results.json").read_text())["cells"]
    assert cell["measures"]["return"] < 0.5 and cell["measures"]["sharpness"]["all"]["effective"] <= 256
    assert "on shapes its size changes by" in (tmp_path / "out" / "README.md").read_text()
    assert (tmp_path / "out" / "long-video.png").read_bytes().startswith(b"\x89PNG")
