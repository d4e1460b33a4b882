"""Association of detections over time: boxes, scores and embeddings in, identities out.

Written from the papers: matching in two stages by score, with the score in the first stage's cost (ByteTrack, arXiv
2110.06864), overlap weighted by the overlap of heights (Hybrid-SORT, arXiv 2308.00783), appearance as an exponential
mean of embeddings with gates (FairMOT, arXiv 2004.01888, and BoT-SORT, arXiv 2206.14651). All tracks live in one table
of arrays; nothing is done object by object.
"""

from dataclasses import dataclass, field, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..processing.motion_kinetrack import BoxMotion, cxcywh_to_xyxy

# 99.9 % quantile of a chi-square with two degrees of freedom: a place that a track can have reached.
_REACH = 13.8
# Seconds without a source after which nobody can be taken for who was there before.
_LONGEST_BRIDGE = 60.0


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
    """Every track that is alive, one row each (M rows)."""

    track_id: np.ndarray  # (M,) int64, 0 until confirmed; ascending
    class_id: np.ndarray  # (M,) int64
    mean: np.ndarray  # (M, 8)
    covariance: np.ndarray  # (M, 3, 4)
    seen: np.ndarray  # (M,) seconds, time of the last observation
    sure: np.ndarray  # (M,) seconds, time of the last observation with a high score
    hits: np.ndarray  # (M,) int64, observations so far
    misses: np.ndarray  # (M,) int64, frames since the last observation
    embedding: np.ndarray  # (M, E) float32, zero rows where no embedding was given

    @classmethod
    def empty(cls, embedding_size: int = 0) -> "TrackTable":
        """A table without rows."""
        whole = np.zeros(0, np.int64)
        places = np.zeros((0, 8)), np.zeros((0, 3, 4)), np.zeros(0), np.zeros(0)
        return cls(whole, whole, *places, whole, whole, np.zeros((0, embedding_size), np.float32))

    def __len__(self) -> int:
        return len(self.track_id)

    def keep(self, rows: np.ndarray) -> "TrackTable":
        """The rows of a mask, as a new table; the same table if it is all of them."""
        if rows.all():
            return self
        return TrackTable(**{name: value[rows] for name, value in vars(self).items()})

    def append(self, other: "TrackTable") -> "TrackTable":
        """Both tables one after the other."""
        return TrackTable(**{name: np.concatenate([value, getattr(other, name)]) for name, value in vars(self).items()})


