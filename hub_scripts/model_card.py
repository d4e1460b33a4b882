"""Writes the model card of a checkpoint from what lies beside it, so that no figure in it is typed.

Read are `config.json`, `video_preprocessor_config.json` and, if there, `evaluation.json`, `calibration.json` and
`benchmark.json`; and `card_notes.md` for what no file knows: its front matter has the licence, the training data and
the names of the evaluated data, its sections are appended to the card's sections of the same headings.
"""

import json
import os
import re
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from .atomic_files import write_atomically
from .benchmark_report import device_name, model_input
from .metrics.evaluation_report import ABLATION_NOTE, ablation_table
from .model_card_text import CITATION, HEADINGS, PRIVACY, USE

NOTES = "card_notes.md"
# What remote code imports; the test of the bundle runs without anything else of KineTrack.
REMOTE_PACKAGES = ("transformers", "torch", "torchvision", "av", "scipy", "timm")
_TRACKING_METRICS = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1")
_TRACKING_COUNTS = ("IDSW", "Frag", "FP", "FN")


def write_card(checkpoint: str | os.PathLike, allow_untrained: bool = False) -> Path:
    """Writes `README.md` into a checkpoint's folder; see `model_card` for arguments and what it raises."""
    path = Path(checkpoint) / "README.md"
    write_atomically(path, model_card(checkpoint, allow_untrained))
    return path


def model_card(checkpoint: str | os.PathLike, allow_untrained: bool = False) -> str:
    """The card of a checkpoint, with valid `model-index` metadata.

    Args:
        checkpoint: folder of a trained model.
        allow_untrained: accepts a model whose `config.trained` is False; its card says so first.

    Returns:
        Markdown with YAML front matter; the same files give the same text.

    Raises:
        FileNotFoundError: no configuration or no video processor.
        ValueError: an untrained model, or notes that have no place in the card.
    """
    folder = Path(checkpoint).resolve()
    raw, processor = _read(folder, "config.json", True), _read(folder, "video_preprocessor_config.json", True)
    if raw.get("model_type") != "kinetrack":
        raise ValueError(f"{folder} holds a {raw.get('model_type')!r} model, not a KineTrack model.")
    if not raw.get("trained") and not allow_untrained:
        raise ValueError(
            f"The model in {folder} has not been trained, so there is nothing to say of it yet. Train it with "
            "`kinetrack train`, or pass --allow-untrained (allow_untrained=True) for a card that says so."
        )

    from ..configuration.configuration_kinetrack import KineTrackConfig

    config = KineTrackConfig.from_dict(raw)
    facts, notes = read_notes(folder / NOTES)
    evaluation, calibration = _read(folder, "evaluation.json"), _read(folder, "calibration.json")
    name = facts.get("model_name", folder.name)
    canvas = (processor["size"]["height"], processor["size"]["width"])
    parameters, gflops = measure(config, canvas)
    body = {
        "Architecture": _architecture(config, parameters, gflops, canvas),
        "How to use": USE.format(name=name, packages=" ".join(REMOTE_PACKAGES)),
        "Labels": _labels(config),
        "Training": _training(facts),
        "Results": _results(config, evaluation, calibration, facts.get("evaluation", {})),
        "Speed": _speed(_read(folder, "benchmark.json")),
        "Intended use and limits": _limits(config, evaluation),
        "Bias and privacy": PRIVACY,
        "Citation": CITATION,
    }
    opening = (
        f"One {'bidirectional' if config.bidirectional else 'causal'} video model with {parameters / 1e6:.1f} M "
        f"parameters that {_abilities(config)}."
    )
    warning = "" if config.trained else "**This model has not been trained: its outputs are noise.**\n\n"
    sections = [f"# {name}\n\n{warning}{opening}"]
    for heading in HEADINGS:
        text = "\n\n".join(part for part in (body[heading].strip(), notes.get(heading, "").strip()) if part)
        if text:
            sections.append(f"## {heading}\n\n{text}")
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="video-classification",
        tags=["kinetrack", "video", "action-recognition", "multi-object-tracking", "streaming", "arxiv:2507.22421"],
        model_name=name,
        eval_results=evaluation_results(evaluation, facts.get("evaluation", {})) or None,
        **{key: facts[key] for key in ("license", "license_name", "license_link", "datasets") if key in facts},
    )
    text = f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"
    ModelCard(text)  # reads its metadata back, model-index included, and raises what is wrong with it
    return text


