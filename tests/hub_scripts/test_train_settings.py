"""What the settings of a run do: precision, memory, rates, what is logged, and which model is the best."""

import json

import numpy as np
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from kinetrack.hub_scripts.train import TrainingRun, train
from kinetrack.hub_scripts.train_config import FINETUNING, TrainConfig, load_train_config, split_arguments
from kinetrack.hub_scripts.train_objective import LearnedBalance, Objective
from kinetrack.hub_scripts.train_optimizer import parameter_groups
from kinetrack.modeling import encoder_kinetrack, propagation_kinetrack


def records(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def losses(record):
    return {name: record[name] for name in ("heatmap", "box", "identity", "region", "action", "grad_norm")}


@pytest.fixture(scope="module")
def plain(data_root, training_settings, tmp_path_factory):
    """The first step's losses without anything special, and without dropout."""
    output = tmp_path_factory.mktemp("plain")
    settings = training_settings(data_root, output, steps=1)
    settings.model.config |= {"classifier_dropout": 0.0}
    train(settings)
    return losses(records(output)[0])


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        ({"gradient_checkpointing": True}, 1e-4),
        ({"compile": "eager"}, 1e-4),
        ({"mixed_precision": "bf16"}, 0.1),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_first_step_is_the_same_however_it_is_computed(
    plain, data_root, training_settings, tmp_path, changes, tolerance
):
    settings = training_settings(data_root, tmp_path, steps=1, **changes)
    settings.model.config |= {"classifier_dropout": 0.0}
    run = TrainingRun(settings)
    if "gradient_checkpointing" in changes:
        assert run.objective.model.kinetrack.encoder.gradient_checkpointing
    if "compile" in changes:
        assert run.objective.model.kinetrack.encoder._compiled_call_impl is not None
    run.finish()
    assert losses(records(tmp_path)[0]) == pytest.approx(plain, rel=tolerance)


def test_the_encoder_is_compiled_for_each_size_by_itself(data_root, training_settings, tmp_path):
    """One graph for all sizes takes inductor far longer to compile."""
    sizes = []

    def backend(graph, inputs):
        sizes.append([size for value in inputs for size in getattr(value, "shape", [value])])
        return graph.forward

    train(training_settings(data_root, tmp_path, steps=1, compile=backend))
    assert len(sizes) > 1, "tracking and actions have frames of different sizes"
    assert all(isinstance(size, int) for graph in sizes for size in graph)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["no", "bf16", "fp16"])
def test_training_on_a_gpu(plain, data_root, training_settings, tmp_path, precision):
    """Pinned memory, copies that do not block, and the encoder compiled by inductor."""
    settings = training_settings(
        data_root, tmp_path, steps=1, mixed_precision=precision, compile="inductor", data__pin_memory=True
    )
    settings.model.config |= {"classifier_dropout": 0.0}
    train(settings)
    assert losses(records(tmp_path)[0]) == pytest.approx(plain, rel=0.02 if precision == "no" else 0.2)


def test_accelerate_takes_the_fsdp_configuration():
    """It names modules that exist; nobody has run it, because Accelerate's FSDP wants GPUs."""
    config = load_config_from_file(str(FINETUNING.parent / "accelerate_fsdp.yaml"))
    assert config.distributed_type == "FSDP"
    for name in config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"].split(","):
        assert hasattr(encoder_kinetrack, name) or hasattr(propagation_kinetrack, name)


def test_stages_of_the_backbone_learn_at_decaying_rates(model_folder):
    from kinetrack.processing.loading import load_model

    model, _ = load_model(str(model_folder), "cpu")
    settings = TrainConfig(learning_rate=1e-3, backbone_learning_rate=1e-4, layer_decay=0.5, weight_decay=0.1)
    groups = parameter_groups(Objective(model, LearnedBalance(model.config.loss_weights, True)), settings)
    rates = {group["place"]: group["lr"] for group in groups}
    assert rates == pytest.approx(
        {"new": 1e-3, "balance": 1e-3}
        | {f"backbone_{depth}": 1e-4 * 0.5 ** (4 - depth) for depth in range(5)}  # the stem and four stages
    )
    learned = len(list(model.parameters())) + len(model.config.loss_weights)
    assert sum(len(group["params"]) for group in groups) == learned
    for group in groups:
        assert group["weight_decay"] == 0 or all(parameter.dim() > 1 for parameter in group["params"])


