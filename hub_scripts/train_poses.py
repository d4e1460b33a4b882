"""Teaches a trained model people's poses and what their movements mean; everything else in it stays as it is.

    python -m kinetrack.hub_scripts.data.keypoints --data ROOT --output ROOT/actions/jhmdb/train_keypoints
    python -m kinetrack.hub_scripts.train_poses runs/nano/model --data ROOT --output runs/nano-poses --compile

The training clips are encoded a few times, varied each time, and kept; on what is kept the keypoint head is trained
with the machine-made joints, then the network over time and its classifier on the joints that the head itself finds.
For these the head is trained twice on half of the films and asked about the other half: on clips it was trained on it
finds joints better than it ever will again. How much the movement counts against what the model says without it, and
the temperature of both together, are what makes the `dev` clips likeliest; `kinetrack calibrate` follows.
"""

import os
import tempfile
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..modeling.attention_kinetrack import cell_overlap
from ..modeling.keypoints_kinetrack import KeypointHead, keypoint_loss, locate_keypoints, widened
from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from ..processing.loading import load_model
from .clip_summaries import VARIED, choose_weights, plain_clips, summarise_clips
from .data.batches import collate
from .data.clips import ActionClips
from .data.keypoints import JOINTS, MIRRORED
from .data.sources import ACTION_SET, action_sources, film_names
from .data.splits import SPLITS_DIR
from .teaching_command import teach_from_command_line
from .train_model import locate_checkpoint

_FORM = replace(VARIED, num_frames=16)


@dataclass
class Settings:
    """Of a run.

    Attributes:
        passes: varied versions of every clip.
        epochs: of the keypoint head over all kept frames.
        movement_epochs: of the network over time.
        batch_size: frames a step of the first, clips a step of the second.
        learning_rate: the highest of a one-cycle schedule.
        weight_decay: of AdamW.
        seed: of weights, order and variation.
        compile: encode with `torch.compile`, which takes a while to begin and is about twice as fast.
    """

    passes: int = 2
    epochs: int = 3
    movement_epochs: int = 120
    batch_size: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0
    compile: bool = False


@dataclass
class KeptClips:
    """Encoded clips.

    Attributes:
        pyramids: P (N, T, D, H/8, W/8), float16, on disk.
        labels: `frame_labels` of every clip.
        masks: (N, T) bool, valid frames.
        cells: (N, H/8, W/8) bool, cells that see the frame.
        boxes: (N, T, 4) of the actor, NaN where there is none.
        actions: (N,) class of the clip.
        films: of every clip.
    """

    pyramids: np.ndarray
    labels: list
    masks: torch.Tensor
    cells: torch.Tensor
    boxes: torch.Tensor
    actions: torch.Tensor
    films: list[str]


