"""Gathers the results of a session, frame by frame, into `VideoFindings`; keeps boxes, never frames."""

import numpy as np

from ..processing.clip_score_kinetrack import ClipScore
from ..processing.findings_kinetrack import ClipWindow, Observations, VideoFindings, name_action


class FindingsRecorder:
    """Turns a stream of `KineTrackFrameResult`s into `VideoFindings`.

    Args:
        source: see `VideoFindings`.
        model: see `VideoFindings`.
        settings: see `VideoFindings`.
    """

    def __init__(self, source: dict, model: dict, settings: dict):
        self.source, self.model, self.settings = source, model, settings
        self._frames: list[tuple[int, float]] = []
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._score = ClipScore(model["attention_window"])
        self._tick_times: list[float] = []
        self._tick_probabilities: list[np.ndarray] = []
        self._tick_attention: list[np.ndarray] = []
        self._newest_attention = None
        self._totals: dict[int, tuple[np.ndarray, int]] = {}  # sum of action probabilities, at how many ticks
        self._glimpses: dict[int, np.ndarray] = {}  # of tracks that have not been seen on a tick

    @property
    def num_frames(self) -> int:
        """Frames seen so far."""
        return len(self._frames)

    def add(self, result) -> None:
        """Takes the result of the next frame."""
        position = len(self._frames)
        self._frames.append((result.frame_index, result.time))
        if len(result.track_ids):
            self._add_boxes(result, position)
        if result.updated:
            self._add_tick(result)

    def _add_boxes(self, result, position: int) -> None:
        count = len(result.track_ids)
        actions, confidences = np.full(count, -1), np.full(count, np.nan, np.float32)
        if result.actions is not None:
            actions, confidences = result.actions.argmax(1), result.actions.max(1)
            for track_id, probabilities in zip(result.track_ids.tolist(), result.actions, strict=True):
                if result.updated:
                    total, ticks = self._totals.get(track_id, (0.0, 0))
                    self._totals[track_id] = (total + probabilities.astype(np.float64), ticks + 1)
                    self._glimpses.pop(track_id, None)
                elif track_id not in self._totals:
                    self._glimpses[track_id] = probabilities.astype(np.float64)
        self._rows.append(
            (
                np.full(count, position),
                result.track_ids.astype(np.int64),
                result.boxes.astype(np.float32),
                result.scores.astype(np.float32),
                result.labels.astype(np.int64),
                actions.astype(np.int64),
                confidences.astype(np.float32),
            )
        )

    def _add_tick(self, result) -> None:
        self._tick_times.append(result.time)
        # References to a few small arrays, not to the frame.
        self._score.add(result.clip_action, result.group_actions)
        if result.clip_action is not None:
            self._tick_probabilities.append(result.clip_action)
        self._newest_attention = result.temporal_attention
        if self.model["attention_window"] is None:
            if result.temporal_attention is not None:
                # An endless window: what the newest tick weighs, against an even share.
                self._tick_attention.append(result.temporal_attention[-1:] * len(self._tick_times))
        elif self._score.num_open_ticks == 0:
            self._tick_attention += self._relative_attention(self.model["attention_window"])

    def _relative_attention(self, ticks: int) -> list[np.ndarray]:
        """What the last `ticks` ticks weigh in the newest window, against an even share; empty without attention."""
        attention = self._newest_attention
        return [] if attention is None else [attention[-ticks:] * len(attention)]

    def _clip_actions(self) -> list[ClipWindow]:
        """The timeline: windows by their seconds and names."""
        found = []
        for window in self._score.windows():
            action, confidence = name_action(window.clip_action, self.model["actions"], self.model["action_threshold"])
            found.append(
                ClipWindow(
                    start=self._tick_times[window.begin],
                    end=self._tick_times[window.end - 1],
                    action=action,
                    confidence=confidence,
                    probabilities=window.clip_action,
                    groups=window.group_actions,
                )
            )
        return found

    def finish(self) -> VideoFindings:
        """Everything so far."""
        return VideoFindings(**self._columns())

    def _columns(self) -> dict:
        rest = self._score.num_open_ticks
        attention = self._tick_attention
        if rest and self.model["attention_window"] is not None:
            attention = attention + self._relative_attention(rest)
        means = {track_id: total / ticks for track_id, (total, ticks) in self._totals.items()}
        return {
            "source": self.source,
            "model": self.model,
            "settings": self.settings,
            "frame_indices": np.array([index for index, _ in self._frames], np.int64),
            "times": np.array([time for _, time in self._frames], np.float64),
            "observations": _join(self._rows),
            "clip_actions": self._clip_actions(),
            "tick_times": np.array(self._tick_times, np.float64),
            "tick_probabilities": (
                np.stack(self._tick_probabilities)
                if self._tick_probabilities
                else np.zeros((len(self._tick_times), 0), np.float32)
            ),
            "tick_attention": np.concatenate(attention) if attention else np.zeros(0),
            "track_probabilities": means | self._glimpses,
        }


def _join(rows: list[tuple[np.ndarray, ...]]) -> Observations:
    if rows:
        return Observations(*(np.concatenate(column) for column in zip(*rows, strict=True)))
    no_integers, no_floats = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Observations(
        no_integers, no_integers, np.zeros((0, 4), np.float32), no_floats, no_integers, no_integers, no_floats
    )
