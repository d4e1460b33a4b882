"""Average precision against a naive implementation, and the two mAPs against counting by hand."""

import numpy as np
import pytest
from kinetrack.hub_scripts.metrics.action_detection import DetectedActions, LabelledActor, score_action_detection
from kinetrack.hub_scripts.metrics.average_precision import average_precision, match_by_score, precision_recall


def naive(scores, hits, positives):
    """By the definition: for each different score a cut; the integral of the best precision at that recall or more."""
    points = []
    for cut in sorted(set(scores), reverse=True):
        found = sum(h for s, h in zip(scores, hits, strict=True) if s >= cut)
        points.append((found / positives, found / sum(s >= cut for s in scores)))
    area, reached = 0.0, 0.0
    for number, (recall, _) in enumerate(points):
        area += (recall - reached) * max(precision for _, precision in points[number:])
        reached = recall
    return area


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 60))
    scores = rng.integers(0, 20, count) / 20  # many equal ones
    hits = rng.random(count) < 0.5
    positives = max(int(hits.sum()) + int(rng.integers(0, 5)), 1)
    assert average_precision(scores, hits, positives) == pytest.approx(naive(scores, hits, positives))


def test_extremes():
    assert average_precision([0.9, 0.8, 0.1], [True, True, False], 2) == 1
    assert average_precision([0.9, 0.8], [False, True], 1) == 0.5
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0
    precision, recall = precision_recall([0.5, 0.5], [True, False], 1)
    assert precision.tolist() == [0.5] and recall.tolist() == [1.0], "equal scores enter together"
    with pytest.raises(ValueError, match="nothing to be found"):
        average_precision([0.5], [False], 0)
    with pytest.raises(ValueError, match="one shape"):
        average_precision([0.5], [False, True], 1)


def test_a_truth_is_found_once():
    overlaps = np.array([[0.6, 0.0], [0.9, 0.0], [0.4, 0.0], [0.0, 0.7]])
    assert match_by_score(np.array([0.8, 0.9, 0.7, 0.1]), overlaps, 0.5).tolist() == [False, True, False, True]
    assert match_by_score(np.array([0.8]), np.zeros((1, 0)), 0.5).tolist() == [False]


def actor(label, frames=4):
    return LabelledActor(np.tile([10.0, 10, 30, 50], (frames, 1)), label)


def detected(rows, classes=2):
    """Rows (frame, track, left, scores…)."""
    table = np.array(rows, float).reshape(-1, 3 + classes)
    boxes = np.stack([table[:, 2], np.full(len(table), 10), table[:, 2] + 20, np.full(len(table), 50)], axis=1)
    return DetectedActions(table[:, 0].astype(int), table[:, 1].astype(int), boxes, table[:, 3:])


def test_perfect_detections_have_a_map_of_one():
    clips = [detected([(t, 1, 10, 0.9, 0.1) for t in range(4)]), detected([(t, 1, 10, 0.2, 0.8) for t in range(4)])]
    scores = score_action_detection(clips, [actor(0), actor(1)], ["walk", "run"])
    assert scores["frame_map"] == scores["video_map"] == 1 and scores["recall"] == 1
    assert scores["frames"] == 8 and scores["detections"] == 8


def test_a_bystander_is_a_false_positive():
    people = [(t, 1, 10, 0.6, 0.0) for t in range(4)] + [(t, 2, 60, 0.9, 0.0) for t in range(4)]
    scores = score_action_detection([detected(people)], [actor(0)], ["walk", "run"])
    # Four bystanders are ranked above the actor's four boxes: precision is 4/8 once everything is found.
    assert scores["frame_ap"] == {"walk": 0.5} and scores["video_ap"] == {"walk": 0.5}


def test_another_class_in_another_clip_counts_against_the_class():
    clips = [detected([(0, 1, 10, 0.5, 0.0)]), detected([(0, 1, 10, 0.9, 0.1)])]
    scores = score_action_detection(clips, [actor(0, 1), actor(1, 1)], ["walk", "run"])
    assert scores["frame_ap"] == {"walk": 0.5, "run": 1.0}


def test_a_tube_is_judged_over_all_its_frames():
    half = [(t, 1, 10, 0.9, 0.0) for t in range(2)]  # half of the actor's frames: overlap exactly 0.5
    score = score_action_detection([detected(half)], [actor(0)], ["walk", "run"])
    assert score["video_map"] == 1 and score["frame_map"] == 0.5
    short = score_action_detection([detected(half[:1])], [actor(0)], ["walk", "run"])
    assert short["video_map"] == 0 and short["frame_map"] == 0.25
    # Two tubes on one actor: the second is a double.
    twice = half + [(t, 2, 10, 0.95, 0.0) for t in range(4)]
    assert score_action_detection([detected(twice)], [actor(0)], ["walk", "run"])["video_map"] == 1


def test_frames_beyond_or_without_a_box_are_background():
    truth = LabelledActor(np.array([[10.0, 10, 30, 50], [np.nan] * 4]), 0)
    scores = score_action_detection([detected([(t, 1, 10, 0.9, 0) for t in range(3)])], [truth], ["walk", "run"])
    assert scores["frames"] == 1 and scores["frame_map"] == pytest.approx(1 / 3)


def test_nothing_detected_and_nothing_to_detect():
    assert score_action_detection([detected([])], [actor(0)], ["walk", "run"])["frame_map"] == 0
    with pytest.raises(ValueError, match="No clip has"):
        score_action_detection([detected([])], [LabelledActor(np.full((2, 4), np.nan), 0)], ["walk", "run"])
    with pytest.raises(ValueError, match="Detections of 0 clips"):
        score_action_detection([], [actor(0)], ["walk", "run"])