@torch.inference_mode()
def keep_clips(model, clips: ActionClips, settings: Settings, folder: Path) -> KeptClips:
    """Encodes every clip `settings.passes` times, differently each time where `clips` varies them.

    Args:
        model: with the frozen encoder.
        clips: of one size, all of them with an actor.
        settings: of the run.
        folder: for the features, which may be larger than memory.
    """
    height, width = (side // 8 for side in clips.form.canvas)
    count, length = settings.passes * len(clips), clips.form.num_frames
    shape = (count, length, model.config.hidden_size, height, width)
    pyramids = np.lib.format.open_memmap(folder / "pyramids.npy", "w+", np.float16, shape)
    encode = torch.compile(model.kinetrack.encoder) if settings.compile else model.kinetrack.encoder
    order = [(turn, index) for turn in range(settings.passes) for index in range(len(clips))]
    rows = []
    loader = DataLoader(clips, sampler=order, batch_size=1, collate_fn=collate, num_workers=1)
    for number, batch in enumerate(tqdm(loader, desc="encoding", unit="clip")):
        _, pyramid, *_ = encode(batch.pop("pixel_values_videos")[0])
        pyramids[number] = pyramid.half().numpy()
        batch = deepcopy(batch)  # kept as they come, the worker's tensors would each hold an open file
        cells = batch["pixel_mask"][:, 4::8, 4::8]
        rows.append((batch["frame_labels"], batch["frame_mask"], cells, batch["region_boxes"], batch["labels"]))
    labels, masks, cells, boxes, actions = zip(*rows, strict=True)
    films = film_names(clips.sources)
    joined = (torch.cat(parts) for parts in (masks, cells, boxes, actions))
    return KeptClips(
        pyramids,
        [clip for batch in labels for clip in batch],
        *joined,
        [films[clips.sources[index].name] for _, index in order],
    )


def train_keypoint_head(config, kept: KeptClips, chosen: np.ndarray, settings: Settings) -> KeypointHead:
    """A new head, trained on the frames of the chosen clips that have keypoints.

    Args:
        config: of the model.
        kept: clips.
        chosen: indices of clips.
        settings: of the run.
    """
    torch.manual_seed(settings.seed)
    head = KeypointHead(config).train()
    frames = [(clip, t) for clip in chosen for t in range(kept.masks.shape[1]) if _has_keypoints(kept.labels[clip][t])]
    steps = len(frames) // settings.batch_size * settings.epochs
    optimizer, schedule = _optimizer(head.parameters(), settings, steps)
    rng = np.random.default_rng(settings.seed)
    order = np.concatenate([rng.permutation(len(frames)) for _ in range(settings.epochs)])
    progress = tqdm(range(steps), desc="keypoints", unit="step")
    for step in progress:
        batch = [frames[place] for place in order[step * settings.batch_size :][: settings.batch_size]]
        pyramid = torch.from_numpy(np.stack([kept.pyramids[clip, t] for clip, t in batch])).float()
        labels = [[_jittered(kept.labels[clip][t])] for clip, t in batch]
        cells = kept.cells[[clip for clip, _ in batch]]
        loss = keypoint_loss(config, head(pyramid).unsqueeze(1), labels, cells)
        _descend(loss, optimizer, schedule)
        if step % 20 == 0:
            progress.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return head.eval()


@torch.inference_mode()
def find_poses(config, head: KeypointHead, kept: KeptClips, chosen: np.ndarray) -> torch.Tensor:
    """(n, T, 2, 3K) poses of chosen clips as the model finds them: in the actor's box, and in the whole frame."""
    stride, found = config.output_stride, []
    for clip in chosen:
        logits = head(torch.from_numpy(np.array(kept.pyramids[clip])).float())
        overlap = cell_overlap(widened(kept.boxes[clip].nan_to_num(0.0)), *logits.shape[-2:], stride)
        regions = torch.stack([overlap, torch.ones_like(overlap)], 1) * kept.cells[clip]
        found.append(locate_keypoints(logits, regions, stride).flatten(2))
    return torch.stack(found)


def varied_poses(poses: torch.Tensor, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Other poses of the same actions: turned, shifted joint by joint, mirrored, at another speed, begun later.

    Args:
        poses: (B, T, 3K).
        seen: (B, T) bool.
    """
    batch, length = seen.shape
    points = poses.unflatten(-1, (-1, 3))
    places, concentration = points[..., :2], points[..., 2:]
    size = ((places.amax(2) - places.amin(2)).norm(dim=-1) * seen).sum(1) / seen.sum(1).clamp(min=1)  # (B,)
    angle = (torch.rand(batch) - 0.5) * 0.4
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(batch, 2, 2)
    places = torch.einsum("btkc,bcd->btkd", places, turn)
    noise = 0.03 * torch.randn(batch, 1, places.shape[2], 2) + 0.01 * torch.randn_like(places)
    places = places + noise * size[:, None, None, None]
    mirrored = torch.rand(batch) < 0.5
    flipped = torch.stack([-places[mirrored][..., 0], places[mirrored][..., 1]], -1)[:, :, MIRRORED]
    places, concentration = places.clone(), concentration.clone()
    places[mirrored], concentration[mirrored] = flipped, concentration[mirrored][:, :, MIRRORED]
    poses = torch.cat([places, concentration], -1).flatten(2)
    # Another speed: places between two frames, only where both were seen.
    speed = float(np.exp(np.random.uniform(np.log(0.75), np.log(1.3))))
    moments = torch.arange(0, length - 1 + 1e-6, speed)
    before = moments.floor().long().clamp(max=length - 2)
    share = (moments - before)[None, :, None]
    poses = poses[:, before] * (1 - share) + poses[:, before + 1] * share
    seen = seen[:, before] & seen[:, before + 1]
    begin = int(np.random.randint(0, max(len(moments) - 8, 1)))
    return poses[:, begin:], seen[:, begin:]


def train_movement(model, poses: torch.Tensor, seen: torch.Tensor, actions: torch.Tensor, settings: Settings) -> None:
    """Trains the model's network over time and its classifier in place; actions are (N,), the rest as for varying."""
    torch.manual_seed(settings.seed)
    np.random.seed(settings.seed)
    encoder, classify = model.kinetrack.attention.pose_encoder, model.action_head.classify_movement
    parameters = [*encoder.parameters(), *model.action_head.movement_classifier.parameters()]
    model.train()
    optimizer, schedule = _optimizer(parameters, settings, settings.movement_epochs * -(-len(poses) // 32))
    progress = tqdm(range(settings.movement_epochs), desc="movement", unit="epoch")
    for _ in progress:
        for places in torch.randperm(len(poses)).split(32):
            movement = encoder(*varied_poses(poses[places], seen[places]))
            logits = classify(F.pad(movement, (model.config.hidden_size, 0)))
            loss = F.cross_entropy(logits, actions[places], label_smoothing=model.config.label_smoothing)
            _descend(loss, optimizer, schedule)
        progress.set_postfix(loss=f"{float(loss.detach()):.3f}")
    model.eval()


def dev_logits(model, data: str, splits: str | os.PathLike) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of N dev clips: logits without the movement (2, N, C), of the movement alone (2, N, C), and classes (N,).

    The first are seen in the actor's box, the second in the whole frame.
    """
    sources = action_sources(data, "dev", splits=splits, sets=(ACTION_SET,))
    summary, wanted = summarise_clips(model, plain_clips(sources, model.config.frame_rate), "dev")
    with torch.inference_mode():
        return (
            model.action_head(summary[..., : model.action_head.size])[0],
            model.action_head.classify_movement(summary),
            wanted,
        )


def choose_share(still: torch.Tensor, moving: torch.Tensor, wanted: torch.Tensor) -> tuple[float, float]:
    """The factor of the movement's logits, and the temperature, with the smallest negative log-likelihood."""
    before, added = choose_weights(torch.stack([still, moving]), wanted)
    return float(added / before), float(1 / before)


def train_poses(
    checkpoint: str, data: str, settings: Settings, splits: str | os.PathLike = SPLITS_DIR
) -> tuple[nn.Module, object, dict]:
    """A model with poses, its processor, and what the dev clips said.

    Args:
        checkpoint: folder, name or Hub id of a trained model.
        data: root of the data, with `train_keypoints`.
        settings: of the run.
        splits: folder of `val.txt` and `dev.txt`.

    Raises:
        ValueError: training clips without keypoints.
    """
    _, processor = load_model(checkpoint)
    model = KineTrackForVideoAnalysis.from_pretrained(locate_checkpoint(checkpoint), keypoints=JOINTS).eval()
    model.requires_grad_(False)
    sources = action_sources(data, "train", splits=splits, sets=(ACTION_SET,))
    sources = [source for source in sources if source.keypoints is not None]
    if not sources:
        raise ValueError(f"No training clip below {data} has keypoints; run `hub_scripts.data.keypoints` first.")
    with tempfile.TemporaryDirectory() as folder:
        kept = keep_clips(model, ActionClips(sources, _FORM, seed=settings.seed), settings, Path(folder))
        everything = np.arange(len(kept.films))
        films = sorted(set(kept.films))
        np.random.default_rng(settings.seed).shuffle(films)
        first = np.isin(kept.films, films[::2])
        poses = torch.zeros(len(everything), kept.masks.shape[1], 2, 3 * len(JOINTS))
        for half in (first, ~first):
            head = train_keypoint_head(model.config, kept, everything[half], settings)
            poses[~half] = find_poses(model.config, head, kept, everything[~half])
        head = train_keypoint_head(model.config, kept, everything, settings)
    model.kinetrack.keypoint_head.load_state_dict(head.state_dict())
    for module in (model.kinetrack.attention.pose_encoder, model.action_head.movement_classifier):
        module.requires_grad_(True)
    seen = torch.cat([kept.boxes.isfinite().all(-1) & kept.masks, kept.masks])
    train_movement(model, torch.cat(poses.unbind(2)), seen, kept.actions.repeat(2), settings)
    model.requires_grad_(True)
    still, moving, wanted = dev_logits(model, data, splits)
    share, temperature = choose_share(still, moving, wanted)
    for parameter in model.action_head.movement_classifier.parameters():
        parameter.data.mul_(share)
    top1 = {
        name: (logits.argmax(-1) == wanted).float().mean(1).tolist()
        for name, logits in (("without", still), ("movement", moving), ("both", still + share * moving))
    }
    return (
        model,
        processor,
        {"dev_top1_in_box_and_frame": top1, "movement_factor": share, "dev_temperature": temperature},
    )


def _has_keypoints(labels) -> bool:
    return labels is not None and "keypoints" in labels and bool((labels["keypoints"][..., 2] > 0).any())


def _jittered(labels: dict) -> dict:
    """The same labels with boxes as inexact as a detector's."""
    boxes = labels["boxes"]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return labels | {"boxes": boxes + 0.16 * (torch.rand_like(boxes) - 0.5) * sides}


def _optimizer(parameters, settings: Settings, steps: int):
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps + 1)


def _descend(loss, optimizer, schedule):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()


def main() -> None:
    """Trains and saves."""
    teach_from_command_line(__doc__, Settings(), train_poses, "poses.json")


if __name__ == "__main__":
    main()
