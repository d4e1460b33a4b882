"""Labelled clips in the layouts that people have them in: which is in which part, and what wrong files are told."""

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.augmentation import ClipForm
from kinetrack.hub_scripts.data.batches import collate
from kinetrack.hub_scripts.data.check import check_data
from kinetrack.hub_scripts.data.clips import ActionClips
from kinetrack.hub_scripts.data.layouts import choose_part, class_names, list_clips, recognise_layout
from kinetrack.hub_scripts.data.listed_clips import ListedClips
from torch.utils.data import DataLoader

UCF = [(label, group, clip) for label in ("Archery", "YoYo") for group in range(1, 4) for clip in (1, 2)]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def names_of(table, part, **options):
    return sorted(choose_part(table, part, **options)["name"][:])


@pytest.fixture
def ucf101(tmp_path):
    """UCF-101 as it is unpacked; split N tests on group N."""
    for label, group, clip in UCF:
        touch(tmp_path / f"UCF-101/{label}/v_{label}_g{group:02d}_c{clip:02d}.avi")
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
    for fold in (1, 2, 3):
        line = {True: [], False: []}
        for label, group, clip in UCF:
            number = "" if group == fold else f" {1 if label == 'Archery' else 2}"
            line[group == fold].append(f"{label}/v_{label}_g{group:02d}_c{clip:02d}.avi{number}\n")
        (lists / f"testlist{fold:02d}.txt").write_text("".join(line[True]))
        (lists / f"trainlist{fold:02d}.txt").write_text("".join(line[False]))
    return tmp_path


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_ucf101_has_its_three_official_splits(ucf101, fold):
    assert recognise_layout(ucf101) == "ucf101"
    table = list_clips(ucf101, fold=fold)
    assert class_names(table) == ["Archery", "YoYo"]
    test, train = names_of(table, "test"), names_of(table, "train")
    assert len(test) == 4 and all(f"_g{fold:02d}_" in name for name in test)
    assert len(train) == 8 and not set(train) & set(test)
    assert names_of(table, "dev") == []  # three groups are too few to set one aside
    assert {table["group"][row] for row in range(12)} == {f"{label}/g{g:02d}" for label, g, _ in UCF}


def test_ucf101_without_a_listed_video_names_it(ucf101):
    (ucf101 / "UCF-101/YoYo/v_YoYo_g02_c01.avi").unlink()
    with pytest.raises(ValueError, match=r"trainlist01.txt names YoYo/v_YoYo_g02_c01.avi, which is nowhere below"):
        list_clips(ucf101)
    (ucf101 / "ucfTrainTestlist/trainlist03.txt").unlink()
    with pytest.raises(ValueError, match="no trainlist03.txt"):
        list_clips(ucf101, fold=3)
    with pytest.raises(ValueError, match="fold must be 1, 2 or 3, got 4"):
        list_clips(ucf101, fold=4)