class KineTracker:
    """Gives identities to detections, frame by frame.

    A detection above `high_threshold` may continue any track or, above `new_track_threshold` too, start one; one above
    `low_threshold` may only continue a track that found nothing better (an occluded person's score drops before the
    person is gone). A track is reported from its `min_hits`-th observation on, is kept for `max_lost_seconds` without
    one, and meanwhile is found again by its motion or, given embeddings, by its looks wherever it can have gone.

    The thresholds of the scores are those of ByteTrack's paper; a detector with other scores wants others.

    Args:
        high_threshold: score from which a detection takes part in the first stage.
        low_threshold: score below which a detection is ignored.
        new_track_threshold: score from which an unmatched detection starts a track; never below `high_threshold`.
        min_hits: observations in consecutive frames before a track is reported. Tracks of the first frame are reported
            at once.
        min_similarity: overlap × overlap of heights × score needed in the first stage.
        min_iou_low: overlap needed in the second stage (low scores).
        appearance_weight: share of the embedding's cosine distance in the first stage's cost, when embeddings are
            given.
        max_appearance_distance: cosine distance (0 to 2) up to which looks alone may re-identify a track.
        embedding_momentum: weight of the past in a track's mean embedding.
        max_lost_seconds: how long a lost track is kept.
        max_unsure_seconds: how long detections below `high_threshold` alone may carry a track. They are there to bridge
            an occlusion; without an end, one confident mistake about a lamp post is followed for as long as it stands.
        max_tracks: tracks kept at most; the ones lost for longest go first.
        frame_rate: frames a second of a source that gives no times.
        motion: noise of the motion model; the defaults of `BoxMotion` when None.

    Raises:
        ValueError: if a setting is outside its range.
    """

    def __init__(
        self,
        *,
        high_threshold: float = 0.6,
        low_threshold: float = 0.1,
        new_track_threshold: float = 0.7,
        min_hits: int = 2,
        min_similarity: float = 0.15,
        min_iou_low: float = 0.4,
        appearance_weight: float = 0.3,
        max_appearance_distance: float = 0.3,
        embedding_momentum: float = 0.9,
        max_lost_seconds: float = 1.5,
        max_unsure_seconds: float = 3.0,
        max_tracks: int = 1000,
        frame_rate: float = 30.0,
        motion: BoxMotion | None = None,
    ):
        shares = {
            "min_similarity": min_similarity,
            "min_iou_low": min_iou_low,
            "appearance_weight": appearance_weight,
            "embedding_momentum": embedding_momentum,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
        if low_threshold > high_threshold:
            raise ValueError(f"low_threshold ({low_threshold}) must not exceed high_threshold ({high_threshold}).")
        if min_hits < 1 or max_tracks < 1:
            raise ValueError(f"min_hits and max_tracks must be at least 1, got {min_hits} and {max_tracks}.")
        for name, value in (("max_lost_seconds", max_lost_seconds), ("max_unsure_seconds", max_unsure_seconds)):
            if not value >= 0:
                raise ValueError(f"{name} must be at least 0, got {value}.")
        if not frame_rate > 0:
            raise ValueError(f"frame_rate must be positive, got {frame_rate}.")
        self.high_threshold = high_threshold
        self.low_threshold = low_threshold
        self.new_track_threshold = new_track_threshold
        self.min_hits = min_hits
        self.min_similarity = min_similarity
        self.min_iou_low = min_iou_low
        self.appearance_weight = appearance_weight
        self.max_appearance_distance = max_appearance_distance
        self.embedding_momentum = embedding_momentum
        self.max_lost_seconds = max_lost_seconds
        self.max_unsure_seconds = max_unsure_seconds
        self.max_tracks = max_tracks
        self.frame_rate = frame_rate
        self.motion = motion or BoxMotion()
        self.reset()

    def reset(self) -> None:
        """Forget every track and start counting identities from 1 again."""
        self._table = TrackTable.empty()
        self._next_id = 1
        self._time: float | None = None

    @property
    def known_ids(self) -> np.ndarray:
        """Identities that are alive, seen in the last frame or still remembered; `(K,)` int64."""
        return self._table.track_id[self._table.track_id > 0]

    def state_dict(self) -> dict:
        """Everything `load_state_dict` needs to go on from here, as arrays and numbers (settings not included)."""
        table = {name: value.copy() for name, value in vars(self._table).items()}
        return {"table": table, "next_id": self._next_id, "time": self._time}

    def load_state_dict(self, state: dict) -> None:
        """Continue from a `state_dict`.

        Raises:
            ValueError: if the state does not come from a tracker of this version.
        """
        expected = {column.name for column in fields(TrackTable)}
        table = state.get("table", {})
        if set(table) != expected or not {"next_id", "time"} <= set(state):
            raise ValueError(f"Not a state of this KineTracker: got keys {sorted(state)}, table {sorted(table)}.")
        self._table = TrackTable(**{name: np.array(value) for name, value in table.items()})
        self._next_id = int(state["next_id"])
        self._time = None if state["time"] is None else float(state["time"])

    def update(self, detections, time: float | None = None) -> Tracks:
        """Take the next frame's detections and return the tracks seen in it.

        Args:
            detections: `Detections`, `supervision.Detections` or anything with their attributes; it may be empty.
            time: time of the frame in seconds, later than the last one; None: one frame of `frame_rate` later.

        Returns:
            The confirmed tracks matched in this frame.

        Raises:
            ValueError: on a box, score or embedding that is not finite, wrong shapes, or a time that does not move
                forward. The tracker is left as it was.
        """
        boxes, scores, classes, embeddings = self._read(detections)
        now, seconds = self._clock(time)
        first = self._time is None
        self._time = now
        table = self._table.keep(now - self._table.seen <= self.max_lost_seconds + seconds)
        if embeddings is not None and not table.embedding.shape[1]:
            table.embedding = np.zeros((len(table), embeddings.shape[1]), np.float32)
        table.mean, table.covariance = self.motion.predict(table.mean, table.covariance, seconds)
        table.misses = table.misses + 1
        # (M,) row of the detection, -1 for none
        matched = self._associate(table, boxes, scores, classes, embeddings, now)
        self._observe(table, matched, boxes, scores, embeddings, now)

        free = scores >= max(self.new_track_threshold, self.high_threshold)
        free[matched[matched >= 0]] = False
        if free.any():
            free = np.flatnonzero(free)
            table = table.append(self._start(free, boxes, classes, embeddings, now, table.embedding.shape[1]))
            matched = np.concatenate([matched, free])
        alive = (matched >= 0) | ((table.track_id > 0) & (now - table.seen <= self.max_lost_seconds))
        if len(alive) > self.max_tracks:
            alive[np.argsort(np.where(alive, table.misses, np.inf), kind="stable")[self.max_tracks :]] = False
        matched, table = matched[alive], table.keep(alive)
        ready = (table.track_id == 0) & ((table.hits >= self.min_hits) | first)
        if ready.any():
            count = int(ready.sum())
            table.track_id[ready] = self._next_id + np.arange(count)
            self._next_id += count
        self._table = table
        shown = (matched >= 0) & (table.track_id > 0)
        rows = matched[shown]
        return Tracks(table.track_id[shown], boxes[rows], scores[rows], table.class_id[shown], rows)

    def bridge(self, seconds: float) -> None:
        """Let time pass in which nobody could be seen because the source itself was away.

        No track is given up for that: each waits where it was last, and the place where it may be found
        again widens with the time. `max_lost_seconds` counts the rest. After a minute all are given up.

        Args:
            seconds: how long. Times given to `update` go on from then.
        """
        if self._time is None or not seconds > 0:
            return
        self._time += seconds
        table = self._table
        if seconds <= _LONGEST_BRIDGE:
            table.seen, table.sure = table.seen + seconds, table.sure + seconds
            table.mean, table.covariance = self.motion.lose_sight(table.mean, table.covariance, seconds)

    def rescale(self, x: float, y: float) -> None:
        """Follow a source that shows the same view in other pixels from now on: every track keeps its identity.

        Args:
            x: new width over old width.
            y: new height over old height.
        """
        scale = np.array([x, y, x, y])
        table = self._table
        table.mean, table.covariance = table.mean * np.tile(scale, 2), table.covariance * np.square(scale)

    def _read(self, detections):
        """Check what was given; boxes, scores and classes, and embeddings of length one (or None)."""
        boxes = np.asarray(detections.xyxy, np.float64)
        boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"detections.xyxy must have shape (N, 4), got {boxes.shape}.")
        count = len(boxes)
        scores = np.ones(count) if detections.confidence is None else np.asarray(detections.confidence, np.float64)
        class_id = getattr(detections, "class_id", None)
        classes = np.zeros(count, np.int64) if class_id is None else np.asarray(class_id).astype(np.int64)
        for name, value in (("confidence", scores), ("class_id", classes)):
            if value.shape != (count,):
                raise ValueError(f"detections.{name} must have shape ({count},) like the boxes, got {value.shape}.")
        embeddings = (getattr(detections, "data", None) or {}).get("embedding") if count else None
        if embeddings is not None:
            embeddings = np.asarray(embeddings, np.float32)
            size = self._table.embedding.shape[1]
            if embeddings.ndim != 2 or len(embeddings) != count:
                raise ValueError(f'data["embedding"] must have shape ({count}, E), got {embeddings.shape}.')
            if size and embeddings.shape[1] != size:
                raise ValueError(
                    f"Embeddings have {embeddings.shape[1]} numbers, earlier ones had {size}: call reset() before "
                    "changing the model."
                )
        for name, value in (("xyxy", boxes), ("confidence", scores), ('data["embedding"]', embeddings)):
            if value is not None and not np.isfinite(value).all():
                rows = np.flatnonzero(~np.isfinite(value.reshape(count, -1)).all(axis=1))
                raise ValueError(f"detections.{name} is not finite in rows {rows[:10].tolist()}: drop them first.")
        if (boxes[:, 2:] < boxes[:, :2]).any():
            rows = np.flatnonzero((boxes[:, 2:] < boxes[:, :2]).any(axis=1))
            raise ValueError(f"Boxes must be xyxy with x2 ≥ x1 and y2 ≥ y1; rows {rows[:10].tolist()} are not.")
        if embeddings is not None:
            embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return boxes, scores, classes, embeddings

    def _clock(self, time: float | None) -> tuple[float, float]:
        """Time of this frame and seconds since the last."""
        step = 1.0 / self.frame_rate
        if time is None:
            return (0.0 if self._time is None else self._time + step), step
        now = float(time)
        if not np.isfinite(now):
            raise ValueError(f"time must be a finite number of seconds, got {time}.")
        if self._time is None:
            return now, step
        if now <= self._time:
            raise ValueError(f"time must move forward: got {now} s after {self._time} s. Call reset() for a new video.")
        return now, now - self._time

    def _associate(self, table, boxes, scores, classes, embeddings, now) -> np.ndarray:
        """All stages; for every track the row of its detection, or -1."""
        matched = np.full(len(table), -1, np.int64)
        if not len(table) or not len(boxes):
            return matched
        predicted = cxcywh_to_xyxy(table.mean[:, :4])
        high = np.flatnonzero(scores >= self.high_threshold)
        low = np.flatnonzero((scores >= self.low_threshold) & (scores < self.high_threshold))

        def settle(tracks, offered, cost, limit):
            """Match these tracks with these detections, classes apart."""
            cost = np.where(table.class_id[tracks, None] == classes[offered], cost, np.inf)
            rows, columns = assign(cost, limit)
            matched[tracks[rows]] = offered[columns]

        looks = None
        if len(high):
            iou, heights = box_overlap(predicted, boxes[high])
            distance = 1 - iou * heights * scores[high]
            limit = 1 - self.min_similarity
            if embeddings is not None:
                looks = 1 - table.embedding @ embeddings[high].T  # (M, N); 1 where a track has no embedding yet
                near = distance < limit
                distance += self.appearance_weight * (np.minimum(looks, 1.0) - distance)
                distance[~near], limit = np.inf, 1.0
            settle(np.arange(len(table)), high, distance, limit)
        if len(low):
            tracks = np.flatnonzero((matched < 0) & (now - table.sure <= self.max_unsure_seconds))
            iou, _ = box_overlap(predicted[tracks], boxes[low])
            settle(tracks, low, 1 - iou, 1 - self.min_iou_low)
        if looks is not None:
            taken = np.zeros(len(boxes), bool)
            taken[matched[matched >= 0]] = True
            tracks, left = np.flatnonzero(matched < 0), ~taken[high]
            if len(tracks) and left.any():
                reach = self.motion.distance(table.mean[tracks], table.covariance[tracks], boxes[high[left]]) < _REACH
                cost = np.where(reach, looks[tracks][:, left], np.inf)
                settle(tracks, high[left], cost, self.max_appearance_distance)
        return matched

    def _observe(self, table, matched, boxes, scores, embeddings, now) -> None:
        """Correct the matched tracks with their detections, in place."""
        rows = np.flatnonzero(matched >= 0)
        if not len(rows):
            return
        detections = matched[rows]
        certainty = scores[detections]
        table.mean[rows], table.covariance[rows] = self.motion.update(
            table.mean[rows], table.covariance[rows], boxes[detections], certainty
        )
        table.seen[rows] = now
        table.hits[rows] += 1
        table.misses[rows] = 0
        sure = certainty >= self.high_threshold
        table.sure[rows[sure]] = now
        if embeddings is None:
            return
        # A half-hidden person looks like the one in front, so only sure detections teach what somebody looks like.
        rows, new = rows[sure], embeddings[detections[sure]]
        old = table.embedding[rows]
        mixed = self.embedding_momentum * old + (1 - self.embedding_momentum) * new
        table.embedding[rows] = mixed / np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)

    def _start(self, rows, boxes, classes, embeddings, now, embedding_size) -> TrackTable:
        """New tentative tracks from the given detections."""
        mean, covariance = self.motion.initiate(boxes[rows])
        count = len(rows)
        return TrackTable(
            track_id=np.zeros(count, np.int64),
            class_id=classes[rows],
            mean=mean,
            covariance=covariance,
            seen=np.full(count, now),
            sure=np.full(count, now),
            hits=np.ones(count, np.int64),
            misses=np.zeros(count, np.int64),
            embedding=np.zeros((count, embedding_size), np.float32) if embeddings is None else embeddings[rows],
        )


