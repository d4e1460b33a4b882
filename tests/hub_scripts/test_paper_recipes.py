"""The paper's protocol: the configurations of UCF-101, HMDB-51 and MOT17 run to the end on folders of that layout."""

from pathlib import Path

import numpy as np
import pytest
from kinetrack.hub_scripts.evaluate import evaluate
from kinetrack.hub_scripts.train import train
from kinetrack.hub_scripts.train_config import load_train_config

CONFIGS = Path(__file__).parents[2] / "hub_scripts" / "configs"
STREAM = "batch_size: 1, num_frames: 4, size: [64, 128]"


def run(config: str, output: Path, tiny_backbone: dict, *settings: str) -> Path:
    """One step with a tiny network in place of ResNet-50; precision and checkpointing as configured."""
    changes = ["steps=1", "warmup_steps=1", "frozen_stages=0", "data.workers=0", f"output={output}"]
    changes += ["model.backbone_weights=null", "model.config={hidden_size: 8, embedding_size: 4}"]
    changes += [f"model.config.backbone_config={tiny_backbone}", *settings]
    loaded = load_train_config(CONFIGS / f"{config}.yaml", changes)
    assert loaded.model.preset == "base" and loaded.mixed_precision == "bf16" and loaded.gradient_checkpointing
    return train(loaded)


@pytest.fixture
def ucf101(tmp_path, make_video):
    """Two classes of three groups; split N tests on group N."""
    root = tmp_path / "ucf"
    (root / "ucfTrainTestlist").mkdir(parents=True)
    items = [(label, group) for label in ("Archery", "YoYo") for group in (1, 2, 3)]
    for label, group in items:
        (root / "UCF-101" / label).mkdir(parents=True, exist_ok=True)
        make_video(root / f"UCF-101/{label}/v_{label}_g{group:02d}_c01.avi")
    for fold in (1, 2, 3):
        for part, wanted in (("test", lambda g, f: g == f), ("train", lambda g, f: g != f)):
            names = [f"{label}/v_{label}_g{group:02d}_c01.avi\n" for label, group in items if wanted(group, fold)]
            (root / f"ucfTrainTestlist/{part}list{fold:02d}.txt").write_text("".join(names))
    return root


@pytest.fixture
def hmdb51(tmp_path, make_video):
    """Two classes of three films; split N tests on film N."""
    root = tmp_path / "hmdb"
    (root / "splits").mkdir(parents=True)
    for label in ("sit", "wave"):
        (root / label).mkdir()
        names = [f"Film{film}_{label}_f_nm_np1_fr_med_0.avi" for film in (1, 2, 3)]
        for name in names:
            make_video(root / label / name)
        for fold in (1, 2, 3):
            lines = [f"{name} {2 if film == fold else 1} \n" for film, name in enumerate(names, start=1)]
            (root / f"splits/{label}_test_split{fold}.txt").write_text("".join(lines))
    return root


@pytest.mark.parametrize("fold", [1, 3])
@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_action_protocols_train_and_score_each_official_split(name, fold, request, tmp_path, tiny_backbone):
    root = request.getfixturevalue(name)
    actions = f"data.actions={{{STREAM}, path: {root}, fold: {fold}}}"
    model = run(f"base-{name}", tmp_path / "run", tiny_backbone, actions)
    report = evaluate(str(model), root, task="actions", split="test", fold=fold, size=(64, 96))
    assert report["actions"]["actions"]["clips"] == 2
    assert report["actions"]["actions"]["names"] == (["Archery", "YoYo"] if name == "ucf101" else ["sit", "wave"])


def test_mot17_is_trained_on_first_and_scored_on_second_halves(tmp_path, tiny_backbone, make_video, draw_frames):
    """With the classes, marks and detector copies that MOT17 has."""
    for detector in ("DPM", "FRCNN", "SDP"):
        folder = tmp_path / f"MOT17/train/MOT17-02-{detector}"
        (folder / "gt").mkdir(parents=True)
        make_video(folder / "video.mp4", draw_frames(13))
        rows = [f"{n},1,10,10,20,40,1,1,1" for n in range(1, 14)] + [f"{n},2,50,10,20,40,0,7,1" for n in range(1, 14)]
        (folder / "gt/gt.txt").write_text("\n".join(rows))
        info = "[Sequence]\nname=a\nimDir=img1\nframeRate=25\nseqLength=13\nimWidth=96\nimHeight=64\nimExt=.jpg\n"
        (folder / "seqinfo.ini").write_text(info)
    root = tmp_path / "MOT17" / "train"
    tracking = f"data.tracking={{{STREAM}, path: {root}, half: true}}"
    model = run("base-mot17", tmp_path / "run", tiny_backbone, tracking)
    report = evaluate(str(model), root, task="tracking", half="val", size=(64, 96))
    assert list(report["tracking"]) == ["MOT17-02-DPM", "COMBINED"] and report["speed"]["frames"] == 6
    assert np.isfinite(report["tracking"]["COMBINED"]["MOTA"])
