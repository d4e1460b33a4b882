"""Association: who is who, on scenes small enough to know the answer."""

import pickle
import time

import numpy as np
import pytest
from kinetrack.processing.tracking_kinetrack import Detections, KineTracker, assign, box_overlap

PERSON = np.array([0.0, 0.0, 40.0, 100.0])


def person(x, y=100.0):
    return PERSON + np.array([x, y, x, y])


def see(boxes, scores=None, looks=None, classes=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    data = {} if looks is None else {"embedding": np.array(looks, float)}
    return Detections(boxes, np.full(len(boxes), 0.9) if scores is None else np.array(scores), classes, data)


def follow(tracker, scenes, times=None):
    """Identities by detection index, per frame; 0 where a detection has none."""
    found = []
    for number, scene in enumerate(scenes):
        tracks = tracker.update(scene, None if times is None else times[number])
        ids = np.zeros(len(scene), int)
        ids[tracks.detection_index] = tracks.track_id
        found.append(ids.tolist())
    return found


def test_walkers_keep_their_identities():
    scenes = [see([person(10 + 3 * t), person(600 - 3 * t), person(200, 400 - t)]) for t in range(60)]
    assert follow(KineTracker(), scenes) == [[1, 2, 3]] * 60


def test_the_order_of_detections_does_not_matter():
    rng = np.random.default_rng(0)
    first, second = KineTracker(), KineTracker()
    pairs = set()
    for t in range(40):
        boxes = np.array([person(10 + 3 * t), person(500 - 3 * t), person(300, 400), person(305, 200 + t)])
        order = rng.permutation(4)
        ours, theirs = first.update(see(boxes)), second.update(see(boxes[order]))
        back = np.argsort(order[theirs.detection_index])
        np.testing.assert_array_equal(ours.xyxy[np.argsort(ours.detection_index)], theirs.xyxy[back])
        pairs |= set(zip(ours.track_id[np.argsort(ours.detection_index)], theirs.track_id[back], strict=True))
    assert len(pairs) == 4


def test_a_new_track_is_reported_from_its_second_sighting():
    scenes = [see([person(0)])] + [see([person(0), person(300)])] * 3
    assert follow(KineTracker(), scenes) == [[1], [1, 0], [1, 2], [1, 2]]


def test_a_single_flash_uses_up_no_identity():
    empty = see([])
    scenes = [see([person(0)]), see([person(0), person(300)]), see([person(0)]), see([person(0), person(500)])]
    scenes += [see([person(0), person(500)])]
    assert follow(KineTracker(), scenes)[-1] == [1, 2]
    assert len(KineTracker().update(empty)) == 0


def test_a_low_score_continues_a_track_but_starts_none():
    scenes = [see([person(2 * t), person(400)], scores=[0.9 if t < 5 else 0.3, 0.3]) for t in range(12)]
    assert follow(KineTracker(), scenes) == [[1, 0]] * 12
    assert follow(KineTracker(new_track_threshold=0.2), scenes) == [[1, 0]] * 12


def test_low_scores_alone_do_not_carry_a_track_for_ever():
    tracker = KineTracker(max_unsure_seconds=1.0)
    scenes = [see([person(100)], scores=[0.9 if t < 3 or t >= 80 else 0.3]) for t in range(90)]
    found = follow(tracker, scenes)
    assert found[:32] == [[1]] * 32  # three frames and a second of 30
    assert found[34:80] == [[0]] * 46
    assert found[-1] == [2]


def test_an_occlusion_between_sure_sightings_is_bridged_by_low_scores():
    scenes = [see([person(100)], scores=[0.9 if t % 40 == 0 else 0.3]) for t in range(200)]
    assert follow(KineTracker(), scenes) == [[1]] * 200


def test_a_score_below_everything_is_ignored():
    scenes = [see([person(0)])] * 3 + [see([person(0)], scores=[0.05])]
    assert follow(KineTracker(), scenes)[-1] == [0]


def test_a_walker_is_found_again_behind_a_pillar():
    scenes = [see([person(10 + 3 * t)] if not 20 <= t < 35 else []) for t in range(60)]
    assert follow(KineTracker(), scenes)[35:] == [[1]] * 25


def test_a_track_lost_for_too_long_is_another_one():
    tracker = KineTracker(max_lost_seconds=0.5)
    scenes = [see([person(100)])] * 10 + [see([])] * 16 + [see([person(100)])] * 3
    assert follow(tracker, scenes)[-1] == [2]
    assert tracker.known_ids.tolist() == [2]


@pytest.mark.parametrize(("looks", "identity"), [(True, 1), (False, 2)])
def test_looks_find_someone_who_reappears_elsewhere(looks, identity):
    red = [[1.0, 0.0, 0.0]] if looks else None
    blind = see([])
    scenes = [see([person(100)], looks=red)] * 10 + [blind] * 20 + [see([person(150, 140)], looks=red)] * 3
    assert follow(KineTracker(), scenes)[-1] == [identity]


def test_someone_else_in_the_same_neighbourhood_is_not_taken_for_the_lost_one():
    scenes = [see([person(100)], looks=[[1.0, 0.0]])] * 10 + [see([])] * 20
    scenes += [see([person(150, 140)], looks=[[0.0, 1.0]])] * 3
    assert follow(KineTracker(), scenes)[-1] == [2]


def test_looks_out_of_reach_are_not_believed():
    red = [[1.0, 0.0]]
    scenes = [see([person(100)], looks=red)] * 10 + [see([])] * 2 + [see([person(3000)], looks=red)] * 3
    assert follow(KineTracker(), scenes)[-1] == [2]


def test_looks_tell_two_people_apart_who_meet_and_turn_back():
    def scenes(with_looks):
        for t in range(60):
            away = 6.0 * abs(t - 30)
            looks = [[1.0, 0.0], [0.0, 1.0]] if with_looks else None
            yield see([person(300 - away), person(305 + away)], looks=looks)

    assert follow(KineTracker(appearance_weight=0.8), scenes(True))[-1] == [1, 2]


def test_classes_do_not_mix():
    tracker = KineTracker()
    scenes = [see([person(0)], classes=np.array([0]))] * 5 + [see([person(0)], classes=np.array([1]))] * 3
    assert follow(tracker, scenes) == [[1]] * 5 + [[0], [2], [2]]


def test_a_gap_in_time_is_a_longer_step():
    # 60 pixels a second for a second, then a gap of half a second: 30 pixels further, with little overlap left.
    times = [t / 30 for t in range(31)] + [1.0 + 0.7, 1.0 + 0.7 + 1 / 30]
    scenes = [see([person(120 * at)]) for at in times]
    assert follow(KineTracker(), scenes, times)[-1] == [1]
    assert follow(KineTracker(), scenes)[-1] != [1], "without times the same jump is too far"


def test_frame_rate_stands_in_for_missing_times():
    scenes = [see([person(5 * t)] if t not in (8, 9) else []) for t in range(20)]
    a, b = KineTracker(frame_rate=10.0), KineTracker()
    assert follow(a, scenes) == follow(b, scenes, [t / 10 for t in range(20)])
    np.testing.assert_allclose(a.state_dict()["table"]["mean"], b.state_dict()["table"]["mean"])


def noisy_scenes(count=40, people=12, seed=0):
    rng = np.random.default_rng(seed)
    places, speeds = rng.uniform(0, 600, (people, 2)), rng.normal(0, 4, (people, 2))
    looks = rng.normal(size=(people, 16))
    for t in range(count):
        seen = rng.random(people) > 0.15
        corners = (places + speeds * t + rng.normal(0, 1, (people, 2)))[seen]
        boxes = np.concatenate([corners, corners + (40, 100)], axis=1)
        near = looks[seen] + rng.normal(0, 0.3, (seen.sum(), 16))
        yield Detections(boxes, rng.uniform(0.2, 1.0, len(boxes)), None, {"embedding": near})


def test_saved_state_goes_on_as_if_nothing_had_happened():
    scenes = list(noisy_scenes())
    whole, before, after = KineTracker(), KineTracker(), KineTracker()
    expected = follow(whole, scenes)
    follow(before, scenes[:20])
    after.load_state_dict(pickle.loads(pickle.dumps(before.state_dict())))
    follow(before, scenes[20:])  # must not reach into the saved copy
    assert follow(after, scenes[20:]) == expected[20:]


def test_a_foreign_state_is_refused():
    with pytest.raises(ValueError, match="Not a state"):
        KineTracker().load_state_dict({"tracks": []})


def test_every_tracker_counts_for_itself():
    first, second = KineTracker(), KineTracker()
    follow(first, noisy_scenes())
    assert second.update(see([person(0), person(300)])).track_id.tolist() == [1, 2]
    first.reset()
    assert first.update(see([person(0)])).track_id.tolist() == [1]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (see([[0, 0, np.nan, 10]]), "xyxy is not finite in rows \\[0\\]"),
        (see([[0, 0, np.inf, 10]]), "xyxy is not finite"),
        (see([person(0)], scores=[np.nan]), "confidence is not finite"),
        (see([person(0)], looks=[[np.nan, 1.0]]), "embedding.* is not finite"),
        (see([[50, 0, 10, 10]]), "x2 ≥ x1"),
        (see([person(0)], scores=[0.5, 0.5]), "confidence must have shape"),
        (see([person(0)], looks=[[1.0], [1.0]]), "must have shape \\(1, E\\)"),
        (Detections(np.zeros((2, 5))), "shape \\(N, 4\\)"),
    ],
)
def test_bad_input_says_what_is_wrong_and_changes_nothing(bad, message):
    tracker = KineTracker()
    follow(tracker, [see([person(0)], looks=[[1.0, 0.0]])] * 3)
    before = pickle.dumps(tracker.state_dict())
    with pytest.raises(ValueError, match=message):
        tracker.update(bad)
    assert pickle.dumps(tracker.state_dict()) == before


