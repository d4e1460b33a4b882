"""What a result says of the video and of the model that it comes from, as plain Python values."""

import os
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ..processing.findings_kinetrack import name_action, rank

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


def describe_frame(result, model: dict[str, Any], top_k: int | None = None) -> dict[str, Any]:
    """One frame's result as plain Python values, in the words of `VideoFindings.to_dict`.

    Args:
        result: a `KineTrackFrameResult`.
        model: from `describe_model`.
        top_k: most actions and labels in every list; all when None.
    """
    names, threshold = model["actions"], model["action_threshold"]
    classes = model["object_classes"]
    rows = result.actions if result.actions is not None else [None] * len(result.track_ids)
    columns = (result.track_ids.tolist(), result.labels.tolist(), result.boxes.tolist(), result.scores.tolist(), rows)
    return {
        "frame_index": int(result.frame_index),
        "time": float(result.time),
        "updated": bool(result.updated),
        **_describe_actions(result.clip_action, names, threshold, top_k),
        "groups": {
            group: [{"label": name, "probability": value} for name, value in rank(row, model["groups"][group])[:top_k]]
            for group, row in result.group_actions.items()
        },
        "tracks": [
            {
                "id": track_id,
                "class": classes[label],
                "box": box,
                "score": score,
                **_describe_actions(row, names, threshold, top_k),
            }
            for track_id, label, box, score, row in zip(*columns, strict=True)
        ],
    }


def _describe_actions(probabilities, names: list[str], threshold: float, top_k: int | None) -> dict[str, Any]:
    if probabilities is None:
        return {"action": None, "confidence": None, "actions": []}
    action, confidence = name_action(probabilities, names, threshold)
    ranked = rank(probabilities, names)[:top_k]
    actions = [{"action": name, "probability": value} for name, value in ranked]
    return {"action": action, "confidence": confidence, "actions": actions}


def mot_line(frame_index: int, track_id: int, box, score: float) -> str:
    """One box in MOTChallenge format: `frame, id, left, top, width, height, score, -1, -1, -1`.

    Args:
        frame_index: number of the frame in the source, from 0; the format counts from 1.
        track_id: identity.
        box: xyxy, pixels of the original frame.
        score: of the detection.
    """
    x1, y1, x2, y2 = box
    return f"{frame_index + 1},{track_id},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n"
