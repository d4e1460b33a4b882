"""`VideoAnalysis`: what was seen in one video, in memory that grows only with the number of boxes."""

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = "kinetrack.analysis"
SCHEMA_VERSION = "1.0"
UNCERTAIN = "uncertain"

# A track that is away for longer than this is drawn and listed as two visits.
_VISIT_GAP_SECONDS = 0.5


@dataclass(frozen=True)
class ClipWindow:
    """What happened in one attention window of the whole frame.

    Attributes:
        start: seconds of the first tick of the temporal part in the window.
        end: seconds of the last one.
        action: name of the likeliest action, or "uncertain".
        confidence: probability of the likeliest action.
        probabilities: (num_labels,) over the model's actions.
        groups: the same for every further label group.
    """

    start: float
    end: float
    action: str
    confidence: float
    probabilities: np.ndarray
    groups: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class TrackSummary:
    """One tracked object over the whole video.

    Attributes:
        id: identity, from 1.
        class_name: what it is.
        first_time: seconds of its first sighting.
        last_time: seconds of its last sighting.
        first_frame: number of the frame of its first sighting in the source, from 0.
        last_frame: number of the frame of its last sighting in the source, from 0.
        frames: in how many frames it was seen.
        score: mean detection score.
        action: name of the likeliest action, or "uncertain"; None when actions were not asked for.
        confidence: probability of the likeliest action, or None.
        actions: (name, probability) of all actions, likeliest first.
        visits: (start, end) seconds of every stretch in which it was seen.
    """

    id: int
    class_name: str
    first_time: float
    last_time: float
    first_frame: int
    last_frame: int
    frames: int
    score: float
    action: str | None
    confidence: float | None
    actions: tuple[tuple[str, float], ...]
    visits: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class KeyFrame:
    """One of the few small frames that are kept for the summary.

    Attributes:
        image: (h, w, 3) uint8 RGB, scaled down.
        time: seconds.
        frame_index: number of the frame in the source, from 0.
        boxes: (N, 4) xyxy in pixels of `image`.
        track_ids: (N,).
        attention: (h16, w16) spatial attention, summing to one, or None.
    """

    image: np.ndarray
    time: float
    frame_index: int
    boxes: np.ndarray
    track_ids: np.ndarray
    attention: np.ndarray | None


@dataclass(frozen=True)
class Observations:
    """All boxes of a video as columns, R rows in the order of time.

    Attributes:
        position: (R,) row in `VideoAnalysis.times` and `.frame_indices`.
        track_ids: (R,) int64.
        boxes: (R, 4) float32 xyxy, pixels of the original frame as displayed; they may reach beyond it.
        scores: (R,) float32.
        labels: (R,) int64 object classes.
        actions: (R,) int64 likeliest action at that time, -1 for none.
        confidences: (R,) float32 its probability, NaN for none.
    """

    position: np.ndarray
    track_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    actions: np.ndarray
    confidences: np.ndarray


