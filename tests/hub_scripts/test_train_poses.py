"""Teaching poses: what is learned, what stays, and that varied poses are of the same person."""

import shutil

import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts import train_poses
from kinetrack.hub_scripts.data.keypoints import JOINTS, MIRRORED
from kinetrack.hub_scripts.data.sources import action_names
from kinetrack.hub_scripts.train_poses import Settings, choose_share, varied_poses
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor

CLIPS = ("to_the_right/a", "to_the_left/b")


@pytest.fixture
def root(data_root, tmp_path):
    """The same data with joints: all of them walk along with the actor, spread over the box."""
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    for clip in CLIPS:
        boxes = np.loadtxt(root / f"actions/jhmdb/train_boxes/{clip}.txt", delimiter=",")[:, 2:6]
        places = [[(x + w * (k % 3 + 1) / 4, y + h * (k + 1) / 14, 1) for k in range(13)] for x, y, w, h in boxes]
        lines = [",".join(map(str, [n, 1, *np.ravel(place)])) for n, place in enumerate(places, start=1)]
        target = root / f"actions/jhmdb/train_keypoints/{clip}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def checkpoint(root, tiny_backbone, tmp_path):
    names = dict(enumerate(action_names(root)))
    config = KineTrackConfig(
        backbone_config=tiny_backbone,
        hidden_size=16,
        embedding_size=8,
        attention_window=8,
        id2label=names,
        trained=True,
    )
    KineTrackForVideoAnalysis(config).save_pretrained(tmp_path / "old")
    KineTrackVideoProcessor().save_pretrained(tmp_path / "old")
    return tmp_path / "old"


def test_poses_are_learned_and_all_else_stays(root, checkpoint, tmp_path, monkeypatch):
    output = tmp_path / "new"
    settings = ["--passes", "1", "--epochs", "1", "--movement-epochs", "1", "--batch-size", "4"]
    arguments = ["train_poses", str(checkpoint), "--data", str(root), "--output", str(output), *settings]
    monkeypatch.setattr("sys.argv", arguments)
    train_poses.main()
    old = KineTrackForVideoAnalysis.from_pretrained(checkpoint)
    model, _ = kinetrack.load_model(output, "cpu")
    assert model.config.keypoints == JOINTS
    kept = dict(model.named_parameters())
    for name, parameter in old.named_parameters():
        assert torch.equal(kept[name], parameter), name
    added = set(kept) - dict(old.named_parameters()).keys()
    assert {name.rsplit(".", 3)[0].split(".")[0] for name in added} == {"kinetrack", "action_head"}
    assert (output / "poses.json").is_file()


def test_training_clips_without_joints_are_refused(data_root, checkpoint):
    with pytest.raises(ValueError, match="data.keypoints"):
        train_poses.train_poses(str(checkpoint), str(data_root), Settings())


def test_varied_poses_keep_who_is_left_and_right():
    torch.manual_seed(0)
    np.random.seed(0)
    poses = torch.zeros(64, 12, 13, 3)
    poses[..., 0] = torch.arange(13.0) * 10
    poses[..., 1] = torch.arange(13.0).flip(0) * 20
    varied, seen = varied_poses(poses.flatten(2), torch.ones(64, 12, dtype=torch.bool))
    assert varied.shape[:2] == seen.shape and seen.all() and seen.shape[1] >= 8
    across = varied.unflatten(-1, (13, 3))[:, 0, :, 0]  # (64, 13)
    left, right = JOINTS.index("left_ankle"), JOINTS.index("right_shoulder")
    mirrored = across[:, MIRRORED.index(left)] < across[:, MIRRORED.index(right)]
    assert 0.2 < mirrored.float().mean() < 0.8
    # An ankle stays lower in the list's picture than a shoulder, whatever the turn.
    down = varied.unflatten(-1, (13, 3))[:, 0, :, 1]
    assert (down[:, [left, MIRRORED[left]]].mean(1) < down[:, [right, MIRRORED[right]]].mean(1)).all()


def test_the_share_of_movement_is_what_the_answers_ask_for():
    torch.manual_seed(0)
    wanted = torch.randint(0, 4, (300,))
    right = 2.0 * torch.nn.functional.one_hot(wanted, 4) + torch.randn(2, 300, 4)
    noise = torch.randn(2, 300, 4)
    assert choose_share(noise, right, wanted)[0] > 5
    assert choose_share(right, noise, wanted)[0] < 0.2
