"""Association of detections over time: boxes, scores and embeddings in, identities out.

Written from the papers: matching in two stages by score (ByteTrack, arXiv 2110.06864), appearance as an exponential
mean of embeddings
with gates (FairMOT, arXiv 2004.01888, and BoT-SORT, arXiv 2206.14651), recovery from the last observation and
re-update after an occlusion
(OC-SORT, arXiv 2203.14360). All tracks live in one table of arrays; nothing is done object by object.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..processing.motion_kinetrack import BoxMotion, cxcywh_to_xyxy


@dataclass
class Detections:
    """What a detector saw in one frame; `supervision.Detections` has the same attributes and serves as well.

    Attributes:
        xyxy: `(N, 4)` boxes, pixels; they may reach beyond the frame.
        confidence: `(N,)` scores, or None: every detection counts as certain.
        class_id: `(N,)` integers, or None: one class.
        data: further arrays by name; `data["embedding"]` is `(N, E)`.
    """

    xyxy: np.ndarray
    confidence: np.ndarray | None = None
    class_id: np.ndarray | None = None
    data: dict = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.xyxy)


@dataclass
class Tracks:
    """The tracks seen in one frame, by ascending identity.

    Attributes:
        track_id: `(M,)` int64, from 1, unique in the life of the tracker (until `reset`).
        xyxy: `(M, 4)` boxes of the matched detections, pixels.
        confidence: `(M,)` scores of the matched detections.
        class_id: `(M,)` int64.
        detection_index: `(M,)` int64, row of the matched detection in what was given to `update`.
    """

    track_id: np.ndarray
    xyxy: np.ndarray
    confidence: np.ndarray
    class_id: np.ndarray
    detection_index: np.ndarray

    def __len__(self) -> int:
        return len(self.track_id)


@dataclass
class TrackTable:
    """Every track that is alive, one row each (M rows).

    `anchor_*` is the state right after the last observation: where a re-found track is re-run from.
    """

    track_id: np.ndarray  # (M,) int64, 0 until confirmed
    class_id: np.ndarray  # (M,) int64
    confidence: np.ndarray  # (M,)
    mean: np.ndarray  # (M, 8)
    covariance: np.ndarray  # (M, 3, 4)
    anchor_box: np.ndarray  # (M, 4) xyxy of the last observation
    anchor_mean: np.ndarray  # (M, 8)
    anchor_covariance: np.ndarray  # (M, 3, 4)
    seen: np.ndarray  # (M,) seconds, time of the last observation
    hits: np.ndarray  # (M,) int64, observations so far
    misses: np.ndarray  # (M,) int64, frames since the last observation
    embedding: np.ndarray  # (M, E), zero rows where no embedding was given

    @classmethod
    def empty(cls, embedding_size: int = 0) -> "TrackTable":
        """A table without rows."""
        return cls(
            track_id=np.zeros(0, np.int64),
            class_id=np.zeros(0, np.int64),
            confidence=np.zeros(0),
            mean=np.zeros((0, 8)),
            covariance=np.zeros((0, 3, 4)),
            anchor_box=np.zeros((0, 4)),
            anchor_mean=np.zeros((0, 8)),
            anchor_covariance=np.zeros((0, 3, 4)),
            seen=np.zeros(0),
            hits=np.zeros(0, np.int64),
            misses=np.zeros(0, np.int64),
            embedding=np.zeros((0, embedding_size)),
        )

    def __len__(self) -> int:
        return len(self.track_id)

    def keep(self, rows: np.ndarray) -> "TrackTable":
        """The given rows (a mask or indices) as a new table."""
        return TrackTable(**{name: value[rows] for name, value in vars(self).items()})

    def append(self, other: "TrackTable") -> "TrackTable":
        """Both tables one after the other."""
        return TrackTable(**{name: np.concatenate([value, getattr(other, name)]) for name, value in vars(self).items()})


class KineTracker:
    """Gives identities to detections, frame by frame.

    A detection above `high_threshold` may continue any track; one above `low_threshold` may only continue a track that
    was
    seen a moment ago (an occluded person's score drops before the person is gone). A track is reported from its
    `min_hits`-th
    observation on, is kept for `max_lost_seconds` without one, and is found again by motion, by its last place, or by
    its looks.

    Args:
        high_threshold: score from which a detection takes part in the first stage.
        low_threshold: score below which a detection is ignored.
        new_track_threshold: score from which an unmatched detection starts a track.
        min_hits: observations in consecutive frames before a track is reported. Tracks of the first frame are reported
            at once.
        min_iou: overlap with the predicted box needed in the first stage.
        min_iou_low: overlap needed in the second stage (low scores).
        min_iou_last: overlap with the last observed box needed to recover an unmatched track.
        appearance_weight: share of the embedding's cosine distance in the first stage's cost, when embeddings are
            given.
        max_appearance_distance: cosine distance (0 to 2) up to which looks alone may re-identify a lost track.
        embedding_momentum: weight of the past in a track's mean embedding.
        max_lost_seconds: how long a lost track is kept.
        max_tracks: tracks kept at most; the ones lost for longest go first.
        frame_rate: frames a second of a source that gives no times.
        motion: noise of the motion model.

    Raises:
        ValueError: if a setting is outside its range.
    """

    def __init__(
        self,
        *,
        high_threshold: float = 0.5,
        low_threshold: float = 0.1,
        new_track_threshold: float = 0.5,
        min_hits: int = 2,
        min_iou: float = 0.15,
        min_iou_low: float = 0.4,
        min_iou_last: float = 0.2,
        appearance_weight: float = 0.3,
        max_appearance_distance: float = 0.3,
        embedding_momentum: float = 0.9,
        max_lost_seconds: float = 1.5,
        max_tracks: int = 1000,
        frame_rate: float = 30.0,
        motion: BoxMotion | None = None,
    ):
        for name, value in (
            ("high_threshold", high_threshold),
            ("min_iou", min_iou),
            ("min_iou_low", min_iou_low),
            ("min_iou_last", min_iou_last),
            ("appearance_weight", appearance_weight),
            ("embedding_momentum", embedding_momentum),
        ):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
        if low_threshold > high_threshold:
            raise ValueError(f"low_threshold ({low_threshold}) must not exceed high_threshold ({high_threshold}).")
        if min_hits < 1 or max_tracks < 1:
            raise ValueError(f"min_hits and max_tracks must be at least 1, got {min_hits} and {max_tracks}.")
        if max_lost_seconds < 0 or not frame_rate > 0:
            raise ValueError(
                f"max_lost_seconds must be ≥ 0 and frame_rate > 0, got {max_lost_seconds} and {frame_rate}."
            )
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.new_track_threshold = new_track_threshold
        self.min_hits = min_hits
        self.min_iou = min_iou
        self.min_iou_low = min_iou_low
        self.min_iou_last = min_iou_last
        self.appearance_weight = appearance_weight
        self.max_appearance_distance = max_appearance_distance
        self.embedding_momentum = embedding_momentum
        self.max_lost_seconds = max_lost_seconds
        self.max_tracks = max_tracks
        self.frame_rate = frame_rate
        self.motion = motion or BoxMotion()
        self.reset()

    def reset(self) -> None:
        """Forget every track and start counting identities from 1 again."""
        self._table = TrackTable.empty()
        self._next_id = 1
        self._time: float | None = None
        self._frames = 0

    @property
    def known_ids(self) -> np.ndarray:
        """Identities of all tracks that are kept, seen in the last frame or lost; 0 for those not confirmed yet."""
        return self._table.track_id

    @property
    def known_ids(self) -> np.ndarray:
        """Identities that are alive, seen in the last frame or still remembered; `(K,)` int64."""
        return self._table.track_id[self._table.track_id > 0]

    def state_dict(self) -> dict:
        """Everything `load_state_dict` needs to go on from here, as plain arrays and numbers (settings not
        included).
        """
        table = {name: value.copy() for name, value in vars(self._table).items()}
        return {"table": table, "next_id": self._next_id, "time": self._time, "frames": self._frames}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: if the state does not come from a tracker of this version.
        """
        expected = {column.name for column in fields(TrackTable)}
        table = state.get("table", {})
        if set(table) != expected or not {"next_id", "time", "frames"} <= set(state):
            raise ValueError(f"Not a state of KineTracker: got keys {sorted(state)}, table {sorted(table)}.")
        self._table = TrackTable(**{name: np.array(value) for name, value in table.items()})
        self._next_id = int(state["next_id"])
        self._time = None if state["time"] is None else float(state["time"])
        self._frames = int(state["frames"])

    def update(self, detections, time: float | None = None) -> Tracks:
        """Take the next frame's detections and return the tracks seen in it.

        Args:
            detections: `Detections`, `supervision.Detections` or anything with their attributes; it may be empty.
            time: time of the frame in seconds, later than the last one; None: one frame of `frame_rate` later.

        Returns:
            The confirmed tracks matched in this frame.

        Raises:
            ValueError: on a box, score or embedding that is not finite, wrong shapes, or a time that does not move
            forward.
                The tracker is left as it was.
        """
        boxes, scores, classes, embeddings = self._read(detections)
        now, seconds = self._clock(time)
        table = self._table
        if embeddings is not None and table.embedding.shape[1] != embeddings.shape[1]:
            if table.embedding.shape[1]:
                raise ValueError(
                    f"Embeddings have {embeddings.shape[1]} numbers, earlier ones had {table.embedding.shape[1]}: "
                    "call reset() before changing the model."
                )
            table.embedding = np.zeros((len(table), embeddings.shape[1]))
        self._time = now
        self._frames += 1

        table = table.keep(now - table.seen <= self.max_lost_seconds + seconds)
        table.mean, table.covariance = self.motion.predict(table.mean, table.covariance, seconds)
        table.misses = table.misses + 1
        track_rows, detection_rows = self._associate(table, boxes, scores, classes, embeddings)
        self._observe(table, track_rows, detection_rows, boxes, scores, embeddings, now)
        matched = np.full(len(table), -1, np.int64)
        matched[track_rows] = detection_rows

        free = np.setdiff1d(np.flatnonzero(scores >= self.new_track_threshold), detection_rows)
        table = table.append(self._start(free, boxes, scores, classes, embeddings, now, table.embedding.shape[1]))
        matched = np.concatenate([matched, free])

        alive = ((table.misses == 0) | (table.track_id > 0)) & (now - table.seen <= self.max_lost_seconds)
        if alive.sum() > self.max_tracks:
            kept = np.argsort(np.where(alive, table.misses, np.iinfo(np.int64).max), kind="stable")[: self.max_tracks]
            alive[np.setdiff1d(np.arange(len(table)), kept)] = False
        table, matched = table.keep(alive), matched[alive]
        ready = np.flatnonzero((table.track_id == 0) & ((table.hits >= self.min_hits) | (self._frames == 1)))
        table.track_id[ready] = self._next_id + np.arange(len(ready))
        self._next_id += len(ready)
        self._table = table

        shown = np.flatnonzero((matched >= 0) & (table.track_id > 0))
        shown = shown[np.argsort(table.track_id[shown])]
        rows = matched[shown]
        return Tracks(table.track_id[shown], boxes[rows], scores[rows], table.class_id[shown], rows)

    def _read(self, detections):
        """Check what was given and return boxes, scores, classes and unit embeddings (or None) as fresh arrays."""
        boxes = np.array(detections.xyxy, np.float64)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"detections.xyxy must have shape (N, 4), got {boxes.shape}.")
        count = len(boxes)
        scores = np.ones(count) if detections.confidence is None else np.array(detections.confidence, np.float64)
        class_id = getattr(detections, "class_id", None)
        classes = np.zeros(count, np.int64) if class_id is None else np.array(class_id).astype(np.int64)
        for name, value in (("confidence", scores), ("class_id", classes)):
            if value.shape != (count,):
                raise ValueError(f"detections.{name} must have shape ({count},) like the boxes, got {value.shape}.")
        embeddings = (getattr(detections, "data", None) or {}).get("embedding")
        if embeddings is not None:
            embeddings = np.array(embeddings, np.float64)
            if count == 0:
                embeddings = None
            elif embeddings.ndim != 2 or len(embeddings) != count:
                raise ValueError(f'data["embedding"] must have shape ({count}, E), got {embeddings.shape}.')
        given = {"xyxy": boxes, "confidence": scores, 'data["embedding"]': embeddings}
        for name, value in given.items():
            if value is not None and not np.isfinite(value).all():
                rows = np.flatnonzero(~np.isfinite(value.reshape(count, -1)).all(axis=1))
                raise ValueError(f"detections.{name} is not finite in rows {rows[:10].tolist()}: drop them first.")
        turned = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
        if len(turned):
            raise ValueError(f"Boxes must be xyxy with x2 ≥ x1 and y2 ≥ y1; rows {turned[:10].tolist()} are not.")
        if embeddings is not None:
            embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return boxes, scores, classes, embeddings

    def _clock(self, time: float | None) -> tuple[float, float]:
        """Time of this frame and seconds since the last."""
        step = 1.0 / self.frame_rate
        if time is None:
            now = 0.0 if self._time is None else self._time + step
            return now, step
        now = float(time)
        if not np.isfinite(now):
            raise ValueError(f"time must be a finite number of seconds, got {time}.")
        if self._time is None:
            return now, step
        if now <= self._time:
            raise ValueError(f"time must move forward: got {now} s after {self._time} s. Call reset() for a new video.")
        return now, now - self._time

    def _associate(self, table, boxes, scores, classes, embeddings):
        """All stages; returns matching row numbers of tracks and detections."""
        predicted = cxcywh_to_xyxy(table.mean[:, :4])
        high = np.flatnonzero(scores >= self.high_threshold)
        low = np.flatnonzero((scores >= self.low_threshold) & (scores < self.high_threshold))
        tracks = np.arange(len(table))
        pairs = []

        def settle(candidates, offered, cost, limit):
            """Match, remember the pairs, return what is left of both sides."""
            cost = np.where(table.class_id[candidates, None] == classes[None, offered], cost, np.inf)
            rows, columns = assign(cost, limit)
            pairs.append((candidates[rows], offered[columns]))
            return np.delete(candidates, rows), np.delete(offered, columns)

        distance = 1 - box_iou(predicted, boxes[high])
        cost, limit = distance, 1 - self.min_iou
        looks = None
        if embeddings is not None and len(table) and len(high):
            looks = 1 - table.embedding @ embeddings[high].T  # (M, N); 1 where a track has no embedding yet
            known = table.embedding.any(axis=1)[:, None]
            blended = (1 - self.appearance_weight) * distance + self.appearance_weight * np.minimum(looks, 1.0)
            cost = np.where(known, blended, distance)
            cost = np.where(distance > 1 - self.min_iou, np.inf, cost)
            limit = 1.0
        tracks, left = settle(tracks, high, cost, limit)

        recent = table.misses[tracks] == 1
        waiting, rest = tracks[recent], tracks[~recent]
        waiting, _ = settle(waiting, low, 1 - box_iou(predicted[waiting], boxes[low]), 1 - self.min_iou_low)
        tracks = np.concatenate([waiting, rest])

        last = 1 - box_iou(table.anchor_box[tracks], boxes[left])
        tracks, left = settle(tracks, left, last, 1 - self.min_iou_last)

        if looks is not None and len(tracks) and len(left):
            columns = np.searchsorted(high, left)
            again = looks[np.ix_(tracks, columns)]
            # 13.8 is the 99.9 % quantile of a chi-square with two degrees of freedom: a place the track can have
            # reached.
            reach = self.motion.distance(table.mean[tracks], table.covariance[tracks], boxes[left]) <= 13.8
            settle(tracks, left, np.where(reach, again, np.inf), self.max_appearance_distance)
        return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs])

    def _observe(self, table, rows, detections, boxes, scores, embeddings, now):
        """Correct the matched tracks with their detections, in place."""
        seen = boxes[detections]
        mean, covariance = self.motion.update(table.mean[rows], table.covariance[rows], seen)
        found = np.flatnonzero(table.misses[rows] > 1)
        if len(found):
            back = rows[found]
            mean[found], covariance[found] = self.motion.rejoin(
                table.anchor_mean[back],
                table.anchor_covariance[back],
                table.anchor_box[back],
                seen[found],
                (now - table.seen[back])[:, None],
                steps=int(min(table.misses[back].max(), 10)),
            )
        table.mean[rows] = table.anchor_mean[rows] = mean
        table.covariance[rows] = table.anchor_covariance[rows] = covariance
        table.anchor_box[rows] = seen
        table.confidence[rows] = scores[detections]
        table.seen[rows] = now
        table.hits[rows] += 1
        table.misses[rows] = 0
        if embeddings is not None and len(rows):
            certain = scores[detections] >= self.high_threshold
            rows, new = rows[certain], embeddings[detections[certain]]
            old = table.embedding[rows]
            mixed = np.where(
                old.any(axis=1, keepdims=True), self.embedding_momentum * old + (1 - self.embedding_momentum) * new, new
            )
            table.embedding[rows] = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)

    def _start(self, rows, boxes, scores, classes, embeddings, now, embedding_size) -> TrackTable:
        """New tentative tracks from the given detections."""
        if not len(rows):
            return TrackTable.empty(embedding_size)
        mean, covariance = self.motion.initiate(boxes[rows])
        count = len(rows)
        return TrackTable(
            track_id=np.zeros(count, np.int64),
            class_id=classes[rows],
            confidence=scores[rows],
            mean=mean,
            covariance=covariance,
            anchor_box=boxes[rows],
            anchor_mean=mean.copy(),
            anchor_covariance=covariance.copy(),
            seen=np.full(count, now),
            hits=np.ones(count, np.int64),
            misses=np.zeros(count, np.int64),
            embedding=np.zeros((count, embedding_size)) if embeddings is None else embeddings[rows],
        )


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair; `(M, 4)` and `(N, 4)` xyxy to `(M, N)`. Boxes without area overlap
    nothing.
    """
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.maximum(high - low, 0.0)  # (M, N, 2)
    shared = sides[..., 0] * sides[..., 1]
    area_first = (first[:, 2] - first[:, 0]) * (first[:, 3] - first[:, 1])
    area_second = (second[:, 2] - second[:, 0]) * (second[:, 3] - second[:, 1])
    return shared / np.maximum(area_first[:, None] + area_second[None, :] - shared, 1e-12)


def assign(cost: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of least total cost, where leaving a pair unmatched costs `limit`.

    Args:
        cost: `(M, N)`; infinite where a pair is forbidden.
        limit: pairs at or above it are never returned.

    Returns:
        Row and column numbers of the pairs.
    """
    if not cost.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    # Capped, not set to a huge number: a huge one would force bad pairs only to make more of them.
    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    good = cost[rows, columns] < limit
    return rows[good], columns[good]