@dataclass(repr=False)
class VideoAnalysis:
    """Everything `kinetrack.analyze` found in one video.

    Attributes:
        source: `name`, `width`, `height`, `frame_rate`, `duration`, `num_frames`, `has_audio`, `codec` of the video.
        model: `name`, `trained`, `actions`, `groups`, `object_classes`, `action_threshold`, `frame_rate`,
            `attention_window` of the model.
        settings: `task`, `fps`, `threshold`, `size` and `device` of the run.
        performance: `frames`, `seconds`, `frames_per_second`, and `milliseconds` a frame by stage.
        frame_indices: (F,) numbers in the source of the frames looked at, from 0.
        times: (F,) their seconds.
        observations: every box.
        clip_actions: the timeline of the whole frame's action, one entry an attention window.
        tick_times: (K,) seconds of the ticks of the temporal part.
        tick_probabilities: (K, num_labels) clip action of the window that ends there; (K, 0) without actions.
        tick_attention: (K,) temporal attention beta of every tick, relative to the average of its window (1 = average).
        track_probabilities: (num_labels,) mean action probabilities of every track.
        key_frames: a handful of small frames for the summary.
        output: folder of the files that were written, or None.
    """

    source: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    performance: dict[str, Any]
    frame_indices: np.ndarray
    times: np.ndarray
    observations: Observations
    clip_actions: list[ClipWindow]
    tick_times: np.ndarray
    tick_probabilities: np.ndarray
    tick_attention: np.ndarray
    track_probabilities: dict[int, np.ndarray]
    key_frames: list[KeyFrame]
    output: Path | None = None

    @cached_property
    def tracks(self) -> list[TrackSummary]:
        """One summary a track, by identity."""
        order = np.argsort(self.observations.track_ids, kind="stable")
        identities, starts = np.unique(self.observations.track_ids[order], return_index=True)
        groups = np.split(order, starts[1:]) if len(identities) else []
        return [self._summarise(int(track_id), rows) for track_id, rows in zip(identities, groups, strict=True)]

    @cached_property
    def probabilities(self) -> np.ndarray | None:
        """(num_labels,) of the whole video, the mean over its windows; None when actions were not asked for."""
        if not self.clip_actions:
            return None
        return np.mean([window.probabilities for window in self.clip_actions], axis=0)

    @property
    def actions(self) -> list[tuple[str, float]]:
        """(name, probability) of the whole video's actions, likeliest first; empty when they were not asked for."""
        return self._ranked(self.probabilities)

    @property
    def action(self) -> str | None:
        """Name of what happens in the whole video, "uncertain", or None when actions were not asked for."""
        return self._named(self.probabilities)[0]

    @property
    def confidence(self) -> float | None:
        """Probability of the likeliest action of the whole video."""
        return self._named(self.probabilities)[1]

    @property
    def groups(self) -> dict[str, list[tuple[str, float]]]:
        """(label, probability) of every further label group over the whole video, likeliest first."""
        found = {}
        for name, labels in self.model["groups"].items():
            rows = [window.groups[name] for window in self.clip_actions if name in window.groups]
            if rows:
                found[name] = _ranked(np.mean(rows, axis=0), labels)
        return found

    @property
    def duration(self) -> float:
        """Seconds of the video; those from its first to its last frame where the source does not say."""
        if self.source.get("duration"):
            return float(self.source["duration"])
        return float(self.times[-1] - self.times[0]) if len(self.times) else 0.0

    def to_mot(self) -> str:
        """The tracks in MOTChallenge format, one line a box.

        `frame, id, left, top, width, height, score, -1, -1, -1`; frames are those of the source, counted from 1, and
        pixels those of the original frame.
        """
        return "".join(self.iter_mot())

    def iter_mot(self) -> Iterator[str]:
        """The lines of `to_mot`."""
        found = self.observations
        frames = self.frame_indices[found.position] + 1
        for frame, track_id, (x1, y1, x2, y2), score in zip(
            frames, found.track_ids, found.boxes, found.scores, strict=True
        ):
            yield f"{frame},{track_id},{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f},{score:.4f},-1,-1,-1\n"

    def to_dict(self) -> dict[str, Any]:
        """The content of `analysis.json` as plain Python values."""
        return {**self._header(), "tracks": [self._track_dict(track) for track in self.tracks]}

    def to_json(self) -> str:
        """The content of `analysis.json`; its schema is described in `iter_json`."""
        return "".join(self.iter_json())

    def iter_json(self) -> Iterator[str]:
        """Pieces of `to_json`, one track at a time, so that a long video needs no second copy of its boxes.

        Keys of schema 1: `schema`, `schema_version`, `kinetrack_version`; `source`, `model`, `settings`,
        `performance` (see the attributes); `action`, `confidence`, `actions` of the whole video and `groups`;
        `timeline` (`start`, `end`, `action`, `confidence`, `probabilities` and `groups` of every window);
        `temporal_attention` (`times`, `relative`); `tracks`, each with `id`, `class`, times, frame numbers, `action`,
        `confidence`, `actions`, `visits` and `observations` (columns `frame_index`, `time`, `box` xyxy, `score`,
        `action`, `confidence`). Frame numbers count from 0, times are seconds, boxes pixels of the original frame.
        A new minor version only adds keys.
        """
        yield "{\n"
        for key, value in self._header().items():
            yield f"{json.dumps(key)}: {_dump(value)},\n"
        yield '"tracks": ['
        for index, track in enumerate(self.tracks):
            yield (",\n" if index else "\n") + _dump(self._track_dict(track))
        yield "\n]}\n"

    def to_pandas(self):
        """A `pandas.DataFrame` with one row a box, in the order of time.

        Columns `frame_index` (from 0), `time` (s), `track_id`, `class`, `x1`, `y1`, `x2`, `y2` (pixels), `score`,
        `action` (likeliest at that time, "uncertain", or None) and `confidence`.
        """
        import pandas as pd

        found = self.observations
        return pd.DataFrame(
            {
                "frame_index": self.frame_indices[found.position],
                "time": self.times[found.position],
                "track_id": found.track_ids,
                "class": [self._class_name(label) for label in found.labels],
                **{name: found.boxes[:, column] for column, name in enumerate(("x1", "y1", "x2", "y2"))},
                "score": found.scores,
                "action": self._row_actions(slice(None)),
                "confidence": found.confidences,
            }
        )

    def to_detections(self, frame_index: int):
        """The boxes of one frame as `supervision.Detections`, with `tracker_id` and, in `data`, names.

        Args:
            frame_index: number of the frame in the source, from 0.

        Raises:
            ValueError: the frame was not looked at.
        """
        import supervision as sv

        position = int(np.searchsorted(self.frame_indices, frame_index))
        if position == len(self.frame_indices) or self.frame_indices[position] != frame_index:
            raise ValueError(
                f"Frame {frame_index} was not looked at. The frames that were are in `frame_indices`, "
                f"{len(self.frame_indices)} of them from {self.frame_indices[0]} to {self.frame_indices[-1]}."
            )
        rows = np.flatnonzero(self.observations.position == position)
        found = self.observations
        return sv.Detections(
            xyxy=found.boxes[rows].astype(np.float32),
            confidence=found.scores[rows],
            class_id=found.labels[rows].astype(int),
            tracker_id=found.track_ids[rows].astype(int),
            data={
                "class_name": np.array([self._class_name(label) for label in found.labels[rows]], dtype=object),
                "action": np.array(self._row_actions(rows), dtype=object),
            },
        )

    def plot(self):
        """The summary as a `matplotlib.figure.Figure`: key frames, actions and attention over time, a lane a track."""
        from .summary import plot_summary

        return plot_summary(self)

    def save(self, folder) -> Path:
        """Writes `tracks.txt`, `analysis.json` and `summary.png`, all of them or none.

        Args:
            folder: made if need be; files of an earlier run are replaced.

        Returns:
            The folder.

        Raises:
            OSError: the folder cannot be written to.
        """
        from .sinks import ResultFolder, write_results

        with ResultFolder(folder) as files:
            write_results(self, files)
            files.commit()
        self.output = Path(folder)
        return self.output

    def __repr__(self) -> str:
        parts = [f"{len(self.times)} frames", f"{self.duration:.1f} s"]
        if self.settings["task"] != "actions":
            parts.append(f"{len(self.tracks)} tracks")
        if self.action is not None:
            parts.append(f"action {self.action} ({self.confidence:.0%})")
        return f"VideoAnalysis({self.source['name']}: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{track.id}</td><td>{html.escape(track.class_name)}</td>"
            f"<td>{track.first_time:.1f}–{track.last_time:.1f} s</td>"
            f"<td>{html.escape(track.action or '–')}</td>"
            f"<td>{'–' if track.confidence is None else f'{track.confidence:.0%}'}</td></tr>"
            for track in self.tracks
        )
        head = "<tr><th>id</th><th>class</th><th>seen</th><th>action</th><th>confidence</th></tr>"
        return f"<p>{html.escape(repr(self))}</p><table>{head}{rows}</table>"

    def _header(self) -> dict[str, Any]:
        """Everything in `analysis.json` but the tracks."""
        from .. import __version__

        names = self.model["actions"]
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "kinetrack_version": __version__,
            "source": self.source,
            "model": self.model,
            "settings": self.settings,
            "performance": self.performance,
            "action": self.action,
            "confidence": self.confidence,
            "actions": [{"action": name, "probability": value} for name, value in self.actions],
            "groups": {
                group: [{"label": name, "probability": value} for name, value in ranked]
                for group, ranked in self.groups.items()
            },
            "timeline": [
                {
                    "start": window.start,
                    "end": window.end,
                    "action": window.action,
                    "confidence": window.confidence,
                    "probabilities": dict(zip(names, window.probabilities.tolist(), strict=True)),
                    "groups": {
                        group: dict(zip(self.model["groups"][group], values.tolist(), strict=True))
                        for group, values in window.groups.items()
                    },
                }
                for window in self.clip_actions
            ],
            "temporal_attention": {"times": self.tick_times.tolist(), "relative": self.tick_attention.tolist()},
        }

    def _track_dict(self, track: TrackSummary) -> dict[str, Any]:
        rows = np.flatnonzero(self.observations.track_ids == track.id)
        found = self.observations
        return {
            "id": track.id,
            "class": track.class_name,
            "first_time": track.first_time,
            "last_time": track.last_time,
            "first_frame": track.first_frame,
            "last_frame": track.last_frame,
            "frames": track.frames,
            "score": track.score,
            "action": track.action,
            "confidence": track.confidence,
            "actions": [{"action": name, "probability": value} for name, value in track.actions],
            "visits": [list(visit) for visit in track.visits],
            "observations": {
                "frame_index": self.frame_indices[found.position[rows]].tolist(),
                "time": self.times[found.position[rows]].tolist(),
                "box": found.boxes[rows].tolist(),
                "score": found.scores[rows].tolist(),
                "action": self._row_actions(rows),
                "confidence": [None if np.isnan(value) else float(value) for value in found.confidences[rows]],
            },
        }

    def _summarise(self, track_id: int, rows: np.ndarray) -> TrackSummary:
        found = self.observations
        times = self.times[found.position[rows]]
        breaks = np.flatnonzero(np.diff(times) > max(_VISIT_GAP_SECONDS, 2.5 * self._frame_step)) + 1
        visits = tuple((float(part[0]), float(part[-1])) for part in np.split(times, breaks))
        probabilities = self.track_probabilities.get(track_id)
        action, confidence = self._named(probabilities)
        labels, counts = np.unique(found.labels[rows], return_counts=True)
        return TrackSummary(
            id=track_id,
            class_name=self._class_name(labels[counts.argmax()]),
            first_time=float(times[0]),
            last_time=float(times[-1]),
            first_frame=int(self.frame_indices[found.position[rows[0]]]),
            last_frame=int(self.frame_indices[found.position[rows[-1]]]),
            frames=len(rows),
            score=float(found.scores[rows].mean()),
            action=action,
            confidence=confidence,
            actions=tuple(self._ranked(probabilities)),
            visits=visits,
        )

    @cached_property
    def _frame_step(self) -> float:
        """Seconds between two frames that were looked at."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else 0.0

    def _class_name(self, label) -> str:
        return self.model["object_classes"][int(label)]

    def _row_actions(self, rows) -> list[str | None]:
        """Names of the likeliest action of some observations."""
        names, threshold = self.model["actions"], self.model["action_threshold"]
        found = zip(self.observations.actions[rows].tolist(), self.observations.confidences[rows], strict=True)
        return [None if a < 0 else names[a] if confidence >= threshold else UNCERTAIN for a, confidence in found]

    def _named(self, probabilities: np.ndarray | None) -> tuple[str | None, float | None]:
        if probabilities is None:
            return None, None
        best = int(np.argmax(probabilities))
        confidence = float(probabilities[best])
        return self.model["actions"][best] if confidence >= self.model["action_threshold"] else UNCERTAIN, confidence

    def _ranked(self, probabilities: np.ndarray | None) -> list[tuple[str, float]]:
        return [] if probabilities is None else _ranked(probabilities, self.model["actions"])


def _ranked(probabilities: np.ndarray, names: list[str]) -> list[tuple[str, float]]:
    order = np.argsort(-probabilities, kind="stable")
    return [(names[index], float(probabilities[index])) for index in order]


def _dump(value: Any) -> str:
    """Compact, standard JSON; times and pixels do not need seventeen digits."""
    return json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False, separators=(", ", ": "))


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
