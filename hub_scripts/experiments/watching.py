"""What a model detects in sequences, and how sharp its temporal attention is meanwhile, kept on disk."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np

from ..ablation import ablated
from ..atomic_files import write_json_atomically
from ..detection_cache import SequenceDetections, detect_sequence, load_detections, save_detections
from ..evaluation_items import Sequence


def watch_sequences(
    model, processor, sequences: list[Sequence], memory: bool, cache: Path
) -> tuple[list[SequenceDetections], dict[str, list]]:
    """Runs the stream form over sequences, without association.

    Args:
        model: with a tracking head.
        processor: the model's.
        sequences: what to look at.
        memory: whether the model carries anything from frame to frame (see `ablated`, "reset").
        cache: folder; what this very model has watched before is read from there.

    Returns:
        Detections of every sequence; and by its name, per frame, `[entropy, newest]` of beta: relative to uniform, and
        its weight on the newest frame.
    """
    file = Path(cache) / f"watched-{_key(model, processor, sequences, memory)}.npz"
    attention_file = file.with_suffix(".json")
    if not (file.is_file() and attention_file.is_file()):
        attention: dict[str, list] = {}
        detected = []
        for item in sequences:
            series = attention[item.folder.name] = []

            def keep(result, series=series) -> None:
                series.append([round(value, 4) for value in sharpness_of(result.temporal_attention)])

            with contextlib.nullcontext() if memory else ablated(model, "reset"):
                detected.append(detect_sequence(model, processor, item, on_result=keep))
        save_detections(detected, file)
        write_json_atomically(attention_file, attention)
    return load_detections(sequences, file), json.loads(attention_file.read_text(encoding="utf-8"))


def sharpness_of(beta: np.ndarray) -> tuple[float, float]:
    """Entropy of beta relative to uniform, and its weight on the newest frame; `(W,)`, newest last."""
    weights = beta[beta > 0].astype(np.float64)
    entropy = float(-(weights * np.log(weights)).sum() / np.log(len(beta))) if len(beta) > 1 else 1.0
    return entropy, float(beta[-1])


def _key(model, processor, sequences: list[Sequence], memory: bool) -> str:
    key = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        key.update(name.encode() + tensor.cpu().numpy().tobytes())
    key.update(json.dumps([processor.to_dict(), memory], sort_keys=True, default=str).encode())
    for sequence in sequences:
        size = (sequence.folder / "gt" / "gt.txt").stat().st_size
        key.update(f"{sequence.folder.resolve()}{sequence.part}{size}".encode())
    return key.hexdigest()[:16]
