"""A run from made-up data to a Hub repository: train, go on where it stopped, evaluate, bundle (`make train-smoke`)."""

import json

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.bundle import bundle
from kinetrack.hub_scripts.evaluate import evaluate
from kinetrack.hub_scripts.model_card import write_card
from kinetrack.hub_scripts.train import train
from kinetrack.hub_scripts.train_data import training_streams
from transformers import AutoModel

pytestmark = pytest.mark.train_smoke


def test_clips_take_the_models_normalisation(data_root, training_settings, tmp_path):
    settings = training_settings(data_root, tmp_path, steps=1)
    batches = []
    for mean, std in (((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))):
        streams = training_streams(settings)
        streams.normalise(mean, std)
        for batch in next(iter(streams.steps(0, 1))):
            shown = batch["pixel_mask"][:, None, None] & batch["frame_mask"][:, :, None, None, None]
            scale, shift = (torch.tensor(value)[:, None, None] for value in (std, mean))
            batches.append((batch["pixel_values_videos"] * scale + shift) * shown)
    for first, second in zip(batches[:2], batches[2:], strict=True):
        assert first.std() > 0.01
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_train_resume_evaluate_bundle(data_root, training_settings, tmp_path):
    output = tmp_path / "run"
    train(training_settings(data_root, output, steps=2))
    model = train(training_settings(data_root, output, steps=3))

    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert [record["step"] for record in log if "grad_norm" in record] == [1, 2, 3]
    assert all(np.isfinite(value) for record in log for value in record.values())
    assert any("dev_top1" in record for record in log)
    assert json.loads((model / "config.json").read_text())["trained"] is True
    assert (model / "model.safetensors").is_file() and (model / "video_preprocessor_config.json").is_file()

    report = evaluate(str(model), data_root, output=tmp_path / "scores", size=(64, 96))
    assert "MOTA" in report["tracking"]["COMBINED"]
    assert report["actions"]["actions"]
    assert (tmp_path / "scores" / "evaluation.json").is_file()

    write_card(model)
    bundled = bundle(model, tmp_path / "bundle", prove=False)  # the proof has tests of its own
    assert AutoModel.from_pretrained(bundled, trust_remote_code=True).config.trained
