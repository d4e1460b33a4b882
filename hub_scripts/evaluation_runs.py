"""Running a session over one video: tracks of a sequence, actions of a clip and of given people, and the time spent."""

import time as clock
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..processing.clip_score_kinetrack import ClipScore
from ..processing.session_kinetrack import KineTrackSession
from .evaluation_items import Sequence, sequence_frames


class Stopwatch:
    """Adds up where the time of many frames went."""

    def __init__(self):
        self.frames, self.seconds, self.parts = 0, 0.0, {}

    def follow(self, results) -> Iterator:
        """Pass a session's results through, timing them."""
        start = clock.perf_counter()
        for result in results:
            self.frames += 1
            for part, seconds in result.timings.items():
                self.parts[part] = self.parts.get(part, 0.0) + seconds
            self.seconds += clock.perf_counter() - start
            yield result
            start = clock.perf_counter()

    def summary(self) -> dict:
        """Frames, frames a second, and milliseconds a frame by part."""
        frames = max(self.frames, 1)
        return {
            "frames": self.frames,
            "frames_per_second": self.frames / max(self.seconds, 1e-9),
            "milliseconds": {part: 1000 * seconds / frames for part, seconds in self.parts.items()},
        }


class RegionSession(KineTrackSession):
    """A session for actions whose people are given: boxes of the ground truth in place of a tracker's.

    Each person has a ring of memories and is attended to on every tick, exactly as a track of `KineTrackSession` is;
    only where the boxes come from differs. Results have the given people as tracks 1, 2, … on ticks.

    Args:
        model: as for `KineTrackSession`.
        processor: as for `KineTrackSession`.
        **options: as for `KineTrackSession`, without `task`.
    """

    def __init__(self, model, processor, **options):
        super().__init__(model, processor, task="actions", **options)
        self._given = None

    def run_with(self, source, boxes: np.ndarray | None) -> Iterator:
        """Start anew and run a source.

        Args:
            source: as for `KineTrackSession.run`.
            boxes: (frames, P, 4) xyxy in pixels of the original frame, row n for the frame with index n, NaN where a
                person is not there; None: nobody.

        Raises:
            ValueError: a frame beyond the last row.
        """
        self.reset()
        self._given = boxes
        return self.run(source)

    def _recognise(self, output, result):
        super()._recognise(output, result)
        if self._given is None:
            return
        if result.frame_index >= len(self._given):
            raise ValueError(f"There are boxes for {len(self._given)} frames; the video has more.")
        boxes = self._given[result.frame_index].astype(np.float32)  # (P, 4)
        seen = np.flatnonzero(np.isfinite(boxes).all(1))
        result.track_ids, result.boxes = seen + 1, boxes[seen]
        scores, pooled = self._attend(output, boxes[seen])
        memory = self._memories.attend(result.track_ids, scores, pooled, commit=result.updated)
        logits = self.model.action_head(memory)[0].float()
        result.actions = (logits / self.model.config.action_temperature).softmax(-1).cpu().numpy()


def classify_clip(session: KineTrackSession, source, stopwatch: Stopwatch) -> dict[str, np.ndarray]:
    """Action probabilities of a whole clip, the mean over its attention windows (`ClipScore`).

    Returns:
        `{"actions": (num_labels,), group: (n,) …}`.

    Raises:
        ValueError: no frame reached the temporal part.
    """
    session.reset()
    return _by_window(session, stopwatch.follow(session.run(source)), 0, source)[0]


def classify_people(
    session: RegionSession, source, boxes: np.ndarray | None, stopwatch: Stopwatch
) -> tuple[dict[str, np.ndarray], list[np.ndarray | None]]:
    """Action probabilities of a clip and of the people in given boxes, by the same windows.

    Args:
        session: it starts anew.
        source: as for `KineTrackSession.run`.
        boxes: as for `RegionSession.run_with`.
        stopwatch: adds the time up.

    Returns:
        The clip's, as `classify_clip` gives them, and for each of the P people (num_labels,), None if never seen.

    Raises:
        ValueError: no frame reached the temporal part.
    """
    people = 0 if boxes is None else boxes.shape[1]
    return _by_window(session, stopwatch.follow(session.run_with(source, boxes)), people, source)


def _by_window(session, results, people: int, source) -> tuple[dict[str, np.ndarray], list[np.ndarray | None]]:
    window = session.model.config.attention_window
    clip, persons = ClipScore(window), [ClipScore(window) for _ in range(people)]
    for result in results:
        if not result.updated:
            continue
        clip.add(result.clip_action, result.group_actions)
        found = {} if result.actions is None else dict(zip(result.track_ids.tolist(), result.actions, strict=True))
        for number, person in enumerate(persons, start=1):
            person.add(found.get(number))
    answer = clip.mean()
    if answer is None:
        raise ValueError(f"{source if isinstance(source, str | Path) else 'The clip'}: no frame reached the model.")
    means = [person.mean() for person in persons]
    return answer, [None if mean is None else mean["actions"] for mean in means]


def track_sequence(
    session: KineTrackSession, sequence: Sequence, objects: list[int], stopwatch: Stopwatch
) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
    """Run a session over a sequence.

    Args:
        session: it starts anew.
        sequence: what to run.
        objects: the object classes of which tracks are wanted.
        stopwatch: adds the time up.

    Returns:
        For each class MOTChallenge rows `(N, 7)`: frame from 1, identity, left, top, width, height in pixels of the
        video, score; and for every identity of the first class its action probabilities `(num_labels,)`, the mean over
        the ticks it was seen on (nothing from a session without actions).

    Raises:
        ValueError: if the video has another length or size than `seqinfo.ini` says.
    """
    session.reset()
    first = sequence.part[0] if sequence.part else 1
    rows, sums, ticks = [[np.zeros((0, 7))] for _ in objects], {}, {}
    for number, result in enumerate(stopwatch.follow(session.run(sequence_frames(sequence))), start=first):
        for kind, found in zip(objects, rows, strict=True):
            chosen = result.labels == kind
            boxes = result.boxes[chosen].astype(np.float64)
            ids, scores = result.track_ids[chosen], result.scores[chosen]
            found.append(
                np.column_stack([np.full(len(ids), number), ids, boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores])
            )
        if result.actions is not None and result.updated:
            people = result.labels == objects[0]
            for identity, probabilities in zip(result.track_ids[people].tolist(), result.actions[people], strict=True):
                sums[identity] = sums.get(identity, 0.0) + probabilities.astype(np.float64)
                ticks[identity] = ticks.get(identity, 0) + 1
    means = {identity: total / ticks[identity] for identity, total in sums.items()}
    return [np.concatenate(found) for found in rows], means