def box_overlap(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intersection over union of every pair of boxes, and of their vertical extents alone.

    Args:
        first: `(M, 4)` xyxy.
        second: `(N, 4)` xyxy.

    Returns:
        Two `(M, N)` arrays; boxes without area overlap nothing.
    """
    x1, y1, x2, y2 = first.T[:, :, None]  # (M, 1) each
    u1, v1, u2, v2 = second.T[:, None]  # (1, N) each
    width = np.maximum(np.minimum(x2, u2) - np.maximum(x1, u1), 0.0)  # (M, N)
    height = np.maximum(np.minimum(y2, v2) - np.maximum(y1, v1), 0.0)
    shared = width * height
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared
    heights = (y2 - y1) + (v2 - v1) - height
    return shared / np.maximum(union, 1e-12), height / np.maximum(heights, 1e-12)


def assign(cost: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of least total cost, where leaving a pair unmatched costs `limit`.

    Args:
        cost: `(M, N)`; infinite where a pair is forbidden.
        limit: pairs at or above it are never returned.

    Returns:
        Row and column numbers of the pairs.
    """
    # Capped, not set to a huge number: a huge one would force bad pairs only to make more of them.
    rows, columns = linear_sum_assignment(np.minimum(cost, limit))
    good = cost[rows, columns] < limit
    return rows[good], columns[good]
