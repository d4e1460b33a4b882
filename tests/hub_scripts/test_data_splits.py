"""The lists of clips that are held out, and how they are made."""

import pytest
from kinetrack.hub_scripts.data import splits
from kinetrack.hub_scripts.data.splits import (
    group_sources,
    make_splits,
    parse_item,
    read_split,
    source_key,
    split_clips,
    write_splits,
)

SUFFIXES = ("u_nm_np1_fr_goo_0", "f_cm_np1_ba_med_1", "h_nm_np2_le_bad_2")


def clip_names(label: str, num_sources: int = 20, start: int = 0) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    films = [
        f"{letters[i % 26]}{letters[(7 * i) % 26]}film{letters[(3 * i + 5) % 26]}" for i in range(start, start + 26)
    ]
    return [f"{film}_{label}_{suffix}.mp4" for film in films[:num_sources] for suffix in SUFFIXES]


def films_of(items) -> set[str]:
    return {source_key(name.rsplit("/", 1)[-1], name.rsplit("/", 2)[-2]) for name in items}


@pytest.fixture
def tree(tmp_path):
    for label in ("golf", "wave", "brush_hair"):
        folder = tmp_path / "actions/jhmdb/train" / label
        folder.mkdir(parents=True)
        for name in clip_names(label):
            (folder / name).touch()
    for label, letters in (("fight", "fi"), ("noFight", "nofi")):
        folder = tmp_path / "actions/surveillance_fight/train" / label
        folder.mkdir(parents=True)
        for number in range(1, 121):
            (folder / f"{letters}{number:03d}.mp4").touch()
    for name in ("KITTI-17", "MOT17-11-FRCNN", "TUD-Campus"):
        (tmp_path / "mot/train" / name).mkdir(parents=True)
    return tmp_path


def test_lists_share_no_clip_and_no_source(tree):
    lists = make_splits(tree)
    val, dev = set(lists["val"]), set(lists["dev"])
    assert val and dev and not val & dev
    everything = {path.relative_to(tree).as_posix() for path in (tree / "actions/jhmdb").rglob("*.mp4")}
    sides = [{item for item in part if "jhmdb" in item} for part in (val, dev, everything - val - dev)]
    films = [films_of(side) for side in sides]
    assert all(films) and not films[0] & films[1] and not films[0] & films[2] and not films[1] & films[2]


def test_lists_take_their_share_of_every_class(tree):
    lists = make_splits(tree)
    for label in ("golf", "wave", "brush_hair"):
        total = len(clip_names(label))
        for part, share in (("val", 0.2), ("dev", 0.1)):
            count = sum(f"/{label}/" in item for item in lists[part])
            assert abs(count - share * total) <= 3, (label, part)
    fights = [item for item in lists["val"] if "surveillance" in item]
    assert 0.18 * 240 <= len(fights) <= 0.22 * 240


def test_lists_depend_on_names_only(tree):
    assert make_splits(tree) == make_splits(tree)
    clips = {label: clip_names(label) for label in ("golf", "wave")}
    backwards = {label: names[::-1] for label, names in reversed(clips.items())}
    assert split_clips(clips) == split_clips(backwards)
    assert split_clips(clips) != split_clips(clips, seed=1)


def test_every_clip_is_val_in_one_fold_and_the_first_is_the_usual_one(tree):
    folds = [make_splits(tree, number, 4) for number in range(1, 5)]
    assert folds[0] == make_splits(tree) and folds[1:] == [make_splits(tree, number, 4) for number in range(2, 5)]
    held_out = [item for fold in folds for item in fold["val"] if "jhmdb" in item]
    assert sorted(held_out) == sorted(
        path.relative_to(tree).as_posix() for path in (tree / "actions/jhmdb").rglob("*.mp4")
    )
    for fold in folds:
        val, dev = ({item for item in fold[part] if "jhmdb" in item} for part in ("val", "dev"))
        assert val and dev and not films_of(val) & (films_of(set(held_out) - val) | films_of(dev))
        assert {item for item in fold["val"] if "jhmdb" not in item} < set(folds[0]["val"])
    with pytest.raises(ValueError, match="fold=5: expected 1 to 4"):
        make_splits(tree, 5, 4)


def test_lists_of_a_fold_do_not_replace_those_that_come_with_kinetrack(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["splits", str(tree), "--fold", "2"])
    with pytest.raises(SystemExit):
        splits.main()
    assert "give a --folder" in capsys.readouterr().err
    (tmp_path / "lists").mkdir()
    monkeypatch.setattr("sys.argv", ["splits", str(tree), "--fold", "2", "--folder", str(tmp_path / "lists")])
    splits.main()
    assert read_split("val", tmp_path / "lists") == make_splits(tree, 2)["val"]


def test_written_lists_read_back(tree, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    lists = write_splits(tree, folder)
    assert {part: read_split(part, folder) for part in ("val", "dev")} == lists
    assert [path.name for path in sorted(folder.iterdir())] == ["dev.txt", "val.txt"]
    with pytest.raises(FileNotFoundError, match="test.txt"):
        read_split("test", folder)


def test_committed_lists_are_disjoint_and_name_the_dev_sequences():
    val, dev = read_split("val"), read_split("dev")
    assert len(set(val)) == len(val) and len(set(dev)) == len(dev) and not set(val) & set(dev)
    assert [parse_item(item) for item in dev if item.startswith("mot/")] == [
        ("mot/train/KITTI-17", None),
        ("mot/train/MOT17-11-FRCNN", (676, 900)),
    ]
    assert not any(item.startswith("mot/") for item in val)
    assert len({item.split("/")[3] for item in val if "jhmdb" in item}) == 21
    assert not films_of(item for item in val if "jhmdb" in item) & films_of(item for item in dev if "jhmdb" in item)


def test_one_film_under_many_names_is_one_group():
    names = (
        ("boom_snap_clap_(challenge)_clap_u_nm_np1_fr_med_0.mp4", "clap"),
        ("RE-_Boom_Snap_Clap_clap_u_nm_np1_fr_goo_1.mp4", "clap"),
        ("boom-snap-clap_clap_u_nm_np1_fr_goo_3.mp4", "clap"),
        ("boomsnapclap!_clap_u_nm_np1_fr_goo_0.mp4", "clap"),
        ("_Boom_Snap_Clap__challenge_clap_u_nm_np1_fr_goo_1.mp4", "clap"),
    )
    keys = {source_key(*name) for name in names}
    groups = group_sources(keys | {"golfswing", "knifethrowing"})
    assert len({groups[key] for key in keys}) == 1
    assert len({groups["golfswing"], groups["knifethrowing"], groups[keys.pop()]}) == 3


def test_parts_of_a_film_share_a_key_across_classes():
    assert source_key("A_Beautiful_Mind_4_run_f_cm_np1_fr_med_11.mp4", "run") == source_key(
        "A_Beautiful_Mind_3_sit_u_nm_np1_fr_med_5.mp4", "sit"
    )
    assert source_key("My_Film_brush_hair_u_nm_np1_fr_goo_1.mp4", "brush_hair") == "myfilm"


def test_pull_ups_in_a_title_do_not_join_films():
    groups = group_sources({"pullups", "perfectpulluphowtodopullups", "eightwidegrippullups"})
    assert len(set(groups.values())) == 3