def read_notes(path: Path) -> tuple[dict, dict[str, str]]:
    """The facts (front matter) and the sections by heading of `card_notes.md`; both are empty without the file.

    Raises:
        ValueError: text before the first heading, or a heading that the card does not have.
    """
    if not path.is_file():
        return {}, {}
    text = path.read_text(encoding="utf-8")
    front = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    facts = yaml.safe_load(front[1]) or {} if front else {}
    first, *parts = re.split(r"^## +(.+)$", text[front.end() :] if front else text, flags=re.MULTILINE)
    sections = dict(zip((heading.strip() for heading in parts[::2]), parts[1::2], strict=True))
    strange = sorted(set(sections) - set(HEADINGS))
    if first.strip() or strange:
        wrong = f"the heading {strange[0]!r}" if strange else "text before its first heading"
        raise ValueError(f"{path} has {wrong}; expected sections (`## Heading`) among: {', '.join(HEADINGS)}.")
    return facts, sections


def measure(config, canvas: tuple[int, int]) -> tuple[int, float]:
    """Parameters, and GFLOPs of one frame (batch 1, `canvas` is height and width in pixels), without running anything.

    Counted by `torch.utils.flop_counter`, two for each multiplication with addition in convolutions and products of
    matrices, on tensors without data.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from ..modeling.modeling_kinetrack import KineTrackForVideoAnalysis

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        model = KineTrackForVideoAnalysis(config).eval()
        model(pixel_values_videos=torch.empty(1, 1, 3, *canvas))  # (B, T, 3, H, W)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 1e9


def evaluation_results(evaluation: dict, named: dict) -> list[EvalResult]:
    """The scores of `evaluation.json` as `model-index` entries.

    Args:
        evaluation: report of `evaluate`.
        named: what the parts are called, by group (`actions`, further groups), and `split`.
    """
    split = named.get("split")
    results = []

    def add(task: str, data: str, metric: str, title: str, value: float) -> None:
        slug = re.sub(r"[^a-z0-9]+", "-", data.lower()).strip("-")
        results.append(
            EvalResult(
                task_type=task, dataset_type=slug, dataset_name=data, dataset_split=split,
                metric_type=metric, metric_name=title, metric_value=round(value, 2),
            )
        )  # fmt: skip

    for sequence, scores in _sequences(evaluation).items():
        for metric in ("HOTA", "MOTA", "MOTP", "IDF1"):
            add("multi-object-tracking", sequence, metric.lower(), metric, scores[metric])
    for group, scores in evaluation.get("actions", {}).items():
        add("video-classification", named.get(group, group), "accuracy", "top-1 accuracy", scores["top1"])
        if len(scores["names"]) > 5:
            add("video-classification", named.get(group, group), "top-5-accuracy", "top-5 accuracy", scores["top5"])
    return results


def _read(folder: Path, name: str, needed: bool = False) -> dict:
    path = folder / name
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    if needed:
        raise FileNotFoundError(f"{folder} is not a checkpoint: there is no {name}.")
    return {}


def _sequences(evaluation: dict) -> dict[str, dict]:
    return {name: scores for name, scores in evaluation.get("tracking", {}).items() if name != "COMBINED"}


def _table(header: list[str], rows: list[list[str]]) -> str:
    right = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, right, *rows])


def _abilities(config) -> str:
    abilities = []
    if config.tracking_head:
        abilities.append(f"tracks objects ({', '.join(config.object_classes)})")
    if config.classification_head:
        groups = "".join(f", also {' or '.join(names)}" for names in config.label_groups.values())
        abilities.append(f"recognises {config.num_labels} actions" + (f" ({groups[2:]})" if groups else ""))
    if len(abilities) == 2:
        abilities.append("says which tracked object does what")
    return ", ".join(abilities[:-1]) + (" and " if len(abilities) > 1 else "") + abilities[-1]


def _backbone(config) -> str:
    backbone = config.backbone_config
    return getattr(backbone, "backbone", None) or backbone.model_type


def _architecture(config, parameters: int, gflops: float, canvas: tuple[int, int]) -> str:
    from ..configuration.configuration_kinetrack import PRESETS, KineTrackConfig

    window = config.attention_window
    rows = [
        ["frame encoder", f"`{_backbone(config)}`, feature maps at strides 8, 16 and 32"],
        ["motion", f"differences between frames, {config.motion_channels} channels" if config.motion_channels else "–"],
        ["temporal propagation", f"{config.num_propagation_layers} layers, {config.hidden_size} channels, stride 16"],
        ["attention window", f"{window} ticks at {config.frame_rate:g} Hz, {window / config.frame_rate:.1f} s"]
        if window
        else ["attention window", "all of the past"],
        [
            "poses",
            f"{len(config.keypoints)} keypoints from stride 8, a network over time of {config.pose_channels} channels",
        ]
        if config.keypoints
        else ["poses", "–"],
        *(
            [
                [
                    "region statistics",
                    f"of {config.cell_channels} channels at stride 32, with a linear layer of their own",
                ]
            ]
            if config.statistics_channels
            else []
        ),
        ["tracking head", f"centres at stride 8, embeddings of {config.embedding_size}"],
        ["parameters", f"{parameters / 1e6:.2f} M"],
        ["GFLOPs a frame", f"{gflops:.2f} at a model input of {canvas[0]}×{canvas[1]}"],
    ]
    presets = []
    for preset in sorted(PRESETS):
        count, flops = measure(KineTrackConfig.from_preset(preset), canvas)
        presets.append([f"`kinetrack-{preset}`", f"{count / 1e6:.2f}", f"{flops:.2f}"])
    return (
        "arXiv 2507.22421: a 2D encoder, parallel temporal propagation, hierarchical attention in space and time, "
        "an action head and a centre-based tracking head.\n\n"
        + _table(["", "this model"], rows).replace("---:", "---")
        + "\n\nThe presets as they stand in the code, for comparison:\n\n"
        + _table(["preset", "parameters, M", "GFLOPs a frame"], presets)
        + "\n\nGFLOPs are those of `torch.utils.flop_counter`: two for each multiplication with addition."
    )


def _labels(config) -> str:
    lines = []
    if config.classification_head:
        names = [config.id2label[index] for index in range(config.num_labels)]
        lines.append(f"Actions ({len(names)}): {', '.join(f'`{name}`' for name in names)}.")
        lines += [
            f"Group `{group}`, scored for itself: {', '.join(f'`{name}`' for name in members)}."
            for group, members in config.label_groups.items()
        ]
        lines.append(f'An action below a probability of {config.action_threshold:g} is called "uncertain".')
    if config.tracking_head:
        lines.append(
            f"Objects: {', '.join(f'`{name}`' for name in config.object_classes)}, from a score of "
            f"{config.detection_threshold:g}."
        )
    return "\n\n".join(lines)


def _training(facts: dict) -> str:
    data = facts.get("training_data")
    if not data:
        return f"The training data and their licences are not recorded; `{NOTES}` beside the checkpoint is the place."
    rows = [[item["name"], item["used"], item["licence"]] for item in data]
    return _table(["data", "part used", "licence"], rows).replace("---:", "---")


def _results(config, evaluation: dict, calibration: dict, named: dict) -> str:
    parts = []
    if evaluation and {"command", "date"} <= set(named):
        parts.append(f"`{named['command']}`, {named['date']}; everything is in the checkpoint's `evaluation.json`.")
    if sequences := _sequences(evaluation):
        rows = [
            [
                name,
                *(f"{scores[key]:.1f}" for key in _TRACKING_METRICS),
                *(str(scores[key]) for key in _TRACKING_COUNTS),
            ]
            for name, scores in evaluation["tracking"].items()
            if name in sequences or len(sequences) > 1
        ]
        parts.append(_table(["sequence", *_TRACKING_METRICS, *_TRACKING_COUNTS], rows))
        parts.append("Scored by TrackEval; MOTP is the mean IoU of matches, higher is better.")
    if groups := evaluation.get("actions"):
        rows = [
            [
                named.get(group, group),
                str(scores["clips"]),
                f"{scores['top1']:.1f} %",
                f"{scores['top5']:.1f} %" if len(scores["names"]) > 5 else "–",
                f"{scores['mean_class_accuracy']:.1f} %",
                f"{scores['expected_calibration_error']:.2f}",
            ]
            for group, scores in groups.items()
        ]
        parts.append(_table(["clips", "number", "top-1", "top-5", "mean over classes", "calibration error"], rows))
    if "ablations" in evaluation:
        parts += [f"Without parts of the model. {ABLATION_NOTE}", _table(*ablation_table(evaluation))]
    chosen = ("action_temperature", "action_threshold")
    if "dev_top1" in calibration and all(calibration[name] == getattr(config, name) for name in chosen):
        parts.append(
            f'On the {calibration["dev_clips"]} clips that temperature and the threshold of "uncertain" were chosen '
            f"by, top-1 is {100 * calibration['dev_top1']:.1f} %, and {100 * calibration['dev_answered']:.1f} % of the "
            f"clips get an answer{_precision(calibration)}."
        )
    return "\n\n".join(parts) or "This checkpoint has not been evaluated."


def _precision(calibration: dict) -> str:
    precision = calibration.get("dev_precision")
    return (
        ""
        if precision is None
        else f"; the threshold is the lowest at which {100 * precision:.0f} % of these are right"
    )


def _speed(benchmark: dict) -> str:
    if not benchmark.get("speed"):
        return ""
    machine, stages = benchmark["machine"], ("decode", "preprocess", "model", "association")
    rows = [
        [
            found["video"],
            model_input(found),
            found["backend"],
            f"{found['frames_per_second']:.1f}",
            *(f"{found['milliseconds'][stage]:.1f}" for stage in stages),
        ]
        for found in benchmark["speed"]
    ]
    return (
        _table(["video", "model input", "backend", "frames a second", *(f"{stage}, ms" for stage in stages)], rows)
        + f"\n\n{device_name(machine)}, {machine['threads']} threads, PyTorch "
        f"{machine['torch']}, {machine['date'][:10]}; `kinetrack benchmark`. Where several frames are in work at once "
        "(ONNX Runtime, OpenVINO), `model` is how long one takes from begin to end, and frames a second the throughput."
    )


def _limits(config, evaluation: dict) -> str:
    lines = [
        "For research on video models, and for counting, following and describing people in footage one may analyse.",
        f"- Objects: {', '.join(config.object_classes)} and nothing else. Identities are per video.",
    ]
    scores = evaluation.get("actions", {}).get("actions")
    if scores:
        missed = {name: value for name, value in scores["per_class"].items() if value < 15}
        if missed:
            listed = ", ".join(f"`{name}` ({value:.0f} %)" for name, value in sorted(missed.items()))
            lines.append(f"- Mostly missed in the evaluation: {listed}.")
    if config.classification_head:
        lines.append(
            f'- It knows {config.num_labels} actions. Anything else is forced into them unless called "uncertain". '
            "A label is a guess and no evidence of what somebody did."
        )
    return "\n".join([lines[0], "", *lines[1:]])
