"""Everything a training run can be told, read from YAML and from `key=value` on the command line."""

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml

FINETUNING = Path(__file__).parent / "configs" / "finetune.yaml"
_SHORT_FOR = {"model": "checkpoint", "data": "path", "captions": "pairs"}


@dataclass
class ModelSettings:
    """Which model is trained.

    Attributes:
        preset: `nano` or `base`, for a model from scratch.
        checkpoint: folder or Hub id to go on from, instead of a preset.
        backbone_weights: file, folder or Hub id of pretrained weights for the backbone, see `load_backbone_weights`.
        config: overrides of `KineTrackConfig` fields.
        finetune: what of a checkpoint is learned: `full`, only the `head` of each task with data, or `lora`, the heads
            and low-rank updates of everything else (arXiv 2106.09685; needs `peft`).
        lora_rank: rank of these updates.
    """

    preset: str = "nano"
    checkpoint: str | None = None
    backbone_weights: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    finetune: str = "full"
    lora_rank: int = 8


@dataclass
class StreamSettings:
    """One of the two streams of clips a step draws from.

    Attributes:
        batch_size: clips a step and process; 0 switches the stream off.
        num_frames: frames a clip, T.
        size: (height, width) of the model input, multiples of 32.
        path: data of one's own for this task; null takes `data.path`.
        layout: of clips, one of `kinetrack.hub_scripts.data.layouts.LAYOUTS`; `auto` looks.
        fold: which official split of UCF-101 or HMDB-51, 1 to 3.
        half: learn from the first half of every tracking sequence and judge on the second.
        walkers: share of clips of tracking sequences that also teach `walk` of somebody who goes somewhere, and that
            nobody fights. Off: in the one run that tried it, 300 steps cost seven of 71 dev clips their right action.
    """

    batch_size: int = 1
    num_frames: int = 8
    size: tuple[int, int] = (288, 512)
    path: str | None = None
    layout: str = "auto"
    fold: int = 1
    half: bool = False
    walkers: float = 0.0


@dataclass
class DataSettings:
    """Where the clips come from.

    Attributes:
        root: the data of kinetrack-nano, with `mot/` and `actions/`; not looked at when there is a `path`.
        splits: folder with `val.txt` and `dev.txt`, what of `root` is held out; null takes the committed lists.
        path: data of one's own: tracking sequences (`data/sequences.py`), labelled clips (`data/layouts.py`), or both.
        dev_fraction: share of one's own data that is set aside to judge the model by, where they have no such part.
        cache: folder for decoded frames: quick, but every frame takes 3 bytes a pixel; null decodes again and again.
        workers: processes that prepare clips.
        pin_memory: copy batches from page-locked memory, without the GPU waiting; null does so where there is a GPU.
        augment: vary the clips; false shows them as they are.
        tracking: MOT-format sequences.
        actions: labelled clips.
    """

    root: str = "data"
    splits: str | None = None
    path: str | None = None
    dev_fraction: float = 0.1
    cache: str | None = "runs/cache"
    workers: int = 1
    pin_memory: bool | None = None
    augment: bool = True
    tracking: StreamSettings = field(default_factory=StreamSettings)
    actions: StreamSettings = field(default_factory=lambda: StreamSettings(batch_size=4, size=(224, 288)))


@dataclass
class CaptionSettings:
    """A text decoder on the tokens of a frozen model, see `captioning/captioner.py`.

    Attributes:
        pairs: a CSV file with `path`, `sentence` and perhaps `question`; with it a decoder is trained and nothing else.
            Of the run's other settings those count that say where: `output`, `seed`, `model.checkpoint`, `data.cache`
            and `data.dev_fraction`.
        sees: which tokens it attends to: those of `frames`, of `tracks`, or `both`.
        hidden_size: of the decoder, a multiple of 4 (its heads).
        layers: of the decoder.
        token_dropout: of the tokens' features.
        steps: optimiser steps.
        batch_size: videos a step.
        texts: of each video in a step, drawn from what is said of it.
        evaluate_every: steps between looks at the dev videos; the best of what was seen there is kept.
        learning_rate: the highest, after a warm-up of as many steps; a cosine brings it to zero.
        weight_decay: of AdamW.
        label_smoothing: of the words, since tokens of videos that the model was trained on are surer than others.
    """

    pairs: str | None = None
    sees: str = "both"
    hidden_size: int = 96
    layers: int = 2
    token_dropout: float = 0.3
    steps: int = 200
    batch_size: int = 32
    texts: int = 2
    evaluate_every: int = 40
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    label_smoothing: float = 0.1


