"""What a result says of the video and of the model that it comes from, as plain Python values."""

import os
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

# Frames that carry no times are taken to be at this rate, Hz.
ASSUMED_FRAME_RATE = 25.0


def source_name(source) -> str:
    """File name of a video; "video" for bytes and frames."""
    if hasattr(source, "read"):
        source = source.name if isinstance(getattr(source, "name", None), str) else "video"
    if not isinstance(source, str | os.PathLike):
        return "video"
    text = os.fspath(source)
    if "://" in text:
        return PurePosixPath(unquote(urlsplit(text).path)).name or "video"
    return Path(text).name or Path(text).resolve().name or "video"


def describe_frames(fps: float | None, count: int | None = None) -> dict[str, Any]:
    """What is known of frames in memory; their size is filled in when the first one comes.

    Args:
        fps: their rate, `ASSUMED_FRAME_RATE` when None.
        count: how many, None when nobody knows.
    """
    rate = float(fps or ASSUMED_FRAME_RATE)
    return {
        "name": "video",
        "width": None,
        "height": None,
        "frame_rate": rate,
        "duration": None if count is None else count / rate,
        "num_frames": count,
        "has_audio": False,
        "codec": None,
        "rotation": 0,
    }


def describe_model(name: str, config, task: str = "both") -> dict[str, Any]:
    """What a result has to know of its model.

    Args:
        name: of the model.
        config: its `KineTrackConfig`.
        task: of the run; for `"tracking"` there are no actions.
    """
    labels = {int(index): label for index, label in config.id2label.items()}
    with_actions = task != "tracking"
    return {
        "name": name,
        "trained": bool(config.trained),
        "actions": [labels[index] for index in sorted(labels)] if with_actions else [],
        "groups": {group: list(names) for group, names in (config.label_groups or {}).items()} if with_actions else {},
        "object_classes": list(config.object_classes),
        "action_threshold": float(config.action_threshold),
        "frame_rate": float(config.frame_rate),
        "attention_window": config.attention_window,
    }


def describe_settings(session, task: str, fps: float | None, size) -> dict[str, Any]:
    """How a session was run.

    Args:
        session: a `KineTrackSession`.
        task: as it was given to the session.
        fps: as it was given to `KineTrackSession.run`.
        size: as it was given to the session.
    """
    return {
        "task": task,
        "fps": fps,
        "threshold": float(session.threshold),
        "size": None if size is None else list(size),
        "device": str(session.model.device),
    }
