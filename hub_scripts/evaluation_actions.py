"""What is measured on labelled clips beyond their own class: two actors side by side, other frame rates, detection.

All of it runs the session over clips whose labelled actor has boxes, and scores people rather than clips.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..processing.clip_score_kinetrack import ClipScore
from ..processing.decoding_kinetrack import VideoFrame, iter_video_frames
from ..processing.session_kinetrack import KineTrackSession
from .data.annotations import box_iou, read_actor_boxes
from .evaluation_items import LabelledClip
from .evaluation_runs import RegionSession, Stopwatch, classify_clip, classify_people
from .metrics.action_detection import DetectedActions, LabelledActor, score_action_detection

RATES = (10.0, 15.0, 30.0)
# Ranking wants the unsure detections as well; what is shown to people starts at the model's own threshold.
DETECTION_FLOOR = 0.1


@dataclass(frozen=True)
class ActorClip:
    """A clip of the primary label group with its labelled actor.

    Attributes:
        clip: the video.
        label: class number.
        boxes: (frames, 4) xyxy in pixels of the video, NaN in frames without a box.
    """

    clip: LabelledClip
    label: int
    boxes: np.ndarray


def read_actor(clip: LabelledClip, label: int) -> ActorClip | None:
    """The clip with its actor's boxes, None if there is no file of them; boxes beyond the last frame do not count."""
    file = clip.boxes_file
    if file is None:
        return None
    count = sum(1 for _ in iter_video_frames(clip.path))
    return ActorClip(clip, label, read_actor_boxes(file, count))


def draw_pairs(labels: Sequence[int], seed: int = 0) -> list[tuple[int, int]]:
    """Pairs of different classes in which everything is once on the left and once on the right, as far as that goes.

    A random matching whose same-class pairs swap partners until none is left; what cannot be resolved is left out.

    Args:
        labels: (N,) class numbers.
        seed: another seed, another matching.

    Returns:
        At most N pairs of positions in `labels`, sorted by the left one.
    """
    rng = np.random.default_rng(seed)
    labels = np.asarray(labels)
    right = rng.permutation(len(labels))
    for left in range(len(labels)):
        if labels[left] != labels[right[left]]:
            continue
        fits = np.flatnonzero((labels != labels[right[left]]) & (labels[right] != labels[left]))
        if len(fits):
            other = rng.choice(fits)
            right[left], right[other] = right[other], right[left]
    return [(left, int(right[left])) for left in range(len(labels)) if labels[left] != labels[right[left]]]


def stitch(left: ActorClip, right: ActorClip) -> Iterator[tuple[VideoFrame, np.ndarray]]:
    """Two clips side by side, frame by frame, cut to the shorter, at the height of the lower.

    Yields:
        The frame, with the left clip's time, and the boxes (2, 4) of both actors in its pixels.
    """
    frames = zip(iter_video_frames(left.clip.path), iter_video_frames(right.clip.path), strict=False)
    for index, pair in enumerate(frames):
        height = min(frame.image.shape[0] for frame in pair)
        images, boxes, start = [], [], 0
        for frame, actor in zip(pair, (left, right), strict=True):
            scale = height / frame.image.shape[0]
            width = round(frame.image.shape[1] * scale)
            same = scale == 1
            images.append(frame.image if same else np.asarray(Image.fromarray(frame.image).resize((width, height))))
            boxes.append(actor.boxes[index] * scale + np.array([start, 0, start, 0]))
            start += width
        yield VideoFrame(np.concatenate(images, axis=1), pair[0].time, index), np.stack(boxes)


def two_actors(model, processor, actors: list[ActorClip], seed: int = 0, tracked: bool = False, **options) -> dict:
    """Can the model tell who does what? Clips of different classes play side by side, and both people count.

    Args:
        model: with an action head (and a tracking head for `tracked`).
        processor: the model's.
        actors: clips of several classes.
        seed: of the pairing.
        tracked: also through the boxes of the session's own tracks: to each actor belongs the track that overlaps
            them most over the clip, and there is no answer where none does by half on average.
        **options: of the session.

    Returns:
        `pairs`; in per cent `both_right`, `person_right` (of all people), `copied_clip_label` (both right when the
        clip's label is given to both, which is never for two classes), `gain` (both_right - copied_clip_label),
        `clip_label_is_one_of_them`, and, with `tracked`, `tracked_both_right` and `tracked_person_right`.
    """
    pairs = draw_pairs([actor.label for actor in actors], seed)
    if not pairs:
        raise ValueError("Two actors want clips of at least two classes, with boxes of their actors.")
    given = RegionSession(model, processor, **options)
    free = KineTrackSession(model, processor, task="both", **options) if tracked else None
    right, copied, one_of, tracked_right = [], [], [], []
    for pair in pairs:
        frames, boxes = zip(*stitch(*(actors[number] for number in pair)), strict=True)
        wanted = np.array([actors[number].label for number in pair])
        clip, people = classify_people(given, frames, np.stack(boxes), Stopwatch())
        answers = np.array([-1 if person is None else int(person.argmax()) for person in people])
        right.append(answers == wanted)
        label = int(clip["actions"].argmax())
        copied.append((label == wanted).all())
        one_of.append((label == wanted).any())
        if free is not None:
            answers = np.array([_tracked_answer(person) for person in follow_people(free, frames, np.stack(boxes))])
            tracked_right.append(answers == wanted)
    right = np.array(right)  # (pairs, 2)
    scores = {
        "pairs": len(pairs),
        "seed": seed,
        "both_right": 100 * float(right.all(1).mean()),
        "person_right": 100 * float(right.mean()),
        "copied_clip_label": 100 * float(np.mean(copied)),
        "clip_label_is_one_of_them": 100 * float(np.mean(one_of)),
    }
    scores["gain"] = scores["both_right"] - scores["copied_clip_label"]
    if tracked:
        scores["tracked_both_right"] = 100 * float(np.array(tracked_right).all(1).mean())
        scores["tracked_person_right"] = 100 * float(np.array(tracked_right).mean())
    return scores


