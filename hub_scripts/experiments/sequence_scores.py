"""Tracking scores of whole sequences, and of stretches of them that intervals are drawn over."""

from pathlib import Path

import numpy as np

from ..evaluation_items import Sequence, find_items, read_sequence_info

STRETCH = 100  # frames that are drawn together
KEYS = ("HOTA", "IDF1", "MOTA", "IDSW")


def val_sequences(root, quick: bool = False) -> list[Sequence]:
    """The sequences of `mot/val`; their first 60 frames alone in a quick run.

    Raises:
        ValueError: there is none.
    """
    folder = Path(root) / "mot" / "val"
    sequences = [item for item in find_items(folder) if isinstance(item, Sequence)] if folder.is_dir() else []
    if not sequences:
        raise ValueError(f"No sequences at {folder}. Expected MOTChallenge folders, see `kinetrack evaluate --help`.")
    if quick:
        return [Sequence(item.folder, (1, min(60, length_of(item)))) for item in sequences]
    return sequences


def describe_sequences(sequences: list[Sequence], stretch: int = STRETCH) -> dict:
    """What a report says of them: their lengths, and the names of their stretches in the order of `score_sequences`."""
    return {
        "sequences": ", ".join(f"{item.folder.name} ({length_of(item)} frames)" for item in sequences),
        "stretches": [
            f"{item.folder.name} {first}-{last}" for item in sequences for first, last in stretches_of(item, stretch)
        ],
    }


def length_of(item: Sequence) -> int:
    """Frames up to the end of the sequence, or of its part."""
    return item.part[1] if item.part else int(read_sequence_info(item.folder)["seqLength"])


def stretches_of(item: Sequence, stretch: int = STRETCH) -> list[tuple[int, int]]:
    """First and last frames of stretches of about so many frames."""
    length = length_of(item)
    edges = np.linspace(0, length, max(1, round(length / stretch)) + 1).round().astype(int)
    return [(int(low) + 1, int(high)) for low, high in zip(edges, edges[1:], strict=False)]


def score_sequences(rows: dict[str, np.ndarray], sequences: list[Sequence], stretch: int = STRETCH) -> dict:
    """TrackEval's scores.

    Args:
        rows: by sequence, tracks in MOTChallenge form.
        sequences: with ground truth.
        stretch: frames that are scored together.

    Returns:
        `whole`, by sequence and for all of them (`COMBINED`), HOTA, IDF1, MOTA and IDSW; and `stretches`, by score, one
        number for every stretch.
    """
    from ..metrics.mot_metrics import score_tracks

    folders = {item.folder.name: item.folder for item in sequences}
    whole = score_tracks(rows, folders, frames={item.folder.name: item.part for item in sequences if item.part})
    stretches: dict[str, list] = {key: [] for key in KEYS if key != "MOTA"}
    for item in sequences:
        name = item.folder.name
        for part in stretches_of(item, stretch):
            found = score_tracks({name: rows[name]}, {name: item.folder}, frames={name: part})[name]
            for key, values in stretches.items():
                values.append(found[key])
    return {
        "whole": {name: {key: scores[key] for key in KEYS} for name, scores in whole.items()},
        "stretches": stretches,
    }
