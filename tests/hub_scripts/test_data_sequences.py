"""Tracking sequences in the layouts of the benchmarks: which are read, what of them, and as what."""

import numpy as np
import pytest
from kinetrack.hub_scripts.data.sequences import find_sequences, list_sequences, object_classes
from PIL import Image


def add_sequence(folder, length=10, rows=None, labels=None):
    """An image folder with a box a frame."""
    (folder / "img1").mkdir(parents=True)
    (folder / "gt").mkdir()
    for number in range(1, length + 1):
        Image.new("RGB", (96, 64), (number, 100, 100)).save(folder / "img1" / f"{number:06d}.jpg")
    rows = rows or [f"{n},1,10,10,20,40,1,1,1.0" for n in range(1, length + 1)]
    (folder / "gt/gt.txt").write_text("\n".join(rows) + "\n")
    if labels:
        (folder / "gt/labels.txt").write_text("\n".join(labels) + "\n")
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=25\nseqLength={length}\nimWidth=96\nimHeight=64\n"
    )
    return folder


def test_parts_are_those_of_the_folders_and_detector_copies_are_read_once(tmp_path):
    for detector in ("DPM", "FRCNN", "SDP"):
        add_sequence(tmp_path / f"train/MOT17-02-{detector}", 2)
    for name in ("MOT16-04", "MOT20-01", "PETS09-S2L1"):
        add_sequence(tmp_path / "train" / name, 2)
    add_sequence(tmp_path / "train1/dancetrack0001", 2)
    add_sequence(tmp_path / "val/v_00HRwkvvjtQ_c001", 2)
    (tmp_path / "test/MOT17-01-DPM/img1").mkdir(parents=True)  # test sequences have no ground truth
    found = find_sequences(tmp_path)
    assert {part: [folder.name for folder in folders] for part, folders in found.items()} == {
        "train": ["MOT16-04", "MOT17-02-DPM", "MOT20-01", "PETS09-S2L1", "dancetrack0001"],
        "dev": ["v_00HRwkvvjtQ_c001"],
    }
    assert [source.stratum for source in list_sequences(tmp_path, "dev")] == ["v_00HRwkvvjtQ_c001"]


def test_halves_are_those_that_trackers_are_compared_on(tmp_path):
    add_sequence(tmp_path / "train/MOT17-02-FRCNN", 11)
    (train,), (dev,) = (list_sequences(tmp_path, part, half=True) for part in ("train", "dev"))
    assert (train.first, train.stop, dev.first, dev.stop) == (0, 6, 6, 11)  # frames 1-6 and 7-11


def test_a_dev_part_is_cut_from_the_end_with_a_gap(tmp_path):
    add_sequence(tmp_path / "long", 60)
    add_sequence(tmp_path / "short", 12)
    train, dev = (list_sequences(tmp_path, part, dev_fraction=0.2) for part in ("train", "dev"))
    assert [(source.name, source.first, source.stop) for source in train] == [("long", 0, 42), ("short", 0, 12)]
    assert [(source.name, source.first, source.stop) for source in dev] == [("long", 48, 60)]


def test_object_classes_come_from_labels_txt(tmp_path):
    add_sequence(
        tmp_path / "a", 2, ["1,1,0,0,9,9,1,1,1", "1,2,20,0,9,9,1,2,0.05", "2,3,40,0,9,9,0,2,1"], ["car", "dog"]
    )
    add_sequence(tmp_path / "b", 2, ["1,1,0,0,9,9,1,1,1"], ["dog"])
    assert object_classes(tmp_path) == ["car", "dog"]
    first, second = list_sequences(tmp_path, "train", classes=["car", "dog"])
    np.testing.assert_array_equal(first.boxes.class_label, [0, 1, 1])
    np.testing.assert_array_equal(first.boxes.ignore, [False, True, True])  # hardly visible; marked 0
    np.testing.assert_array_equal(second.boxes.class_label, [1])
    with pytest.raises(ValueError, match=r"labels.txt names \['car'\], the model knows \['dog'\]"):
        list_sequences(tmp_path, "train", classes=["dog"])


def test_a_folder_that_is_itself_a_sequence(tmp_path):
    folder = add_sequence(tmp_path / "mine", 3)
    (source,) = list_sequences(folder, "train")
    assert source.name == "mine" and source.frames.frame_rate == 25


def test_nothing_there_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="<sequence>/gt/gt.txt"):
        list_sequences(tmp_path, "train")
    add_sequence(tmp_path / "a", 2, ["1,1,0,0,9"])
    with pytest.raises(ValueError, match="at least 7 columns"):
        list_sequences(tmp_path, "train")