def test_embeddings_of_another_size_are_refused():
    tracker = KineTracker()
    tracker.update(see([person(0)], looks=[[1.0, 0.0]]))
    with pytest.raises(ValueError, match="call reset"):
        tracker.update(see([person(0)], looks=[[1.0, 0.0, 0.0]]))


def test_embeddings_may_come_and_go():
    looks = [[1.0, 0.0]]
    scenes = [see([person(0)]), see([person(1)], looks=looks), see([person(2)]), see([]), see([person(3)], looks=looks)]
    assert follow(KineTracker(), scenes) == [[1], [1], [1], [], [1]]


@pytest.mark.parametrize("time_given", [1.0, 0.5, float("nan"), float("inf")])
def test_time_must_move_forward(time_given):
    tracker = KineTracker()
    tracker.update(see([person(0)]), 1.0)
    with pytest.raises(ValueError, match="time must"):
        tracker.update(see([person(0)]), time_given)
    assert len(tracker.update(see([person(0)]), 1.1)) == 1


def test_boxes_outside_the_frame_and_without_area_are_fine():
    scenes = [see([person(-500, -500), [10, 10, 10, 10]])] * 10
    assert follow(KineTracker(), scenes)[-1][0] == 1


def test_empty_frames_from_the_start():
    tracker = KineTracker()
    for scene in (see([]), Detections(np.zeros((0, 4)), np.zeros(0)), see([])):
        tracks = tracker.update(scene)
        assert len(tracks) == 0 and tracks.xyxy.shape == (0, 4)
    assert follow(tracker, [see([person(0)])] * 2) == [[0], [1]]


