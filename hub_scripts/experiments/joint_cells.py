"""What the experiments on jointly trained models share: data, settings, and cells that are trained once for all."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ...processing.video_processing_kinetrack import KineTrackVideoProcessor
from ..atomic_files import write_json_atomically
from ..data.sources import action_names, mot_sources
from ..evaluation_items import Sequence, read_sequence_info
from .clip_training import spread_frames
from .experiment import Experiment, Inputs
from .features import FrozenEncoder, read_clips
from .identity_events import read_people
from .joint_data import ActionBatches, SequenceBatches, clip_batch, read_sequences
from .joint_measures import STRETCH, measure_actions, measure_tracking
from .joint_model import MAPS, BlankFrames, Start, attach_trained_stages
from .joint_training import TASKS, JointSettings, train_jointly
from .sequence_scores import describe_sequences, length_of, val_sequences

_KEPT_FRAMES = 12  # of every clip
_DEV_FRAMES = 60  # of every sequence, from its beginning
_LEAST_HEIGHT = 0.2  # of the frame, that people have in the median
_PICTURES = 3  # clips whose alpha is kept as it is, and one frame of the first sequence


@dataclass(frozen=True)
class JointCell:
    """One way to train.

    Attributes:
        tasks: of "actions" and "tracking".
        learned: losses weighed by learned uncertainty; else by the configuration's factors.
        spatial, temporal: levels of the attention that are on.
        taught: whether alpha is taught to lie on the labelled actor, and the actor's action, as in `kinetrack train`.
    """

    tasks: tuple[str, ...] = TASKS
    learned: bool = False
    spatial: bool = True
    temporal: bool = True
    taught: bool = False


class JointExperiment(Experiment):
    """An experiment whose cells are trainings of the package's model on both tasks, or on one of them.

    A training that two experiments have in common is done once: its measures are kept in the cache.

    Attributes:
        cells: by variant.
        keeps_pictures: whether the first seed keeps alpha of some clips and of a frame, before training and after.
    """

    cells: dict[str, JointCell]
    keeps_pictures = True
    seeds = 3
    needs_weights = True

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "model": "KineTrackForVideoAnalysis, preset nano with a smaller hidden size; losses, balance, session and "
            "association of the package",
            "encoder": "EfficientNet-Lite0 from ImageNet, not kinetrack-nano's: stem and stages 1 to 5 frozen, stages "
            "6 and 7 (stride 32) trained",
            **{
                key: list(value) if isinstance(value, tuple) else value
                for key, value in asdict(_settings(quick)).items()
            },
            "weights_measured": "those after the last step; their number was fixed before these runs, but after "
            "runs of 120 steps had been measured on val",
            "threshold": "detection score with the best F1 on dev",
            "sequences_measured": f"those of mot/val whose people are {_LEAST_HEIGHT:.0%} of the frame high in the "
            "median or more: a pilot hardly found smaller ones, which these trainings do not see",
        }

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self.begin(inputs)
        encoder = FrozenEncoder(inputs.weights, self._settings.action_size, out_indices=MAPS)
        self._clips = {
            part: read_clips(inputs.data, part, encoder, inputs.cache, 2 if inputs.quick else None, count=_KEPT_FRAMES)
            for part in ("train", "val")
        }
        self.read_sequences(encoder)
        val = self._clips["val"]
        self._description = {
            "set": "JHMDB split 1, training half, and MOT sequences, by the committed lists",
            "train_clips": len(self._clips["train"]),
            "val_clips": len(val),
            "val_films": len({clip.film for clip in val}),
            **self.describe_sequences(),
            "weights": encoder.key,
            "films": [clip.film for clip in val],
            "pictures": self._describe_pictures(),
        }
        return self._description

    def begin(self, inputs: Inputs) -> None:
        """The settings of a run, and the sequences that belong to it.

        Raises:
            ValueError: no sequence of the dev list is there.
        """
        self._quick, self._inputs, self._settings = inputs.quick, inputs, _settings(inputs.quick)
        self._labels, self._sources = action_names(inputs.data), mot_sources(inputs.data, "train")
        dev = [_as_sequence(inputs.data, source) for source in mot_sources(inputs.data, "dev")]
        if not dev:
            raise ValueError(f"None of the sequences of the dev list lies below {inputs.data}.")
        self._wanted = {
            "train": [_as_sequence(inputs.data, source) for source in self._sources],
            "dev": [_shortened(item, _DEV_FRAMES) for item in dev],
            "val": [item for item in val_sequences(inputs.data, inputs.quick) if _has_large_people(item)],
        }

    def read_sequences(self, encoder: FrozenEncoder) -> None:
        """The sequences as an encoder sees them."""
        half, size = [0.5, 0.5, 0.5], dict(zip(("height", "width"), self._settings.sequence_size, strict=True))
        options = {"size": size, "frame_rate": 12.5, "image_mean": half, "image_std": half}
        processor, self._blank = KineTrackVideoProcessor(**options), BlankFrames(**options)
        self._sequences = {
            part: read_sequences(items, encoder, processor, self._inputs.cache) for part, items in self._wanted.items()
        }

    def describe_sequences(self) -> dict:
        """What the report says of them; after `read_sequences`."""
        return {
            "train_sequence_frames": sum(len(maps.times) for maps in self._sequences["train"]),
            "dev_sequence_frames": sum(len(maps.times) for maps in self._sequences["dev"]),
            **describe_sequences(self._wanted["val"], STRETCH),
        }

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        cell = self.cells[variant]
        known = {key: value for key, value in self._description.items() if not isinstance(value, list)}
        parts = [asdict(cell), seed, self.protocol(self._quick), known, torch.__version__]
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
        file = Path(self._inputs.cache) / "joint-cells" / f"{key}.json"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            used = time.process_time()
            measures = self._train(cell, seed)
            write_json_atomically(file, measures | {"minutes": round((time.process_time() - used) / 60, 2)})
        return json.loads(file.read_text(encoding="utf-8"))

    def start(self, seed: int) -> Start:
        """Where the trainings of a seed start from; after `prepare`."""
        weights = None if self._inputs.weights is None else str(self._inputs.weights)
        return Start(seed, weights, self._labels, self._settings.hidden_size)

    def measure_start(self, seed: int) -> dict:
        """What `measure_actions` says of a seed's model before it is trained; after `prepare`."""
        model = self.start(seed).build(TASKS)
        return measure_actions(model, attach_trained_stages(model), self._clips["val"], self._settings.action_frames)

    def _train(self, cell: JointCell, seed: int) -> dict:
        settings = self._settings
        model = self.start(seed).build(cell.tasks, cell.spatial, cell.temporal)
        stages = attach_trained_stages(model)
        looks = self.keeps_pictures and seed == 0
        pictures = [self._look(model, stages)] if looks else []
        learnt = train_jointly(model, stages, self._batches(cell, seed), settings, cell.learned, seed)
        pictures += [self._look(model, stages)] if looks else []
        found = {"training": learnt}
        if "actions" in cell.tasks:
            found["actions"] = measure_actions(model, stages, self._clips["val"], settings.action_frames)
        if "tracking" in cell.tasks:
            dev, val = self._sequences["dev"], self._sequences["val"]
            found["tracking"] = measure_tracking(model, stages, self._blank, dev, val)
        return found | ({"pictures": dict(zip(("before", "after"), pictures, strict=True))} if pictures else {})

    def _batches(self, cell: JointCell, seed: int) -> dict:
        settings, found = self._settings, {}
        if "actions" in cell.tasks:
            found["actions"] = ActionBatches(
                self._clips["train"], settings.action_clips, settings.action_frames, seed, cell.taught
            )
        if "tracking" in cell.tasks:
            found["tracking"] = SequenceBatches(
                self._sequences["train"],
                self._sources,
                settings.windows,
                settings.window_frames,
                settings.window_size,
                seed,
            )
        return found

    def _shown(self) -> list:
        """Val clips whose alpha is kept, spread evenly over the list."""
        val = self._clips["val"]
        return [val[int(place)] for place in np.linspace(0, len(val) - 1, _PICTURES + 2)[1:-1]]

    def _describe_pictures(self) -> list[dict]:
        """Where annotated people are where alpha is kept; the frames themselves may not be passed on."""
        found, settings = [], self._settings
        for clip in self._shown():
            box = clip.actor[spread_frames(settings.action_frames)(len(clip.actor), None)[settings.action_frames // 2]]
            boxes = [box.round(1).tolist()] if np.isfinite(box).all() else []
            found.append({"name": Path(clip.name).parent.name, "size": list(settings.action_size), "boxes": boxes})
        maps = self._sequences["val"][0]
        number = len(maps.times) // 2
        people = read_people(maps.sequence.folder)
        here = people[people[:, 0] == number + 1][:, 2:6] * maps.scale
        boxes = np.concatenate([here[:, :2], here[:, :2] + here[:, 2:]], axis=1)
        found.append(
            {
                "name": maps.sequence.folder.name,
                "size": list(maps.content),
                "boxes": boxes.round(1).tolist(),
            }
        )
        return found

    @torch.inference_mode()
    def _look(self, model, stages) -> list[list[list[float]]]:
        """Alpha where it is kept."""
        model.eval()
        frames, grids = self._settings.action_frames, []
        for clip in self._shown():
            batch = clip_batch([clip], spread_frames(frames))
            stages.give(batch.fine, batch.middle)
            grids.append(model(batch.blank).spatial_attention[0, frames // 2])
        maps = self._sequences["val"][0]
        row = slice(len(maps.times) // 2, len(maps.times) // 2 + 1)
        stages.give(maps.fine[row], maps.middle[row])
        height, width = (8 * side for side in maps.fine.shape[-2:])
        grids.append(model(torch.zeros(1, 1, 3, height, width)).spatial_attention[0, 0])
        return [[[round(float(value), 5) for value in line] for line in grid] for grid in grids]


def _settings(quick: bool) -> JointSettings:
    if not quick:
        return JointSettings()
    return replace(
        JointSettings(),
        steps=4,
        warmup_steps=1,
        action_clips=2,
        action_frames=3,
        action_size=(64, 96),
        windows=1,
        window_frames=2,
        window_size=(64, 96),
        sequence_size=(64, 96),
        hidden_size=16,
    )


def _as_sequence(root, source) -> Sequence:
    return Sequence(Path(root) / source.name, (source.first + 1, source.stop))


def _has_large_people(item: Sequence) -> bool:
    heights = read_people(item.folder)[:, 5]
    return bool(np.median(heights) >= _LEAST_HEIGHT * read_sequence_info(item.folder)["imHeight"])


def _shortened(item: Sequence, frames: int) -> Sequence:
    """Its first frames."""
    first, last = item.part or (1, length_of(item))
    return Sequence(item.folder, (first, min(last, first + frames - 1)))
