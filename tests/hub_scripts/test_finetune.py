"""A trained model is brought to one's own classes: as a whole, by its head, with LoRA, or by Transformers' Trainer."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.augmentation import ClipForm
from kinetrack.hub_scripts.data.batches import collate_inputs
from kinetrack.hub_scripts.data.clips import ActionClips, MotClips
from kinetrack.hub_scripts.data.listed_clips import ListedClips
from kinetrack.hub_scripts.data.sequences import list_sequences
from kinetrack.hub_scripts.train import train
from kinetrack.hub_scripts.train_config import load_train_config, split_arguments
from kinetrack.hub_scripts.train_model import load_checkpoint_model
from kinetrack.modeling import modeling_kinetrack
from kinetrack.processing.loading import SHIPPED_MODELS, load_model
from safetensors.torch import load_file

README = Path(__file__).parents[2] / "README.md"
SMALL = [
    "steps=2",
    "warmup_steps=1",
    "frozen_stages=0",
    "data.workers=0",
    "data.cache=null",
    "data.tracking={batch_size: 1, num_frames: 4, size: [64, 128]}",
    "data.actions={batch_size: 2, num_frames: 4, size: [64, 128]}",
]


@pytest.fixture(scope="module")
def my_clips(tmp_path_factory, make_video):
    """Two classes, of which the tiny model knows one: walk."""
    root = tmp_path_factory.mktemp("mine") / "my_clips"
    for label in ("jump", "walk"):
        for number in range(5):
            (root / label).mkdir(parents=True, exist_ok=True)
            make_video(root / label / f"{'abcde'[number]}.mp4")
    return root


@pytest.fixture(scope="module")
def my_sequences(tmp_path_factory, data_root):
    """One sequence with two kinds of objects, named as CVAT names them."""
    root = tmp_path_factory.mktemp("mine")
    shutil.copytree(data_root / "mot/train/WALKER", root / "train/a")
    (root / "train/a/gt/labels.txt").write_text("ball\nperson\n")
    (root / "train/a/gt/gt.txt").write_text(
        "".join(f"{n},1,40,16,16,36,1,2,1\n{n},2,4,4,12,12,1,1,1\n" for n in range(1, 13))
    )
    return root


def tune(model, data, output, *settings) -> Path:
    path, overrides = split_arguments([f"model={model}", f"data={data}", f"output={output}", *SMALL, *settings])
    return train(load_train_config(path, overrides))


def changed(before: Path, after: Path) -> set[str]:
    """Top of the names of the tensors that differ; new shapes do not count."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert set(new) <= set(old)
    same_shape = [name for name in new if new[name].shape == old[name].shape]
    return {".".join(name.split(".")[:2]) for name in same_shape if not torch.equal(new[name], old[name])}


def test_known_actions_keep_their_weights_and_new_ones_get_new(model_folder):
    names = {0: "jump", 1: "walk"}
    model = load_checkpoint_model(str(model_folder), {"id2label": names, "label_groups": {}}, {})
    old, _ = load_model(str(model_folder), "cpu")
    assert model.config.id2label == names and model.config.num_labels == 2
    row = {label: number for number, label in old.config.id2label.items()}["walk"]
    assert torch.equal(model.action_head.classifier.weight[1], old.action_head.classifier.weight[row])
    assert not torch.equal(model.action_head.classifier.weight[0], old.action_head.classifier.weight[row])
    assert model.config.label_groups == {}
    for name, parameter in model.named_parameters():
        if not name.startswith("action_head."):
            assert torch.equal(parameter, old.get_parameter(name)), name


def test_the_same_actions_change_nothing(model_folder):
    old, _ = load_model(str(model_folder), "cpu")
    labels = {"id2label": dict(old.config.id2label), "label_groups": dict(old.config.label_groups)}
    model = load_checkpoint_model(str(model_folder), labels, {})
    assert all(torch.equal(p, old.get_parameter(name)) for name, p in model.named_parameters())


@pytest.mark.parametrize("mode", ["full", "head", "lora"])
def test_new_actions_are_learned(my_clips, model_folder, tmp_path, mode):
    if mode == "lora":
        pytest.importorskip("peft")
    folder = tune(model_folder, my_clips, tmp_path, f"model.finetune={mode}")
    model, _ = load_model(folder, "cpu")  # refuses missing tensors
    assert model.config.trained and model.config.id2label == {0: "jump", 1: "walk"}
    touched = changed(model_folder, folder)
    assert "tracking_head.heatmap" not in touched  # there are no boxes to learn from
    assert ("kinetrack.encoder" in touched) == ("kinetrack.propagation" in touched) == (mode != "head")
    assert "action_head.norm" in touched
    assert (tmp_path / "best" / "config.json").is_file()


