"""Boxes per frame as the annotation files give them."""

import numpy as np
import pytest
from kinetrack.hub_scripts.data.annotations import (
    box_iou,
    identity_key,
    read_actor_boxes,
    read_mot_ground_truth,
    read_people,
)


def write(path, *lines):
    path.write_text("".join(line + "\n" for line in lines))
    return path


def test_mot17_rows_become_positives_ignored_or_background(tmp_path):
    path = write(
        tmp_path / "gt.txt",
        "2,1,10,20,30,40,1,1,1",  # pedestrian
        "2,2,50,20,30,40,1,1,0.05",  # hardly visible
        "2,3,90,20,30,40,0,1,1",  # mark 0
        "2,4,10,90,30,40,0,2,1",  # person on a vehicle
        "2,5,10,90,30,40,0,7,1",
        "2,6,10,90,30,40,0,8,1",
        "2,7,10,90,30,40,0,12,1",
        "2,8,10,90,30,40,0,3,1",  # car: background
        "1,1,12,20,30,40,1,1,0.9",
    )
    boxes = read_mot_ground_truth(path, "seq")
    assert boxes.at(0).xyxy.tolist() == [[12, 20, 42, 60]]
    rows = boxes.at(1)
    assert rows.ignore.tolist() == [False, True, True, True, True, True, True]
    assert rows.xyxy[0].tolist() == [10, 20, 40, 60]
    assert rows.track_id[0] == boxes.at(0).track_id[0] and (rows.track_id[1:] == -1).all()
    assert len(boxes.at(7).frame) == 0


def test_mot15_world_coordinates_are_not_classes(tmp_path):
    path = write(
        tmp_path / "gt.txt", "1,1,50,60,20,40,1,-5.0,11.9,0.7", "1,2,5,60,20,40,0,-1,-1,-1", "1,3,5,6,2,4,1,8,2,0"
    )
    rows = read_mot_ground_truth(path, "seq").at(0)
    assert rows.ignore.tolist() == [False, True, False]


def test_boxes_keep_their_full_extent(tmp_path):
    path = write(tmp_path / "gt.txt", "1,1,-15,-5,30,400,1,1,1")
    assert read_mot_ground_truth(path, "seq").at(0).xyxy.tolist() == [[-15, -5, 15, 395]]


def test_identities_differ_between_sequences_and_stay_the_same_between_runs():
    ids = np.array([1, 2, -1])
    first, second = identity_key("mot/A", ids), identity_key("mot/B", ids)
    assert first[2] == second[2] == -1
    assert len({*first[:2], *second[:2]}) == 4
    # A fixed number: the key must not depend on the process, or gathered batches would disagree.
    assert identity_key("mot/A", np.array([1]))[0] == 37429756613885953


def test_scores_decide_what_machine_made_boxes_teach(tmp_path):
    path = write(
        tmp_path / "people.txt",
        "1,-1,10,10,20,40,0.8,-1,-1,-1",
        "1,-1,12,10,20,40,0.3,-1,-1,-1",  # the same person again, weaker
        "1,-1,100,10,20,40,0.49,-1,-1,-1",
    )
    rows = read_people(path, "clip").at(0)
    assert rows.xyxy[:, 0].tolist() == [10, 100]
    assert rows.ignore.tolist() == [False, True]
    assert rows.weight[0] == 0.5 and (rows.track_id == -1).all()


def test_the_actor_replaces_what_overlaps_it(tmp_path):
    people = write(
        tmp_path / "people.txt",
        "1,-1,10,10,20,40,0.9,-1,-1,-1",
        "1,-1,12,12,20,40,0.2,-1,-1,-1",
        "1,-1,200,10,20,40,0.9,-1,-1,-1",
        "2,-1,10,10,20,40,0.9,-1,-1,-1",
    )
    actor_file = write(tmp_path / "actor.txt", "1,1,11,10,20,40,1,1,1", "9,1,11,10,20,40,1,1,1")
    actor = read_actor_boxes(actor_file, num_frames=3)
    assert actor[0].tolist() == [11, 10, 31, 50] and np.isnan(actor[1:]).all()
    boxes = read_people(people, "clip", actor)
    rows = boxes.at(0)
    assert sorted(rows.xyxy[:, 0].tolist()) == [11, 200]
    of_actor = rows.xyxy[:, 0] == 11
    assert rows.weight[of_actor] == 1 and rows.track_id[of_actor] >= 0 and not rows.ignore.any()
    assert rows.weight[~of_actor] == 0.5 and rows.track_id[~of_actor] == -1
    assert boxes.at(1).xyxy[:, 0].tolist() == [10]  # no actor in that frame: the machine's box stays


def test_a_file_of_no_boxes_and_a_file_of_no_numbers(tmp_path):
    assert len(read_people(write(tmp_path / "empty.txt"), "clip").frame) == 0
    with pytest.raises(ValueError, match="words.txt.*frame,id,x,y,w,h"):
        read_mot_ground_truth(write(tmp_path / "words.txt", "no,numbers,here"), "seq")
    with pytest.raises(FileNotFoundError, match="missing.txt"):
        read_actor_boxes(tmp_path / "missing.txt", 4)


@pytest.mark.parametrize("line", ["1,1,10,10,20,30", "1"])
def test_too_few_columns_are_named_with_the_file(tmp_path, line):
    path = write(tmp_path / "few.txt", line)
    said = rf"few.txt: expected at least 7 columns \(frame, id, x, y, w, h, .*, got {line.count(',') + 1}\."
    with pytest.raises(ValueError, match=said):
        read_actor_boxes(path, 3)
    with pytest.raises(ValueError, match=said):
        read_people(path, "clip")
    with pytest.raises(ValueError, match=said):
        read_mot_ground_truth(path, "seq")


def test_overlap_of_boxes_equals_torchvision():
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 50, (2, 20, 2)).astype(np.float32)
    first, second = np.concatenate((low, low + rng.uniform(1, 40, (2, 20, 2)).astype(np.float32)), axis=-1)
    expected = ops.box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(box_iou(first, second), expected, rtol=1e-5)
