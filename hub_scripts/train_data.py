"""What a training step draws from, and how the model is judged on the dev clips while it learns."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, Subset

from ..processing.detection_kinetrack import decode_detections
from .data.annotations import box_iou
from .data.batches import BalancedBatches, collate
from .data.clips import ACTION_FORM, MOT_FORM, ActionClips, MotClips, evaluation_form
from .metrics.average_precision import average_precision, match_by_score
from .train_config import StreamSettings, TrainConfig
from .train_sources import open_data

# Every action class weighs 1. Fights are two classes of 84 clips each, and sequences differ in length and variety.
_ACTION_SHARES = {"fight": 2.5, "noFight": 2.5}
_DEV_SEQUENCE_CLIPS = 24  # of 4 frames, spread evenly: a figure to compare steps by, not to report


class TrainingStreams:
    """Batches of every task for every step, and the dev clips.

    Args:
        settings: of the run.
        rank: which process this is.
        world_size: of how many.
        accumulation: batches of every stream a step.

    Attributes:
        tasks: "tracking", "actions" or both, in the order of a step's batches.
        labels: what the data say about the model's configuration: `id2label`, `label_groups`,
            `object_classes`, `keypoints`.
        form: how the clips of the last stream are normalised.
        epoch_steps: steps in which the largest of the data sets is drawn once.
    """

    def __init__(self, settings: TrainConfig, rank: int = 0, world_size: int = 1, accumulation: int = 1):
        self.settings, self.rank, self.world_size, self.accumulation = settings, rank, world_size, accumulation
        self.normalisation: dict[str, tuple[float, ...]] = {}
        self.data = open_data(settings)
        self.tasks = list(self.data)
        self.labels = {name: value for data in self.data.values() for name, value in data.labels.items()}
        self.loaders: list[tuple[BalancedBatches, DataLoader]] = []
        self.epoch_steps = 1.0
        for task, stream, form, make, shares in (
            ("tracking", settings.data.tracking, MOT_FORM, MotClips, _stratum_shares),
            ("actions", settings.data.actions, ACTION_FORM, ActionClips, _action_shares),
        ):
            if task in self.data:
                form = replace(form, num_frames=stream.num_frames, canvas=tuple(stream.size), walkers=stream.walkers)
                options = {"train": settings.data.augment, "seed": settings.seed} | self.data[task].options
                clips = make(self.data[task].open("train"), form, **options)
                self._add(clips, stream, shares)

    def _add(self, clips: MotClips | ActionClips, stream: StreamSettings, shares: Callable) -> None:
        settings, data = self.settings, self.settings.data
        drawn = stream.batch_size * self.world_size * self.accumulation
        self.epoch_steps = max(self.epoch_steps, len(clips) / drawn)
        batches = BalancedBatches(
            clips.strata, stream.batch_size, shares(clips.strata), settings.seed, None, self.rank, self.world_size
        )
        pinned = torch.cuda.is_available() if data.pin_memory is None else data.pin_memory
        loader = DataLoader(
            clips,
            batch_sampler=batches,
            collate_fn=self._collate(),
            num_workers=data.workers,
            prefetch_factor=2 if data.workers else None,
            pin_memory=pinned,
            generator=torch.Generator(),  # its own, so that starting a loader leaves dropout's chance alone
        )
        self.loaders.append((batches, loader))

    def _collate(self) -> Callable:
        """Processes that train together must all have tubes and label groups, or they would wait for each other."""
        if self.world_size == 1:
            return collate
        return partial(collate, always_regions=True, groups=tuple(self.labels.get("label_groups", ())))

    @property
    def form(self):
        """How the clips of the last stream are made."""
        return self.loaders[-1][1].dataset.form

    @property
    def metrics(self) -> list[str]:
        """Names of what `evaluate` can measure, if dev clips have the labels and boxes for it."""
        groups = [f"dev_{name}" for name in self.labels.get("label_groups", ())]
        actions = ["dev_top1", "dev_region_top1", *groups] if "actions" in self.tasks else []
        return actions + (["dev_ap50"] if "tracking" in self.tasks else [])

    @cached_property
    def key(self) -> str:
        """Names the clips and classes that are learned from: what a run may go on with."""
        clips = [(_names(loader.dataset.sources), list(loader.dataset.strata)) for _, loader in self.loaders]
        return hashlib.sha256(json.dumps([self.labels, clips], sort_keys=True).encode()).hexdigest()

    def normalise(self, image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        """Takes the model's normalisation of pixels (in 0..1) in place of the default, before the first step."""
        self.normalisation = {"image_mean": tuple(image_mean), "image_std": tuple(image_std)}
        for _, loader in self.loaders:
            loader.dataset.form = replace(loader.dataset.form, **self.normalisation)

    def steps(self, start: int, stop: int) -> Iterator[list[dict]]:
        """The batches of steps `start` to `stop`: one of each stream, as often as gradients are accumulated."""
        for batches, _ in self.loaders:
            batches.position, batches.length = start * self.accumulation, stop * self.accumulation
        rounds = zip(*(loader for _, loader in self.loaders), strict=True)
        for _ in range(start, stop):
            yield [batch for _ in range(self.accumulation) for batch in next(rounds)]

    @torch.inference_mode()
    def evaluate(self, predict: Callable[[dict], object], accelerator: Accelerator, config) -> dict[str, float]:
        """Scores of the dev clips: whole clips at the model's frame rate, actions, groups and detections.

        Args:
            predict: from a batch to the model's output.
            accelerator: each process takes its share of the clips.
            config: the model's.

        Returns:
            `dev_top1`, `dev_region_top1`, `dev_<group>` (shares that are right) and `dev_ap50` (average precision of
            detections at IoU 0.5, 0 to 1), as far as there are dev clips; the same in every process.
        """
        scores, mean_std = {}, self.normalisation
        if "actions" in self.tasks and len(sources := self.data["actions"].open("dev")):
            form = evaluation_form(replace(ACTION_FORM, num_frames=16, **mean_std), (256, 320), config.frame_rate)
            clips = ActionClips(sources, form, train=False)
            rows = self._each(clips, range(len(clips)), predict, accelerator, judge_actions)
            names = dict.fromkeys(name for row in rows for name in row)
            scores |= {f"dev_{name}": float(np.mean([row[name] for row in rows if name in row])) for name in names}
        if "tracking" in self.tasks and (sources := self.data["tracking"].open("dev")):
            form = evaluation_form(replace(MOT_FORM, num_frames=4, **mean_std), frame_rate=config.frame_rate)
            clips = MotClips(sources, form, train=False)
            chosen = np.unique(np.linspace(0, len(clips) - 1, _DEV_SEQUENCE_CLIPS).astype(int)).tolist()
            rows = self._each(clips, chosen, predict, accelerator, judge_detections)
            if wanted := sum(row["wanted"] for row in rows):
                found, hits = (np.concatenate([row[key] for row in rows]) for key in ("scores", "hits"))
                scores["dev_ap50"] = average_precision(found, hits, wanted)
        return scores

    def _each(self, clips: Dataset, chosen: Sequence[int], predict, accelerator, judge) -> list[dict]:
        """Judgements of the chosen clips in order; every process runs as many batches, as FSDP wants it."""
        rounds = -(-len(chosen) // accelerator.num_processes)
        own = [(turn * accelerator.num_processes + accelerator.process_index) % len(chosen) for turn in range(rounds)]
        rows = []
        loader = DataLoader(
            Subset(clips, [chosen[place] for place in own]),
            batch_size=4,
            collate_fn=collate,
            generator=torch.Generator(),
        )
        for batch in loader:
            inputs = {name: batch[name] for name in ("pixel_values_videos", "frame_mask", "pixel_mask", "region_boxes")}
            inputs = {name: value if value is None else value.to(accelerator.device) for name, value in inputs.items()}
            rows += judge(predict(inputs), batch)
        by_place = dict(gather_object(list(zip(own, rows, strict=True))))
        return [by_place[place] for place in range(len(chosen))]


def judge_actions(output, batch: dict) -> list[dict[str, float]]:
    """What is right about each clip of a batch, by name of the label group; only what has a label."""
    judged = {"top1": (output.logits, batch["labels"])}
    if output.region_logits is not None:
        seen = torch.isfinite(batch["region_boxes"]).all(-1).any(1)  # (B,)
        judged["region_top1"] = (output.region_logits, batch["labels"].where(seen, -100))
    judged |= {name: (output.group_logits[name], wanted) for name, wanted in batch["group_labels"].items()}
    rows: list[dict[str, float]] = [{} for _ in batch["labels"]]
    for name, (logits, wanted) in judged.items():
        for row, guess, label in zip(rows, logits.argmax(-1).tolist(), wanted.tolist(), strict=True):
            if label != -100:
                row[name] = float(guess == label)
    return rows


def judge_detections(output, batch: dict) -> list[dict]:
    """Scores and hits of each clip's detections at IoU 0.5, and how many objects there were without ignored ones."""
    rows = []
    for number, clip in enumerate(batch["frame_labels"]):
        maps = (output.heatmap_logits[number].float().cpu(), output.distances[number].float().cpu())
        scores, hits, wanted = [np.zeros(0)], [np.zeros(0, bool)], 0
        for frame, truth in zip(decode_detections(*maps, threshold=0.05), clip, strict=True):
            if truth is None:
                continue
            ignore, labels = truth["ignore"].numpy(), truth["class_labels"].numpy()
            found, kinds = frame["boxes"].numpy(), frame["labels"].numpy()
            overlap = box_iou(found, truth["boxes"].numpy())  # (n, m)
            excused = (overlap * ignore).max(1, initial=0.0) >= 0.5
            overlap = overlap * (kinds[:, None] == labels[None])
            right = match_by_score(frame["scores"].numpy(), overlap[:, ~ignore], 0.5)
            counted = right | ~excused
            scores.append(frame["scores"].numpy()[counted])
            hits.append(right[counted])
            wanted += int((~ignore).sum())
        rows.append({"scores": np.concatenate(scores), "hits": np.concatenate(hits), "wanted": wanted})
    return rows


def _names(sources) -> list[str]:
    return sources.names if hasattr(sources, "names") else [source.name for source in sources]


def _stratum_shares(strata: list[str]) -> dict[str, float]:
    """Sequences by the square root of their length: long ones repeat themselves, short ones are soon learned."""
    return {name: strata.count(name) ** 0.5 for name in set(strata)}


def _action_shares(strata: list[str]) -> dict[str, float]:
    return {name: _ACTION_SHARES.get(name.rsplit("/", 1)[-1], 1.0) for name in set(strata)}


def training_streams(
    settings: TrainConfig, rank: int = 0, world_size: int = 1, accumulation: int = 1
) -> TrainingStreams:
    """Opens the data of a run; see `TrainingStreams`."""
    return TrainingStreams(settings, rank, world_size, accumulation)
