"""A run that is killed goes on as if nothing had happened, and stops where going on makes no sense."""

import json
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.train import TrainingRun, train
from kinetrack.hub_scripts.train_optimizer import WeightAverage
from safetensors.torch import load_file

STEPS = 8


def losses(output) -> list[dict]:
    """The log without what depends on the clock."""
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{name: v for name, v in line.items() if "second" not in name} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(data_root, training_settings, tmp_path_factory):
    """The log and the checkpoint of a run with dropout and augmentation that nothing disturbs."""
    output = tmp_path_factory.mktemp("undisturbed")
    train(varied(training_settings, data_root, output))
    return output


def varied(training_settings, data_root, output):
    return training_settings(
        data_root, output, steps=STEPS, checkpoint_steps=1, evaluate_every=3, log_every=2, data__workers=1
    )


def test_a_killed_run_has_the_losses_of_one_that_was_not(
    undisturbed, data_root, training_settings, start_processes, tmp_path
):
    """SIGKILL at a moment drawn anew in every run of this test: in a step, in an evaluation or in a checkpoint."""
    settings = varied(training_settings, data_root, tmp_path)
    (process,) = start_processes("from kinetrack.hub_scripts.train import train\ntrain(settings)", settings=settings)
    line, deadline = f'"step": {random.choice([2, 4, 6])},', time.monotonic() + 240
    log = tmp_path / "log.jsonl"
    while not (log.is_file() and line in log.read_text()):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.3))
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    assert len(losses(tmp_path)) < len(losses(undisturbed))

    train(settings)
    assert losses(tmp_path) == losses(undisturbed)
    # What is saved is the exponential mean of the weights over all steps, before the kill and after.
    mean, expected = (load_file(output / "model/model.safetensors") for output in (tmp_path, undisturbed))
    assert all(torch.equal(mean[name], value) for name, value in expected.items())
    last = load_file(undisturbed / "checkpoint/model.safetensors")
    assert not torch.equal(expected["tracking_head.heatmap.bias"], last["model.tracking_head.heatmap.bias"])


def test_a_run_that_is_complete_can_be_given_more_steps(undisturbed, data_root, training_settings, tmp_path):
    settings = varied(training_settings, data_root, tmp_path)
    settings.steps = 2
    train(settings)
    settings.steps = 3
    train(settings)
    assert [line["step"] for line in losses(tmp_path)] == [2, 2, 3]


def test_a_run_that_is_complete_says_so(data_root, training_settings, tmp_path, caplog):
    for _ in range(2):
        assert "already" not in caplog.text
        train(training_settings(data_root, tmp_path, steps=1))
    assert "is trained to step 1 already. --fresh begins anew." in caplog.text


def test_a_checkpoint_of_other_clips_is_refused(data_root, training_settings, tmp_path):
    """Else it would be given other names for its classes, and not one step."""
    root, output = shutil.copytree(data_root, tmp_path / "data"), tmp_path / "run"
    train(training_settings(root, output, steps=1))
    moved = root.rename(tmp_path / "elsewhere")
    train(training_settings(moved, output, steps=2))
    clips = sorted((moved / "actions").glob("*/train/*/*.mp4"))
    clips[-1].rename(clips[-1].with_stem("another"))
    with pytest.raises(ValueError, match="other clips or classes.*--fresh"):
        train(training_settings(moved, output, steps=3))
    train(training_settings(moved, output, steps=1), resume=False)


def test_a_checkpoint_of_another_model_is_refused(data_root, training_settings, tmp_path):
    train(training_settings(data_root, tmp_path, steps=1))
    settings = training_settings(data_root, tmp_path, steps=2)
    settings.model.config |= {"hidden_size": 24}
    with pytest.raises(ValueError, match="--fresh"):
        train(settings)


def test_a_loss_that_is_not_finite_stops_with_the_names_of_the_clips(data_root, training_settings, tmp_path):
    run = TrainingRun(training_settings(data_root, tmp_path, steps=1))
    with torch.no_grad():
        run.objective.model.tracking_head.heatmap.bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"(?s)heatmap.*nan.*mot/train/WALKER:\d+-\d+"):
        run.finish()
    assert not (tmp_path / "model").exists()


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_spoilt(data_root, training_settings, tmp_path):
    run = TrainingRun(training_settings(data_root, tmp_path, steps=1))
    bias = run.objective.model.tracking_head.heatmap.bias
    bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(FloatingPointError, match=r"the gradient is not finite.*mot/train/WALKER:\d+-\d+"):
        run.finish()
    assert bias.isfinite().all() and not (tmp_path / "checkpoint").exists()


def test_a_fresh_run_forgets_the_checkpoint_at_once(data_root, training_settings, tmp_path, monkeypatch):
    """Else, stopped before its first checkpoint, it would go on as the run before it."""
    settings = training_settings(data_root, tmp_path, steps=1)
    train(settings)
    with monkeypatch.context() as patch:
        patch.setattr(TrainingRun, "finish", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(settings, resume=False)
    assert not TrainingRun(settings).resume()
    assert (tmp_path / "model/config.json").is_file()


def test_the_mean_of_the_weights_is_exponential_and_only_lent_to_the_model():
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    frozen = torch.nn.Parameter(torch.tensor([5.0]), requires_grad=False)
    average = WeightAverage([weight, frozen], decay=0.9)
    expected = None
    for value in (3.0, 4.0, -1.0):
        with torch.no_grad():
            weight.fill_(value)
        average.update()
        expected = value if expected is None else 0.9 * expected + 0.1 * value
    with average.applied():
        np.testing.assert_allclose(weight.detach(), [expected] * 2, rtol=1e-6)
    assert weight.tolist() == [-1.0, -1.0]
    assert len(average.mean) == 1