def test_hmdb51_has_its_three_official_splits(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    for label in ("wave", "sit"):
        files = [f"Film#{n}_{label}_f_cm_np1_fr_med_{n}.avi" for n in range(4)]
        touch(*(tmp_path / "hmdb51_org" / label / file for file in files))
        for fold in (1, 2, 3):  # in split N, file N is test, file 0 is in neither
            marks = [0 if n == 0 else 2 if n == fold else 1 for n in range(4)]
            lines = "".join(f"{file} {mark} \n" for file, mark in zip(files, marks, strict=True))
            (lists / f"{label}_test_split{fold}.txt").write_text(lines)
    assert recognise_layout(tmp_path) == "hmdb51"
    for fold in (1, 2, 3):
        table = list_clips(tmp_path, fold=fold)
        assert class_names(table) == ["sit", "wave"]
        assert [name[-5] for name in names_of(table, "test")] == [str(fold)] * 2
        assert sorted(name[-5] for name in names_of(table, "train")) == sorted("123".replace(str(fold), "") * 2)
        assert table["group"][0].startswith("Film#")


def test_kinetics_csv_finds_downloaded_clips_by_their_times(tmp_path):
    touch(tmp_path / "riding a bike/abcdefghijk_000010_000020.mp4", tmp_path / "val/---QUuC4vJs_000084_000094.mp4")
    header = "label,youtube_id,time_start,time_end,split\n"
    (tmp_path / "train.csv").write_text(header + "riding a bike,abcdefghijk,10,20,train\n")
    (tmp_path / "val.csv").write_text(header + '"yoga, slow",---QUuC4vJs,84,94,val\n')
    assert recognise_layout(tmp_path) == "csv"
    table = list_clips(tmp_path)
    assert class_names(table) == ["riding a bike", "yoga, slow"]
    assert table["part"][:] == ["train", "dev"] and table["group"][:] == ["abcdefghijk", "---QUuC4vJs"]
    gone = "riding a bike,missingmiss,10,20,train\n"
    (tmp_path / "train.csv").write_text(header + gone * 2)
    said = (
        r"train.csv, line 2: there is no video missingmiss_000010_000020.mp4.* Of 3 videos 2 are missing; .* left out"
    )
    with pytest.warns(UserWarning, match=said):
        assert list_clips(tmp_path)["part"][:] == ["dev"]
    with pytest.raises(ValueError, match="Of 2 videos 2 are missing"):
        list_clips(tmp_path / "train.csv")


@pytest.mark.parametrize(
    ("header", "line", "got"),
    [("label,youtube_id", "wave,abcdefghijk", "None"), ("label,youtube_id,time_start,time_end", "wave,abc,,10", "''")],
)
def test_kinetics_csv_without_times_says_so(tmp_path, header, line, got):
    (tmp_path / "mine.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(
        ValueError, match=f"mine.csv, line 2: time_start must be a number of seconds, got {got}.*`path`"
    ):
        list_clips(tmp_path)


def test_csv_with_paths_and_a_split_column(tmp_path):
    touch(tmp_path / "clips/a.mp4", tmp_path / "clips/b.mp4")
    file = tmp_path / "mine.csv"
    file.write_text("path,label,split\nclips/a.mp4,wave,train\nclips/b.mp4,sit,test\n")
    table = list_clips(file)
    assert names_of(table, "train") == ["clips/a.mp4"] and names_of(table, "test") == ["clips/b.mp4"]
    file.write_text("file,what\nclips/a.mp4,wave\n")
    with pytest.raises(ValueError, match="expected a header with `label` and `path`.*got file, what"):
        list_clips(file)
    file.write_text("path,label\nclips/c.mp4,wave\n")
    with pytest.raises(ValueError, match="line 2: there is no file.* Of 1 videos 1 are missing"):
        list_clips(file)


@pytest.mark.parametrize("split", ["eval", "holdout", "test1"])
def test_csv_with_an_unknown_split_names_line_value_and_known_ones(tmp_path, split):
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    file = tmp_path / "mine.csv"
    file.write_text(f"path,label,split\na.mp4,wave,Train\n\nb.mp4,sit,{split}\n")
    with pytest.raises(ValueError, match=rf"mine.csv, line 4: the split '{split}' is not known: .*train.*val.*test"):
        list_clips(file)


def test_csv_without_a_split_in_a_line_takes_the_part_of_the_file(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4")
    (tmp_path / "val.csv").write_text("path,label,split\na.mp4,wave,test\nb.mp4,sit, \n")
    assert list_clips(tmp_path)["part"][:] == ["test", "dev"]


@pytest.mark.parametrize(
    ("header", "line", "missing"),
    [
        ("label,path", "wave", "path"),
        ("path,label", "a.mp4", "label"),
        ("path,label,split", "a.mp4,wave", "split"),
        ("label,youtube_id,time_start,time_end", "wave,abcdefghijk,10", "time_end"),
    ],
)
def test_csv_with_a_missing_field_names_file_line_and_column(tmp_path, header, line, missing):
    touch(tmp_path / "a.mp4")
    (tmp_path / "mine.csv").write_text(f"{header}\n{line}\n")
    with pytest.raises(ValueError, match=f"mine.csv, line 2: it has nothing for {missing}: expected as many fields"):
        list_clips(tmp_path)


def test_csv_may_lack_what_is_not_read(tmp_path):
    touch(tmp_path / "a.mp4")
    (tmp_path / "mine.csv").write_text("path,label,views\na.mp4,wave\n")
    assert list_clips(tmp_path)["name"][:] == ["a.mp4"]


def test_class_folders_with_parts(tmp_path):
    touch(tmp_path / "train/wave/a.mp4", tmp_path / "validation/wave/b.mp4", tmp_path / "test/sit/c.webm")
    touch(tmp_path / "train/wave/notes.txt")
    table = list_clips(tmp_path)
    assert {part: names_of(table, part) for part in ("train", "dev", "test")} == {
        "train": ["train/wave/a.mp4"],
        "dev": ["validation/wave/b.mp4"],
        "test": ["test/sit/c.webm"],
    }


def test_a_dev_part_is_cut_by_whole_films_and_by_names_alone(tmp_path):
    for label in ("wave", "sit"):
        touch(*(tmp_path / label / f"{film}_{label}_u_cm_np1_{cut}.avi" for film in "abcdefghij" for cut in (1, 2)))
    touch(tmp_path / "rare/only.mp4")
    table = list_clips(tmp_path)
    dev, train = names_of(table, "dev", dev_fraction=0.2), names_of(table, "train", dev_fraction=0.2)
    assert not set(dev) & set(train) and len(dev) + len(train) == 41
    assert len(dev) == 8 and "rare/only.mp4" in train  # two films of ten in each class, with both cuts
    assert {name[:-6] for name in dev}.isdisjoint(name[:-6] for name in train)
    assert names_of(list_clips(tmp_path), "dev", dev_fraction=0.2) == dev
    assert names_of(table, "dev", dev_fraction=0.0) == []


def test_names_that_only_count_are_no_films(tmp_path):
    """`clip_001.mp4`, `clip_002.mp4`: were they one film, nothing could be set aside."""
    touch(*(tmp_path / "train/wave" / f"clip_{number:03d}.mp4" for number in range(12)))
    touch(*(tmp_path / "test/wave" / f"clip_{number:03d}.mp4" for number in range(3)))
    table = list_clips(tmp_path)
    assert [len(names_of(table, part)) for part in ("train", "dev", "test")] == [11, 1, 3]
    assert len(set(table["group"][:])) == 15
    said = [problem.what for problem in check_data(tmp_path, decode=False).problems]
    assert said and not any("films like this one" in what for what in said)


def test_a_list_of_official_splits_counts_what_is_missing(ucf101):
    gone = sorted((ucf101 / "UCF-101").rglob("*_g01_*.avi"))
    for path in gone:
        path.unlink()
    with pytest.raises(
        ValueError, match=f"testlist01.txt names Archery/v_Archery_g01_c01.avi.* {len(gone)} are missing"
    ):
        list_clips(ucf101, fold=1)


def test_nothing_to_find_says_what_was_expected(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected class folders"):
        list_clips(tmp_path)
    with pytest.raises(ValueError, match="layout must be auto or one of"):
        list_clips(tmp_path, "pictures")
    (tmp_path / "wave").mkdir()
    with pytest.raises(ValueError, match="There are no clips"):
        list_clips(tmp_path, "folders")


@pytest.fixture
def saved_dataset(tmp_path, make_video, draw_frames):
    """A data set of `datasets` with a Video column: one video by its path, one by its bytes."""
    from datasets import Dataset, DatasetDict, Features, Value, Video

    make_video(tmp_path / "a.mp4", draw_frames(12))
    content = make_video(tmp_path / "b.mp4", draw_frames(9)).read_bytes()
    features = Features({"clip": Video(decode=False), "action": Value("string"), "views": Value("int64")})
    rows = {"train": [(str(tmp_path / "a.mp4"), "wave"), ({"bytes": content, "path": "b.mp4"}, "sit")]}
    rows["validation"] = [(str(tmp_path / "b.mp4"), "run")]
    tables = {
        split: Dataset.from_list([{"clip": c, "action": a, "views": 1} for c, a in items], features=features)
        for split, items in rows.items()
    }
    DatasetDict(tables).save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def test_dataset_with_a_video_column(saved_dataset, tmp_path):
    assert recognise_layout(saved_dataset) == "hub" and recognise_layout("owner/name") == "hub"
    table = list_clips(saved_dataset)
    assert sorted(class_names(table)) == ["run", "sit", "wave"]
    assert table["part"][:] == ["train", "train", "dev"]
    named = [class_names(table)[label] for label in table["label"][:]]
    assert named == ["wave", "sit", "run"]
    clips = ActionClips(ListedClips(table, tmp_path / "cache"), train=False)
    assert [int(clips[row]["frame_mask"].sum()) for row in range(3)] == [5, 4, 4]
    assert clips.strata == named
    with pytest.raises(ValueError, match="`cache` names a folder"):
        ListedClips(table)[1]


def test_dataset_whose_video_column_is_named_video(saved_dataset, tmp_path):
    from datasets import load_from_disk

    load_from_disk(str(saved_dataset)).rename_column("clip", "video").save_to_disk(tmp_path / "named")
    assert list_clips(tmp_path / "named")[:] == list_clips(saved_dataset)[:]


def test_clips_of_a_dataset_whose_labels_are_kept_secret_are_left_out(saved_dataset, tmp_path):
    from datasets import ClassLabel, load_from_disk

    named = load_from_disk(str(saved_dataset)).cast_column("action", ClassLabel(names=["run", "sit", "wave"]))
    secret = named["validation"].map(lambda row: row | {"action": -1}, features=named["validation"].features)
    named["test"] = secret
    named.save_to_disk(tmp_path / "secret")
    with pytest.warns(UserWarning, match="1 of 1 clips of test have no label; they are left out"):
        assert list_clips(tmp_path / "secret")["part"][:] == ["train", "train", "dev"]


def test_dataset_without_videos_says_what_it_has(tmp_path):
    from datasets import Dataset

    Dataset.from_dict({"text": ["a"], "label": [0]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match=r"a column of type Video.*text \(Value\)"):
        list_clips(tmp_path / "saved")


def test_clips_of_a_list_are_opened_when_asked_for_with_the_boxes_beside_them(tmp_path, make_video):
    make_video(tmp_path / "wave/a.mp4".replace("/", "_"))
    touch(tmp_path / "wave/broken.mp4")
    (tmp_path / "wave_a.mp4").rename(tmp_path / "wave/a.mp4")
    (tmp_path / "wave/a.txt").write_text("1,1,10,10,20,30,1,1,1\n3,1,12,10,20,30,1,1,1\n")
    sources = ListedClips(list_clips(tmp_path))
    assert len(sources) == 2 and sources.strata == ["wave", "wave"]
    source = sources[0]
    np.testing.assert_array_equal(source.actor[[0, 2]], [[10, 10, 30, 40], [12, 10, 32, 40]])
    assert np.isnan(source.actor[1]).all() and source.label == 0
    with pytest.raises(Exception, match="broken.mp4"):
        sources[1]


def test_samples_depend_on_seed_epoch_and_index_alone(tmp_path, make_video):
    for label in ("sit", "wave"):
        (tmp_path / label).mkdir()
        for name in "ab":
            make_video(tmp_path / label / f"{name}.mp4")
    form = ClipForm(4, (64, 96), frame_rate=(6.0, 12.0))
    order = [[(epoch, index)] for epoch in (0, 1) for index in (3, 0, 2)]

    def pixels(workers, seed=0, items=order):
        clips = ActionClips(ListedClips.read(tmp_path), form, seed=seed)
        loader = DataLoader(clips, batch_sampler=items, collate_fn=collate, num_workers=workers)
        return [batch["pixel_values_videos"] for batch in loader]

    alone, shared = pixels(0), pixels(2)
    assert all(torch.equal(one, other) for one, other in zip(alone, shared, strict=True))
    assert torch.equal(pixels(0, items=order[4:5])[0], alone[4])  # whatever was read before
    assert not torch.equal(alone[1], alone[4]) and not torch.equal(pixels(0, seed=1)[0], alone[0])