@dataclass
class TrainConfig:
    """A training run.

    Attributes:
        output: folder for checkpoints, logs and the trained model.
        seed: of weights, order and augmentation.
        steps: optimiser steps.
        accumulation: batches of every stream that make one step, a process; `accelerate launch` may say it instead.
        warmup_steps: linear warm-up; a cosine to zero follows.
        learning_rate: of the new layers.
        backbone_learning_rate: of the backbone's last stage.
        layer_decay: rate of a backbone's stage relative to the next one's; 1 has all of them learn alike.
        frozen_stages: leading stages of the backbone that stay as they are (0 to 5; the stem counts as the first).
        weight_decay: AdamW; not on biases, norms and gates' biases.
        max_grad_norm: gradient clipping.
        ema_decay: of the exponential mean of the weights, which is what is evaluated and saved.
        learned_balance: weigh the loss terms by learned uncertainty (arXiv 1705.07115) instead of fixed factors.
        mixed_precision: `no`, `fp16` or `bf16`; null takes what `accelerate launch` was told.
        gradient_checkpointing: compute the encoder's and the propagation's activations twice instead of keeping them.
        compile: compile the encoder with this backend of `torch.compile`, such as `inductor`; null does not.
        checkpoint_minutes: a resumable checkpoint is written this often.
        checkpoint_steps: and every so many steps; 0 only by time.
        evaluate_every: steps between evaluations on the dev clips; 0 evaluates only at the end.
        best_metric: the model in `OUTPUT/best` is the one with the highest value of this one of the `dev_...` figures
            of the log. null: `dev_top1`, without actions `dev_ap50`.
        log_every: steps between lines of the log.
        picture_every: steps between pictures in TensorBoard; 0 draws none.
        model: see `ModelSettings`.
        data: see `DataSettings`.
        captions: see `CaptionSettings`.
    """

    output: str = "runs/kinetrack"
    seed: int = 0
    steps: int = 1000
    accumulation: int = 1
    warmup_steps: int = 50
    learning_rate: float = 1e-3
    backbone_learning_rate: float = 2e-4
    layer_decay: float = 1.0
    frozen_stages: int = 2
    weight_decay: float = 0.05
    max_grad_norm: float = 5.0
    ema_decay: float = 0.995
    learned_balance: bool = True
    mixed_precision: str | None = None
    gradient_checkpointing: bool = False
    compile: str | None = None
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int = 0
    evaluate_every: int = 0
    best_metric: str | None = None
    log_every: int = 10
    picture_every: int = 200
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    captions: CaptionSettings = field(default_factory=CaptionSettings)

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
        _spell_out(settings)
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
        given = yaml.safe_load(value)
        if key in _SHORT_FOR and isinstance(given, str):
            place.setdefault(key, {})[_SHORT_FOR[key]] = given
        else:
            place[last] = given
    return _build(TrainConfig, settings, "")


def split_arguments(arguments: list[str]) -> tuple[str | os.PathLike, list[str]]:
    """Takes `[CONFIG.yaml] [KEY=VALUE ...]` apart; without a file it is the settings for fine-tuning.

    Raises:
        ValueError: neither a file nor `model=`, so that there is nothing to start from.
    """
    if arguments and ("=" not in arguments[0] or os.path.isfile(arguments[0])):
        return arguments[0], arguments[1:]
    if not any(argument.startswith(("model=", "model.")) for argument in arguments):
        raise ValueError(
            "Give a YAML file with settings, or what to fine-tune and on what: "
            "kinetrack train model=kinetrack-nano data=FOLDER."
        )
    return FINETUNING, arguments


def _spell_out(settings: dict[str, Any]) -> None:
    """`model: NAME` and `data: PATH` name the most important setting of their section."""
    for section, name in _SHORT_FOR.items():
        if isinstance(settings.get(section), str):
            settings[section] = {name: settings[section]}


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
        elif value is None and type(None) in get_args(fields[name].type):
            values[name] = None
        elif isinstance(current, bool) or current is None or isinstance(current, dict | str):
            kinds = [kind for kind in get_args(fields[name].type) if kind is not type(None)] if current is None else []
            kinds = kinds or [type(current)]
            if value is False and kinds == [str]:
                value = "no"  # YAML 1.1 takes the word for false
            if not isinstance(value, tuple(kinds)):
                raise ValueError(f"{prefix}{name} must be {kinds[0].__name__}, got {value!r}.")
            values[name] = value
        else:
            try:
                values[name] = type(current)(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{prefix}{name} must be {type(current).__name__}, got {value!r}.") from error
    return dataclasses.replace(default, **values)
