"""Everything a training run can be told, read from YAML and from `key=value` on the command line."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass
class ModelSettings:
    """Which model is trained.

    Attributes:
        preset: `nano` or `base`, for a model from scratch.
        checkpoint: folder or Hub id to go on from, instead of a preset.
        backbone_weights: file, folder or Hub id of pretrained weights for the backbone, see `load_backbone_weights`.
        config: overrides of `KineTrackConfig` fields.
    """

    preset: str = "nano"
    checkpoint: str | None = None
    backbone_weights: str | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass
class StreamSettings:
    """One of the two streams of clips a step draws from.

    Attributes:
        batch_size: clips a step and process; 0 switches the stream off.
        num_frames: frames a clip, T.
        size: (height, width) of the model input, multiples of 32.
    """

    batch_size: int = 1
    num_frames: int = 8
    size: tuple[int, int] = (288, 512)


@dataclass
class DataSettings:
    """Where the clips come from.

    Attributes:
        root: folder as described in `hub_scripts/data`.
        cache: folder for decoded frames.
        workers: processes that prepare clips.
        tracking: MOT-format sequences.
        actions: labelled clips.
    """

    root: str = "data"
    cache: str = "runs/cache"
    workers: int = 1
    tracking: StreamSettings = field(default_factory=StreamSettings)
    actions: StreamSettings = field(default_factory=lambda: StreamSettings(batch_size=4, size=(224, 288)))


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        output: folder for checkpoints, logs and the trained model.
        seed: of weights, order and augmentation.
        steps: optimiser steps.
        warmup_steps: linear warm-up; a cosine to zero follows.
        learning_rate: of the new layers.
        backbone_learning_rate: of the backbone.
        frozen_stages: leading stages of the backbone that stay as they are (0 to 5; the stem counts as the first).
        weight_decay: AdamW; not on biases, norms and gates' biases.
        max_grad_norm: gradient clipping.
        ema_decay: of the exponential mean of the weights, which is what is evaluated and saved.
        learned_balance: weigh the loss terms by learned uncertainty (arXiv 1705.07115) instead of fixed factors.
        mixed_precision: `no`, `fp16` or `bf16`.
        checkpoint_minutes: a resumable checkpoint is written this often.
        evaluate_every: steps between evaluations on the dev list; 0 evaluates only at the end.
        log_every: steps between lines of the log.
        model: see `ModelSettings`.
        data: see `DataSettings`.
    """

    output: str = "runs/kinetrack"
    seed: int = 0
    steps: int = 1000
    warmup_steps: int = 50
    learning_rate: float = 1e-3
    backbone_learning_rate: float = 2e-4
    frozen_stages: int = 2
    weight_decay: float = 0.05
    max_grad_norm: float = 5.0
    ema_decay: float = 0.995
    learned_balance: bool = True
    mixed_precision: str = "no"
    checkpoint_minutes: float = 5.0
    evaluate_every: int = 0
    log_every: int = 10
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, as in the YAML file."""
        return dataclasses.asdict(self)


def load_train_config(path: str | os.PathLike | None = None, overrides: list[str] | None = None) -> TrainConfig:
    """Reads a run's settings.

    Args:
        path: YAML file; the defaults when None.
        overrides: `key=value` with dots for nesting, such as `data.actions.batch_size=2`; values are YAML.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a key that does not exist, or a value of the wrong type.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no training configuration at {path}.")
        with open(path, encoding="utf-8") as file:
            settings = yaml.safe_load(file) or {}
        if not isinstance(settings, dict):
            raise ValueError(f"{path} must hold `key: value` lines, got {type(settings).__name__}.")
    for override in overrides or []:
        key, equals, value = override.partition("=")
        if not equals:
            raise ValueError(f"Expected key=value, got {override!r}.")
        *parents, last = key.split(".")
        place = settings
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ValueError(f"{override!r}: {parent!r} is a value, not a section.")
        place[last] = yaml.safe_load(value)
    return _build(TrainConfig, settings, "")


def _build(cls, settings: dict[str, Any], prefix: str):
    """Makes a (nested) dataclass and names the offending key when it cannot."""
    fields = {item.name: item for item in dataclasses.fields(cls)}
    unknown = sorted(set(settings) - set(fields))
    if unknown:
        raise ValueError(f"Unknown setting {prefix}{unknown[0]}. Known here: {', '.join(sorted(fields))}.")
    default = cls()
    values = {}
    for name, value in settings.items():
        current = getattr(default, name)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise ValueError(f"{prefix}{name} is a section, got {value!r}.")
            # A stream's own defaults (those of `current`) hold where nothing is said.
            values[name] = _build(type(current), dataclasses.asdict(current) | value, f"{prefix}{name}.")
        elif isinstance(current, bool) or current is None or isinstance(current, dict | str):
            if current is not None and not isinstance(value, type(current)):
                raise ValueError(f"{prefix}{name} must be {type(current).__name__}, got {value!r}.")
            values[name] = value
        else:
            try:
                values[name] = type(current)(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{prefix}{name} must be {type(current).__name__}, got {value!r}.") from error
    return dataclasses.replace(default, **values)