def test_tensorboard_has_curves_and_clips_with_boxes(data_root, training_settings, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(training_settings(data_root, tmp_path, steps=2, picture_every=1))
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    scalars = set(board.Tags()["scalars"])
    assert {"loss/heatmap", "loss/action", "attention/alpha_entropy", "attention/beta_entropy"} <= scalars
    assert {"learning_rate/new", "learning_rate/backbone", "log_variance/box", "dev/top1"} <= scalars
    assert {"run/images_per_second", "run/grad_norm", "run/epoch"} <= scalars
    assert set(board.Tags()["images"]) == {"clips/tracking", "clips/actions"}
    assert board.Images("clips/tracking")[0].width == 3 * 128


def test_attention_that_collapses_is_warned_of(data_root, training_settings, tmp_path, caplog):
    settings = training_settings(data_root, tmp_path, steps=3, warmup_steps=1)
    settings.model.config |= {"temporal_attention": False}  # uniform by construction
    train(settings)
    said = [record.getMessage() for record in caplog.records if "temporal attention" in record.getMessage()]
    assert len(said) == 1 and said[0].startswith("Step 2: the temporal attention (β) is uniform")


def test_attention_to_one_place_alone_is_warned_of(data_root, training_settings, tmp_path, caplog):
    settings = training_settings(data_root, tmp_path, steps=2, warmup_steps=0, log_every=1)
    run = TrainingRun(settings)
    with torch.no_grad():
        run.objective.model.kinetrack.attention.spatial_projection.weight.mul_(1e6)
    run.finish()
    (said,) = [record.getMessage() for record in caplog.records if "sees one place alone" in record.getMessage()]
    assert said.startswith("Step 1: the spatial attention (α)")


def test_the_best_model_is_kept_by_the_chosen_figure(data_root, training_settings, tmp_path, monkeypatch):
    scores = iter([0.3, 0.9, 0.2])
    settings = training_settings(data_root, tmp_path, steps=3, evaluate_every=1, best_metric="dev_ap50")
    run = TrainingRun(settings)
    monkeypatch.setattr(run.streams, "evaluate", lambda *_: {"dev_top1": 0.5, "dev_ap50": next(scores)})
    saved, save = [], run._save_model
    monkeypatch.setattr(
        run, "_save_model", lambda name, trained: (save(name, trained), saved.append((run.progress.step, name)))
    )
    run.finish()
    assert saved == [(1, "model"), (1, "best"), (2, "model"), (2, "best"), (3, "model")]
    best, last = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("best", "model"))
    assert best["trained"] and last["trained"] and run.progress.best == 0.9


def test_a_figure_that_is_not_measured_cannot_choose(data_root, training_settings, tmp_path):
    with pytest.raises(ValueError, match="best_metric='dev_luck' is not measured here. Choose one of dev_top1"):
        TrainingRun(training_settings(data_root, tmp_path, steps=1, best_metric="dev_luck"))  # before the first step
    with pytest.raises(ValueError, match="best_metric='dev_ap50' was not measured. Choose one of dev_top1"):
        train(training_settings(data_root, tmp_path, steps=1, best_metric="dev_ap50"))  # there is no such sequence


@pytest.mark.parametrize("task", ["tracking", "actions"])
def test_one_task_alone_has_its_head_alone(data_root, training_settings, tmp_path, task):
    other = {"tracking": "actions", "actions": "tracking"}[task]
    train(training_settings(data_root, tmp_path, steps=1, **{f"data__{other}__batch_size": 0}))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["tracking_head"] == (task == "tracking") and config["classification_head"] == (task == "actions")
    assert np.isfinite(records(tmp_path)[0]["grad_norm"])


def test_settings_from_the_command_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("steps: 3\ndata: {workers: 2}\nmodel: some-model\n")
    loaded = load_train_config(
        *split_arguments([str(file), "data=my_clips", "data.actions.fold=2", "compile=inductor"])
    )
    assert (loaded.steps, loaded.data.workers, loaded.data.path, loaded.data.actions.fold) == (3, 2, "my_clips", 2)
    assert loaded.model.checkpoint == "some-model" and loaded.compile == "inductor"
    loaded = load_train_config(*split_arguments(["model=kinetrack-nano", "data=x", "data.cache=null"]))
    assert loaded.model.checkpoint == "kinetrack-nano" and loaded.data.cache is None and loaded.data.path == "x"


def test_words_that_yaml_takes_for_something_else(tmp_path):
    assert load_train_config(None, ["mixed_precision=no"]).mixed_precision == "no"
    with pytest.raises(ValueError, match="data.path must be str, got 2024"):
        load_train_config(None, ["data.path=2024"])


def test_nothing_to_judge_by_is_said(data_root, training_settings, tmp_path, caplog, monkeypatch):
    run = TrainingRun(training_settings(data_root, tmp_path, steps=1))
    monkeypatch.setattr(run.streams, "evaluate", lambda *_: {})
    run.finish()
    assert "Nothing is set aside to judge the model by" in caplog.text and not (tmp_path / "best").exists()
