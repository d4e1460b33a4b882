"""What a training step draws from, and how the model is judged on the dev list while it learns."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch.utils.data import DataLoader

from .data.batches import BalancedBatches, collate
from .data.clips import ACTION_FORM, MOT_FORM, ActionClips, MotClips, evaluation_form
from .data.keypoints import JOINTS
from .data.sources import action_names, action_sources, has_keypoints, mot_sources
from .train_config import StreamSettings, TrainConfig

# Every action class weighs 1. Fights are two classes of 84 clips each, and sequences differ in length and variety.
_ACTION_SHARES = {"fight": 2.5, "noFight": 2.5}
_GROUPS = {"fight": ["noFight", "fight"]}


class TrainingStreams:
    """Batches of both tasks for every step, and the dev list.

    Attributes:
        labels: `id2label`, `label_groups` and, where the data have any, `keypoints` for the model's configuration.
    """

    def __init__(self, settings: TrainConfig, rank: int = 0, world_size: int = 1):
        self.settings = settings
        self.normalisation: dict[str, tuple[float, ...]] = {}
        data = settings.data
        self.labels = {"id2label": dict(enumerate(action_names(data.root))), "label_groups": _GROUPS}
        if has_keypoints(data.root):
            self.labels["keypoints"] = JOINTS
        self.loaders: list[tuple[BalancedBatches, DataLoader]] = []
        for stream, make, shares in (
            (data.tracking, self._sequences, None),
            (data.actions, self._actions, True),
        ):
            if stream.batch_size == 0:
                continue
            clips = make(stream)
            weights = _stratum_shares(clips.strata) if shares is None else _action_shares(clips.strata)
            batches = BalancedBatches(
                clips.strata, stream.batch_size, weights, settings.seed, settings.steps, rank, world_size
            )
            loader = DataLoader(
                clips,
                batch_sampler=batches,
                collate_fn=collate,
                num_workers=data.workers,
                prefetch_factor=2 if data.workers else None,
                pin_memory=torch.cuda.is_available(),
            )
            self.loaders.append((batches, loader))
        if not self.loaders:
            raise ValueError("Nothing to train on: data.tracking.batch_size and data.actions.batch_size are both 0.")

    def normalise(self, image_mean: Sequence[float], image_std: Sequence[float]) -> None:
        """Takes the model's normalisation of pixels (in 0..1) in place of the default, before the first step."""
        self.normalisation = {"image_mean": tuple(image_mean), "image_std": tuple(image_std)}
        for _, loader in self.loaders:
            loader.dataset.form = replace(loader.dataset.form, **self.normalisation)

    def steps(self, start: int, stop: int) -> Iterator[tuple[dict, ...]]:
        """The batches of steps `start` to `stop`, one of each stream."""
        for batches, _ in self.loaders:
            batches.position, batches.length = start, stop
        return zip(*(loader for _, loader in self.loaders), strict=True)

    def _sequences(self, stream: StreamSettings) -> MotClips:
        form = replace(MOT_FORM, num_frames=stream.num_frames, canvas=tuple(stream.size))
        sources = mot_sources(self.settings.data.root, "train", self.settings.data.cache)
        names = list(self.labels["id2label"].values())
        walking = {"labels": names.index("walk"), "group_labels": {"fight": 0}} if "walk" in names else None
        return MotClips(sources, form, seed=self.settings.seed, walking=walking)

    def _actions(self, stream: StreamSettings) -> ActionClips:
        form = replace(ACTION_FORM, num_frames=stream.num_frames, canvas=tuple(stream.size))
        return ActionClips(
            action_sources(self.settings.data.root, "train", self.settings.data.cache), form, seed=self.settings.seed
        )

    @torch.inference_mode()
    def evaluate(self, model) -> dict[str, float]:
        """Accuracy of actions and groups on the dev clips, whole clips at the model's frame rate."""
        model.eval()
        form = replace(ACTION_FORM, num_frames=16, **self.normalisation)
        form = evaluation_form(form, (256, 320), model.config.frame_rate)
        clips = ActionClips(action_sources(self.settings.data.root, "dev", self.settings.data.cache), form, train=False)
        hits: dict[str, list[float]] = {}
        for batch in DataLoader(clips, batch_size=4, collate_fn=collate):
            inputs = {
                name: batch[name].to(model.device) for name in ("pixel_values_videos", "frame_mask", "pixel_mask")
            }
            regions = batch["region_boxes"]
            output = model(**inputs, region_boxes=None if regions is None else regions.to(model.device))
            judged = {"top1": (output.logits, batch["labels"])}
            if output.region_logits is not None:
                judged["region_top1"] = (output.region_logits, batch["labels"])
            judged |= {name: (output.group_logits[name], wanted) for name, wanted in batch["group_labels"].items()}
            for name, (logits, wanted) in judged.items():
                known = wanted != -100
                right = logits.argmax(-1).cpu()[known] == wanted[known]
                hits.setdefault(f"dev_{name}", []).extend(right.float().tolist())
        return {name: sum(values) / len(values) for name, values in hits.items() if values}


def _stratum_shares(strata: list[str]) -> dict[str, float]:
    """Sequences by the square root of their length: long ones repeat themselves, short ones are soon learned."""
    return {name: strata.count(name) ** 0.5 for name in set(strata)}


def _action_shares(strata: list[str]) -> dict[str, float]:
    return {name: _ACTION_SHARES.get(name.rsplit("/", 1)[-1], 1.0) for name in set(strata)}


def training_streams(settings: TrainConfig, rank: int = 0, world_size: int = 1) -> TrainingStreams:
    """Opens the data of a run; see `TrainingStreams`."""
    return TrainingStreams(settings, rank, world_size)