def test_takes_supervision_detections():
    supervision = pytest.importorskip("supervision")
    tracker = KineTracker()
    for _ in range(2):
        tracks = tracker.update(supervision.Detections(xyxy=person(0)[None], confidence=np.array([0.9])))
    assert tracks.track_id.tolist() == [1]
    assert len(tracker.update(supervision.Detections.empty())) == 0


def test_missing_scores_count_as_certain():
    tracker = KineTracker()
    assert tracker.update(Detections(person(0)[None])).track_id.tolist() == [1]


def test_memory_is_bounded():
    rng = np.random.default_rng(0)
    tracker = KineTracker(max_tracks=30, max_lost_seconds=1e6)
    for _ in range(200):
        corners = rng.uniform(0, 1e5, (10, 2))
        boxes = np.concatenate([corners, corners + (40, 100)], axis=1)
        tracker.update(see(boxes))
        tracker.update(see(boxes))
    assert len(tracker.state_dict()["table"]["track_id"]) <= 30


def test_arrays_handed_in_are_not_written_to():
    scenes = list(noisy_scenes(5))
    copies = pickle.loads(pickle.dumps(scenes))
    follow(KineTracker(), scenes)
    for scene, copy in zip(scenes, copies, strict=True):
        np.testing.assert_array_equal(scene.xyxy, copy.xyxy)
        np.testing.assert_array_equal(scene.data["embedding"], copy.data["embedding"])