def _tracked_answer(person: np.ndarray | None) -> int:
    return -1 if person is None else int(person.argmax())


def follow_people(session: KineTrackSession, source, boxes: np.ndarray) -> list[np.ndarray | None]:
    """Action probabilities of the tracks that belong to given people.

    Args:
        session: with tracking and actions; it starts anew.
        source: as for `KineTrackSession.run`.
        boxes: (frames, P, 4) xyxy pixels, NaN where a person is not there.

    Returns:
        For each of the P people (num_labels,) by the windows of `ClipScore`, or None if no track overlaps them by half
        on average over the frames in which they have a box.
    """
    session.reset()
    ticks, overlap = [], {}
    for result in session.run(source):
        here = np.nan_to_num(box_iou(result.boxes, boxes[result.frame_index]))  # (N, P)
        for identity, row in zip(result.track_ids.tolist(), here, strict=True):
            overlap[identity] = overlap.get(identity, 0.0) + row
        if result.updated:
            ticks.append(dict(zip(result.track_ids.tolist(), result.actions, strict=True)))
    lengths = np.isfinite(boxes).all(2).sum(0)  # (P,)
    answers = []
    for person in range(boxes.shape[1]):
        best = max(overlap, key=lambda identity: overlap[identity][person], default=None)
        if best is None or overlap[best][person] < 0.5 * lengths[person]:
            answers.append(None)
            continue
        score = ClipScore(session.model.config.attention_window)
        for tick in ticks:
            score.add(tick.get(best))
        mean = score.mean()
        answers.append(None if mean is None else mean["actions"])
    return answers


def resample(frames: Iterable[VideoFrame], rate: float) -> Iterator[VideoFrame]:
    """The same video at another frame rate: at every tick the frame that is on the screen, so frames drop or repeat.

    Args:
        frames: with times in seconds; the last is shown for as long as the one before it.
        rate: Hz.
    """
    origin, shown, gap, count = None, None, 1 / 30, 0
    for frame in frames:
        if shown is None:
            origin = frame.time
        else:
            gap = frame.time - shown.time
            while origin + count / rate < frame.time - 1e-6:
                yield VideoFrame(shown.image, origin + count / rate, count)
                count += 1
        shown = frame
    while shown is not None and origin + count / rate < shown.time + gap - 1e-6:
        yield VideoFrame(shown.image, origin + count / rate, count)
        count += 1


def label_stability(model, processor, clips: list[tuple[Path, int]], rates=RATES, **options) -> dict:
    """Does a clip's label depend on the frame rate it is played at?

    Args:
        model: with an action head.
        processor: the model's.
        clips: videos and class numbers of the primary group.
        rates: Hz.
        **options: of the session.

    Returns:
        `top1` in per cent by rate, `spread` (largest less smallest of them), `agreement` (share of clips with one label
        at all rates) and `clips`.
    """
    session = KineTrackSession(model, processor, task="actions", **options)
    answers = np.array(
        [
            [
                classify_clip(session, list(resample(iter_video_frames(path), rate)), Stopwatch())["actions"].argmax()
                for rate in rates
            ]
            for path, _ in clips
        ]
    )  # (clips, rates)
    top1 = 100 * (answers == np.array([label for _, label in clips])[:, None]).mean(0)
    return {
        "top1": {f"{rate:g}": float(value) for rate, value in zip(rates, top1, strict=True)},
        "spread": float(top1.max() - top1.min()),
        "agreement": 100 * float((answers == answers[:, :1]).all(1).mean()),
        "clips": len(clips),
    }


def detect_actions(model, processor, actors: list[ActorClip], person: int, names: list[str], **options) -> dict:
    """Frame-mAP and video-mAP at 0.5 of the session's own tracks, see `score_action_detection`.

    Args:
        model: with both heads.
        processor: the model's.
        actors: clips with their labelled actors.
        person: the object class of people.
        names: the classes.
        **options: of the session; `threshold` defaults to `DETECTION_FLOOR`.

    Returns:
        As `score_action_detection`, with the `detection_threshold` used.
    """
    options["threshold"] = DETECTION_FLOOR if options.get("threshold") is None else options["threshold"]
    session = KineTrackSession(model, processor, task="both", **options)
    detected = [_detect(session, actor, person) for actor in actors]
    truth = [LabelledActor(actor.boxes, actor.label) for actor in actors]
    return score_action_detection(detected, truth, names) | {"detection_threshold": options["threshold"]}


def _detect(session: KineTrackSession, actor: ActorClip, person: int) -> DetectedActions:
    session.reset()
    classes = session.model.config.num_labels
    found = DetectedActions(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros((0, classes)))
    parts = [found]
    for result in session.run(actor.clip.path):
        people = result.labels == person
        parts.append(
            DetectedActions(
                np.full(people.sum(), result.frame_index),
                result.track_ids[people],
                result.boxes[people],
                result.scores[people, None] * result.actions[people],
            )
        )
    return DetectedActions(
        *(np.concatenate(column) for column in zip(*(vars(part).values() for part in parts), strict=True))
    )
