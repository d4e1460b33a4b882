"""Training in several processes: the same as one process with the whole batch."""

import json
import shutil

import pytest
import torch
from kinetrack.modeling.loss_kinetrack import identity_loss
from safetensors.torch import load_file

# Plain SGD, whose steps do not magnify rounding as Adam's do.
TRAIN_BY_SGD = """
import torch
from kinetrack.hub_scripts.train import train

torch.optim.AdamW = torch.optim.SGD
train(settings)
"""
GRADIENT_OF_A_SHARE = """
import torch
import torch.distributed as dist
from kinetrack.modeling.loss_kinetrack import identity_loss

dist.init_process_group("gloo")
mine = slice(0, 5) if dist.get_rank() == 0 else slice(5, None)
weight.requires_grad_()
vectors = torch.nn.functional.normalize(inputs[mine] @ weight, dim=1)
loss = identity_loss(vectors, keys[mine], frames[mine], 0.1)
loss.backward()
total = torch.stack([loss.detach(), *weight.grad.flatten()])
dist.all_reduce(total)
if dist.get_rank() == 0:
    torch.save(total / 2, file)
dist.destroy_process_group()
"""
SHARE_SUMS = """
from accelerate import Accelerator
from kinetrack.hub_scripts.train_checkpoint import Progress

accelerator, progress = Accelerator(cpu=True), Progress()
progress.sums = {"heatmap": [float(accelerator.process_index), 4.0]}
progress.share(accelerator)
assert progress.sums == {"heatmap": [0.5, 4.0]}
"""


@pytest.fixture
def run_processes(start_processes):
    """Runs code in processes to its end."""

    def run(code: str, world_size: int, **names) -> None:
        running = start_processes(code, world_size, **names)
        try:
            for process in running:
                process.join(300)
                assert process.exitcode == 0
        finally:
            for process in running:
                process.kill()

    return run


@pytest.fixture(scope="module")
def uneven_root(data_root, tmp_path_factory, make_video):
    """Data of which some clips lack what others have: people in a sequence, an actor, an action."""
    root = tmp_path_factory.mktemp("uneven") / "data"
    shutil.copytree(data_root, root)
    shutil.copytree(root / "mot/train/WALKER", root / "mot/train/EMPTY")
    (root / "mot/train/EMPTY/gt/gt.txt").write_text("")
    shutil.copytree(root / "mot/train/WALKER", root / "mot/train/KITTI-17")  # which is on the dev list
    shutil.rmtree(root / "actions/jhmdb/train_boxes/to_the_left")
    for kind in ("fight", "noFight"):
        folder = root / "actions/surveillance_fight/train" / kind
        folder.mkdir(parents=True)
        make_video(folder / "clip.mp4")
    return root


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_reach_the_parameters_of_one_with_twice_the_batch(
    uneven_root, training_settings, run_processes, tmp_path, accumulation
):
    weights, logs = {}, {}
    for world_size in (1, 2):
        output = tmp_path / f"{world_size}"
        settings = training_settings(uneven_root, output, steps=5, accumulation=accumulation, data__augment=False)
        settings.model.config |= {"classifier_dropout": 0.0}
        settings.learning_rate = settings.backbone_learning_rate = 0.02
        settings.max_grad_norm = 1e9  # clipped gradients would all be of one length
        for stream in (settings.data.tracking, settings.data.actions):
            stream.batch_size = 2 // world_size
        run_processes(TRAIN_BY_SGD, world_size, settings=settings)
        weights[world_size] = load_file(output / "checkpoint" / "model.safetensors")
        logs[world_size] = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]

    one, two = weights[1], weights[2]
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-6, msg=lambda text, name=name: name + text)
    seen, terms = set(), {"heatmap", "box", "identity", "action", "region", "attention", "group_fight"}
    terms |= {"dev_ap50", "dev_top1"}
    for first, second in zip(logs[1], logs[2], strict=True):
        assert first.keys() == second.keys()
        for term in terms & first.keys():
            seen.add(term)
            assert second[term] == pytest.approx(first[term], rel=1e-3), term
    assert seen == terms
    balance = [value for name, value in one.items() if "log_variances" in name]
    assert max(value.abs().max() for value in balance) > 0.01  # something was learned


@pytest.mark.parametrize("count", [9, 5])  # with 5, the second process has no row
def test_identity_loss_compares_the_embeddings_of_all_processes(run_processes, tmp_path, count):
    """The gradients of the processes, averaged, are those of all rows together."""
    torch.manual_seed(0)
    rows = {"inputs": torch.randn(count, 4), "weight": torch.randn(4, 6)}
    rows |= {"keys": torch.arange(count) % 3, "frames": torch.arange(count) // 3}
    run_processes(GRADIENT_OF_A_SHARE, 2, file=tmp_path / "total.pt", **rows)
    weight = rows["weight"].requires_grad_()
    vectors = torch.nn.functional.normalize(rows["inputs"] @ weight, dim=1)
    loss = identity_loss(vectors, rows["keys"], rows["frames"], 0.1)
    loss.backward()
    expected = torch.stack([loss.detach(), *weight.grad.flatten()])
    torch.testing.assert_close(torch.load(tmp_path / "total.pt"), expected, rtol=1e-4, atol=1e-6)


def test_what_one_process_saves_of_the_log_is_true_of_all(run_processes):
    """All of them take over the sums that the main process saved."""
    run_processes(SHARE_SUMS, 2)