@pytest.mark.parametrize(
    "setting",
    [
        {"min_similarity": 1.5},
        {"embedding_momentum": -0.1},
        {"low_threshold": 0.9},
        {"min_hits": 0},
        {"max_tracks": 0},
        {"max_lost_seconds": -1.0},
        {"max_lost_seconds": float("nan")},
        {"max_unsure_seconds": -0.5},
        {"frame_rate": 0.0},
    ],
)
def test_impossible_settings_are_refused_by_name(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        KineTracker(**setting)


def test_overlap_equals_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (9, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 60, (9, 2))], axis=1)
    iou, heights = box_overlap(boxes[:4], boxes[4:])
    theirs = ops.box_iou(torch.from_numpy(boxes[:4]), torch.from_numpy(boxes[4:]))
    np.testing.assert_allclose(iou, theirs.numpy(), atol=1e-12)
    assert (heights >= iou - 1e-12).all()


def test_assignment_prefers_no_pair_to_a_bad_pair():
    # Two pairs would be possible, but only by giving up the good one.
    rows, columns = assign(np.array([[0.1, 0.79], [0.79, np.inf]]), 0.8)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 0)]


def test_agrees_with_bytetrack_where_there_is_no_doubt():
    trackers = pytest.importorskip("trackers")
    supervision = pytest.importorskip("supervision")
    ours, theirs = KineTracker(), trackers.ByteTrackTracker(frame_rate=30.0)
    pairs = set()
    for t in range(60):
        boxes = np.array([person(10 + 3 * t), person(900 - 3 * t, 300), person(400, 500 - t)])
        tracks = ours.update(see(boxes))
        oracle = theirs.update(supervision.Detections(xyxy=boxes, confidence=np.full(3, 0.9)))
        for box, identity in zip(oracle.xyxy, oracle.tracker_id, strict=True):
            mine = tracks.track_id[(tracks.xyxy == box).all(axis=1)]
            if identity >= 0:
                pairs.add((int(mine[0]), int(identity)))
    assert len(pairs) == 3


def test_a_hundred_people_with_looks_take_less_than_a_millisecond_and_a_half():
    rng = np.random.default_rng(0)
    corners, looks = rng.uniform(0, 1800, (100, 2)), rng.normal(size=(100, 128))
    tracker, spent = KineTracker(), []
    for t in range(40):
        moved = corners + t
        scene = see(np.concatenate([moved, moved + (40, 100)], axis=1), looks=looks)
        start = time.perf_counter()
        tracker.update(scene)
        spent.append(time.perf_counter() - start)
    # The fastest quarter: the machine that runs the tests may be busy with others.
    assert np.quantile(spent, 0.25) < 1.5e-3


def walkers(step, scale=1.0):
    """Two people who walk towards each other, 4 pixels a step, in pixels times `scale`."""
    boxes = np.array([[50 + 4 * step, 100, 90 + 4 * step, 220], [500 - 4 * step, 120, 540 - 4 * step, 240]], float)
    looks = np.eye(2, 4, dtype=np.float32)
    return Detections(boxes * scale, np.full(2, 0.9), data={"embedding": looks})


def test_frame_size_that_changes_keeps_identities():
    tracker = KineTracker()
    for step in range(10):
        before = tracker.update(walkers(step), step / 25)
    tracker.rescale(0.5, 0.5)
    after = tracker.update(walkers(10, 0.5), 10 / 25)
    np.testing.assert_array_equal(after.track_id, before.track_id)
    np.testing.assert_allclose(tracker.state_dict()["table"]["mean"][:, 4], [50, -50], rtol=0.3)  # pixels a second


def test_source_that_was_away_costs_no_identity():
    """After ten seconds of nothing, people have `max_lost_seconds` to be found again where they stopped."""
    for bridged in (True, False):
        tracker = KineTracker(max_lost_seconds=1.5)
        for step in range(10):
            before = tracker.update(walkers(step), step / 25)
        if bridged:
            tracker.bridge(10.0)
        tracker.update(Detections(np.zeros((0, 4))), 10.4)  # the first picture after a break is often a broken one
        after = [tracker.update(walkers(12 + step), 10.44 + step / 25) for step in range(2)][-1]
        assert np.array_equal(after.track_id, before.track_id) is bridged


def test_source_that_was_away_for_long_is_a_new_scene():
    tracker = KineTracker()
    for step in range(10):
        tracker.update(walkers(step), step / 25)
    tracker.bridge(3600.0)
    after = [tracker.update(walkers(12 + step), 3600.4 + step / 25) for step in range(2)][-1]
    np.testing.assert_array_equal(after.track_id, [3, 4])


def test_bridge_leaves_a_tracker_that_has_seen_nothing_alone():
    tracker = KineTracker()
    tracker.bridge(5.0)
    assert len(tracker.update(walkers(0), 0.0)) == 2
