"""`VideoFindings`: what was seen in one video, in memory that grows only with the number of boxes."""

from dataclasses import dataclass, field
from functools import cached_property
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
class VideoFindings:
    """Everything a session found in one video, once it has ended.

    Attributes:
        source: `name`, `width`, `height`, `frame_rate`, `duration`, `num_frames`, `has_audio`, `codec` of the video.
        model: `name`, `trained`, `actions`, `groups`, `object_classes`, `action_threshold`, `frame_rate`,
            `attention_window` of the model.
        settings: `task`, `fps`, `threshold`, `size` and `device` of the run.
        frame_indices: (F,) numbers in the source of the frames looked at, from 0.
        times: (F,) their seconds.
        observations: every box.
        clip_actions: the timeline of the whole frame's action, one entry an attention window.
        tick_times: (K,) seconds of the ticks of the temporal part.
        tick_probabilities: (K, num_labels) clip action of the window that ends there; (K, 0) without actions.
        tick_attention: (K,) temporal attention beta of every tick, relative to the average of its window (1 = average).
        track_probabilities: (num_labels,) mean action probabilities of every track.
    """

    source: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, Any]
    frame_indices: np.ndarray
    times: np.ndarray
    observations: Observations
    clip_actions: list[ClipWindow]
    tick_times: np.ndarray
    tick_probabilities: np.ndarray
    tick_attention: np.ndarray
    track_probabilities: dict[int, np.ndarray]

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
                found[name] = rank(np.mean(rows, axis=0), labels)
        return found

    @property
    def group_phrases(self) -> list[str]:
        """What may be said of every further label group: `fight: noFight 91%`, or `fight: uncertain`.

        The threshold is that of actions: few things are a fight, and a guess is no finding.
        """
        return [
            f"{name}: {ranked[0][0]} {ranked[0][1]:.0%}"
            if ranked[0][1] >= self.model["action_threshold"]
            else f"{name}: {UNCERTAIN}"
            for name, ranked in self.groups.items()
        ]

    @property
    def duration(self) -> float:
        """Seconds of the video; those from its first to its last frame where the source does not say."""
        if self.source.get("duration"):
            return float(self.source["duration"])
        return float(self.times[-1] - self.times[0]) if len(self.times) else 0.0

    def to_dict(self, top_k: int | None = None) -> dict[str, Any]:
        """Everything as plain Python values that `json.dumps` takes.

        Args:
            top_k: most actions and labels in every list and every window, likeliest first; all of them, in the model's
                order where it is a mapping, when None.

        Returns:
            `schema`, `schema_version`; `source`, `model`, `settings` (see the attributes); `action`, `confidence`,
            `actions` of the whole video and `groups`; `timeline` (`start`, `end`, `action`, `confidence`,
            `probabilities` and `groups` of every window); `temporal_attention` (`times`, `relative`); `tracks`, each
            with `id`, `class`, times, frame numbers, `action`, `confidence`, `actions`, `visits` and `observations`
            (columns `frame_index`, `time`, `box` xyxy, `score`, `action`, `confidence`). Frame numbers count from 0,
            times are seconds, boxes pixels of the original frame as displayed.
        """
        return {**self._header(top_k), "tracks": [self._track_dict(track, top_k) for track in self.tracks]}

    def _header(self, top_k: int | None = None) -> dict[str, Any]:
        """All of `to_dict` but the tracks."""
        names = self.model["actions"]
        return {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "model": self.model,
            "settings": self.settings,
            "action": self.action,
            "confidence": self.confidence,
            "actions": [{"action": name, "probability": value} for name, value in self.actions[:top_k]],
            "groups": {
                group: [{"label": name, "probability": value} for name, value in ranked[:top_k]]
                for group, ranked in self.groups.items()
            },
            "timeline": [
                {
                    "start": window.start,
                    "end": window.end,
                    "action": window.action,
                    "confidence": window.confidence,
                    "probabilities": by_name(window.probabilities, names, top_k),
                    "groups": {
                        group: by_name(values, self.model["groups"][group], top_k)
                        for group, values in window.groups.items()
                    },
                }
                for window in self.clip_actions
            ],
            "temporal_attention": {"times": self.tick_times.tolist(), "relative": self.tick_attention.tolist()},
        }

    def _track_dict(self, track: TrackSummary, top_k: int | None = None) -> dict[str, Any]:
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
            "actions": [{"action": name, "probability": value} for name, value in track.actions[:top_k]],
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
        return name_action(probabilities, self.model["actions"], self.model["action_threshold"])

    def _ranked(self, probabilities: np.ndarray | None) -> list[tuple[str, float]]:
        return [] if probabilities is None else rank(probabilities, self.model["actions"])


def rank(probabilities: np.ndarray, names: list[str]) -> list[tuple[str, float]]:
    """(name, probability), likeliest first; equal ones in the order of the model."""
    order = np.argsort(-probabilities, kind="stable")
    return [(names[index], float(probabilities[index])) for index in order]


def by_name(probabilities: np.ndarray, names: list[str], top_k: int | None = None) -> dict[str, float]:
    """Probabilities as a mapping: all in the order of the model, or the likeliest `top_k`, best first."""
    if top_k is not None:
        return dict(rank(probabilities, names)[:top_k])
    return dict(zip(names, probabilities.tolist(), strict=True))


def name_action(probabilities: np.ndarray, names: list[str], threshold: float) -> tuple[str, float]:
    """The likeliest action and its probability; the action is "uncertain" when that is below the threshold."""
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    return names[best] if confidence >= threshold else UNCERTAIN, confidence
