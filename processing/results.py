"""`VideoAnalysis`: what was found in one video, as text, tables, plots and files."""

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .describing_kinetrack import mot_line
from .findings_kinetrack import SCHEMA, SCHEMA_VERSION, VideoFindings


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


@dataclass(repr=False)
class VideoAnalysis(VideoFindings):
    """Everything `kinetrack.analyze` found in one video, in all the forms people want it in.

    Besides what `VideoFindings` has:

    Attributes:
        performance: `frames`, `seconds`, `frames_per_second`, and `milliseconds` a frame by stage.
        key_frames: a handful of small frames for the summary.
        output: folder of the files that were written, or None.
    """

    performance: dict[str, Any]
    key_frames: list[KeyFrame]
    output: Path | None = None

    def to_mot(self) -> str:
        """The tracks in MOTChallenge format, one line a box.

        `frame, id, left, top, width, height, score, -1, -1, -1`; frames are those of the source, counted from 1, and
        pixels those of the original frame.
        """
        return "".join(self.iter_mot())

    def iter_mot(self) -> Iterator[str]:
        """The lines of `to_mot`."""
        found = self.observations
        frames = self.frame_indices[found.position]
        for row in zip(frames, found.track_ids, found.boxes, found.scores, strict=True):
            yield mot_line(*row)

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
            yield f"{json.dumps(key)}: {compact_json(value)},\n"
        yield '"tracks": ['
        for index, track in enumerate(self.tracks):
            yield (",\n" if index else "\n") + compact_json(self._track_dict(track))
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

    def _header(self, top_k: int | None = None) -> dict[str, Any]:
        """Everything in `analysis.json` but the tracks."""
        from .. import __version__

        begin = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "kinetrack_version": __version__,
            "source": self.source,
            "model": self.model,
            "settings": self.settings,
            "performance": self.performance,
        }
        return begin | super()._header(top_k)


def compact_json(value: Any) -> str:
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