def test_new_object_classes_are_learned_and_actions_stay(my_sequences, model_folder, tmp_path):
    folder = tune(model_folder, my_sequences, tmp_path, "model.finetune=head")
    model, _ = load_model(folder, "cpu")
    assert model.config.object_classes == ["ball", "person"]
    assert model.config.id2label == {0: "walk", 1: "run", 2: "sit"}
    touched = changed(model_folder, folder)
    assert touched and all(name.startswith("tracking_head.") for name in touched)


def test_nothing_to_start_from_or_to_learn_from_says_so(model_folder, my_clips, tmp_path):
    with pytest.raises(ValueError, match="kinetrack train model=kinetrack-nano data=FOLDER"):
        split_arguments(["steps=3"])
    with pytest.raises(ValueError, match=f"Nothing to train on at {tmp_path}"):
        tune(model_folder, tmp_path, tmp_path.parent / "out")
    with pytest.raises(ValueError, match="model.finetune must be full, head or lora"):
        tune(model_folder, my_clips, tmp_path / "out", "model.finetune=tail")


@pytest.mark.parametrize(
    "name", ["Model", "ForVideoClassification", "ForObjectTracking", "ForVideoAnalysis"], ids=lambda name: name
)
def test_the_shipped_checkpoint_loads_into_every_class_without_surprises(name):
    cls = getattr(modeling_kinetrack, f"KineTrack{name}")
    _, report = cls.from_pretrained(SHIPPED_MODELS / "kinetrack-nano", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_from_pretrained_takes_new_classes(model_folder):
    for cls in (modeling_kinetrack.KineTrackForVideoClassification, modeling_kinetrack.KineTrackForVideoAnalysis):
        names = dict(enumerate(["a", "b", "c", "d", "e"]))
        model = cls.from_pretrained(model_folder, num_labels=5, id2label=names, ignore_mismatched_sizes=True)
        assert model.action_head.classifier.weight.shape[0] == 5 and model.config.label2id["e"] == 4
        assert model.action_head.classifier.weight.isfinite().all()


@pytest.fixture
def without_onednn():
    """In PyTorch 2.14.1 oneDNN corrupts memory in gradients of narrow 1x1 convolutions with stride 2."""
    with torch.backends.mkldnn.flags(enabled=False):
        yield


@pytest.mark.usefixtures("without_onednn")
@pytest.mark.parametrize("task", ["actions", "tracking"])
def test_transformers_trainer_trains_and_evaluates(my_clips, my_sequences, model_folder, tmp_path, task):
    from transformers import Trainer, TrainingArguments

    if task == "actions":
        listed = ListedClips.read(my_clips, dev_fraction=0.0)
        clips = ActionClips(listed, ClipForm(4, (64, 128)), train=False)
        model = modeling_kinetrack.KineTrackForVideoClassification.from_pretrained(
            model_folder, id2label=listed.id2label, label_groups={}, ignore_mismatched_sizes=True
        )
    else:
        clips = MotClips(list_sequences(my_sequences, "train"), ClipForm(4, (64, 128)), train=False)
        model = modeling_kinetrack.KineTrackForObjectTracking.from_pretrained(model_folder)
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        label_names=["labels"],
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=clips, eval_dataset=clips, data_collator=collate_inputs)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    result = trainer.train()
    assert np.isfinite(result.training_loss)
    assert any(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert np.isfinite(trainer.evaluate()["eval_loss"])
    if task == "actions":
        assert trainer.predict(clips).predictions.shape == (10, 2)


@pytest.mark.usefixtures("without_onednn")
def test_the_readme_example_runs(my_clips, model_folder, tmp_path, monkeypatch):
    """As it stands, but with a tiny model, two steps and another folder."""
    (example,) = re.findall(r"```python\n([^`]*?Trainer\([^`]*?)```", README.read_text(encoding="utf-8"))
    assert len(example.splitlines()) <= 18
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_clips").symlink_to(my_clips)
    replaced = {'SHIPPED_MODELS / "kinetrack-nano"': repr(str(model_folder))}
    for given, instead in (replaced | {"max_steps=400": "max_steps=1"}).items():
        assert given in example
        example = example.replace(given, instead)
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    model, _ = load_model(tmp_path / "runs/mine/model", "cpu", allow_untrained=True)
    assert sorted(model.config.id2label.values()) == ["jump", "walk"]
