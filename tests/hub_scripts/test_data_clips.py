"""Datasets, batches and the frame cache, on a made-up data root."""

import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.annotations import identity_key
from kinetrack.hub_scripts.data.batches import BalancedBatches, collate
from kinetrack.hub_scripts.data.clips import ACTION_FORM, MOT_FORM, ActionClips, MotClips, draw_walker, evaluation_form
from kinetrack.hub_scripts.data.contact_sheet import draw_contact_sheet
from kinetrack.hub_scripts.data.frames import FrameStore
from kinetrack.hub_scripts.data.sources import (
    action_names,
    action_sources,
    action_train,
    mot_sources,
    mot_train,
    read_sequence,
)
from torch.utils.data import DataLoader

LENGTH, WIDTH, HEIGHT = 90, 128, 96


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines))


@pytest.fixture(scope="module")
def root(tmp_path_factory, make_video, draw_frames):
    """Two sequences with their two rectangles labelled, four action clips, two surveillance clips, and lists."""
    root = tmp_path_factory.mktemp("data")
    picture = draw_frames(LENGTH, WIDTH, HEIGHT)
    w, h, step = WIDTH // 6, HEIGHT // 4, max(1, WIDTH // 60)
    for part, name in (("train", "A"), ("train", "B"), ("val", "C")):
        folder = root / "mot" / part / name
        folder.mkdir(parents=True)
        make_video(folder / "video.mp4", picture, frame_rate=25)
        rows = []
        for i in range(LENGTH):
            top, low = HEIGHT // 10, HEIGHT - HEIGHT // 10 - h
            rows.append(f"{i + 1},1,{4 + step * i},{top},{w},{h},1,1,1")
            rows.append(f"{i + 1},2,{WIDTH - 4 - w - step * i},{low},{w},{h},{int(i != 3)},1,1")
        write_lines(folder / "gt/gt.txt", rows)
        write_lines(folder / "seqinfo.ini", ["[Sequence]", "frameRate=20"])
    short = draw_frames(20, 64, 48)
    names = {
        "golf": ("one_golf_u_nm_np1_fr_goo_0", "two_golf_u_nm_np1_fr_goo_0"),
        "wave": ("x_wave_u_nm_np1_fr_goo_0",),
    }
    for label, clips in names.items():
        for clip in clips:
            folder = root / "actions/jhmdb"
            (folder / "train" / label).mkdir(parents=True, exist_ok=True)
            make_video(folder / "train" / label / f"{clip}.mp4", short, frame_rate=30)
            boxes = [f"{i + 1},1,{4 + i},4,10,12,1,1,1" for i in range(20) if i != 9]
            write_lines(folder / "train_boxes" / label / f"{clip}.txt", boxes)
            if label == "golf":
                people = [f"{i + 1},-1,40,30,10,12,{0.9 if i % 2 else 0.2},-1,-1,-1" for i in range(20)]
                write_lines(folder / "train_people" / label / f"{clip}.txt", people)
    for label, clip in (("fight", "fi001"), ("noFight", "nofi001")):
        folder = root / "actions/surveillance_fight/train" / label
        folder.mkdir(parents=True)
        make_video(folder / f"{clip}.mp4", short, frame_rate=20)
    write_lines(root / "lists/val.txt", ["# figures", "actions/jhmdb/train/golf/two_golf_u_nm_np1_fr_goo_0.mp4"])
    write_lines(root / "lists/dev.txt", ["mot/train/B:71-90"])
    return root


@pytest.fixture
def mot(root):
    return mot_train(root, splits=root / "lists")


@pytest.fixture
def actions(root):
    return action_train(root, splits=root / "lists")


def same(first, second) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first.nan_to_num(-7), second.nan_to_num(-7))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


def test_lists_and_the_gap_about_them_stay_out_of_training(root):
    lists = root / "lists"
    parts = {source.name: (source.first, source.stop) for source in mot_sources(root, "train", splits=lists)}
    assert parts == {"mot/train/A": (0, 90), "mot/train/B": (0, 40)}  # 71-90 listed, 41-70 nobody's
    dev = mot_sources(root, "dev", splits=lists)
    assert [(source.name, source.first, source.stop) for source in dev] == [("mot/train/B", 70, 90)]
    assert [source.name for source in mot_sources(root, "val", splits=lists)] == ["mot/val/C"]
    train, val = ({s.name for s in action_sources(root, part, splits=lists)} for part in ("train", "val"))
    assert val == {"actions/jhmdb/train/golf/two_golf_u_nm_np1_fr_goo_0.mp4"} and len(train) == 4 and not train & val
    for read in (mot_sources, action_sources):
        with pytest.raises(ValueError, match="part='test'"):
            read(root, "test")


def test_a_sample_is_what_the_model_takes(root, mot):
    sample = mot[0]
    assert sample["pixel_values_videos"].shape == (8, 3, 288, 512)
    assert sample["pixel_values_videos"].dtype == torch.float32 and sample["pixel_values_videos"].abs().max() <= 1
    assert sample["frame_mask"].all() and sample["pixel_mask"].shape == (288, 512)
    assert sample["labels"] == -100 and torch.isnan(sample["region_boxes"]).all()
    labels = [frame for frame in sample["frame_labels"] if len(frame["boxes"])][0]
    kinds = {key: (value.dtype, value.shape[1:]) for key, value in labels.items()}
    assert kinds == {
        "boxes": (torch.float32, (4,)),
        "class_labels": (torch.int64, ()),
        "track_ids": (torch.int64, ()),
        "ignore": (torch.bool, ()),
        "weight": (torch.float32, ()),
    }
    assert mot.sources[0].frames.frame_rate == 20  # seqinfo.ini, not the file's header


def test_boxes_lie_on_their_rectangles(mot):
    red, green = torch.tensor([220, 40, 40]) / 127.5 - 1, torch.tensor([40, 200, 60]) / 127.5 - 1
    mot.form = replace(mot.form, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0)
    wanted = {int(identity_key(s.name, np.array([i]))[0]): c for s in mot.sources for i, c in ((1, red), (2, green))}
    checked = 0
    for index in range(0, len(mot), 3):
        sample = mot[(1, index)]
        for t, labels in enumerate(sample["frame_labels"]):
            for n, (box, track_id) in enumerate(zip(labels["boxes"], labels["track_ids"].tolist(), strict=True)):
                x, y = ((box[:2] + box[2:]) / 2).round().long().tolist()
                inside = 0 <= y < 288 and 0 <= x < 512 and sample["pixel_mask"][y, x]
                others = labels["boxes"][[m for m in range(len(labels["boxes"])) if m != n]]
                hidden = any(b[0] - 4 <= x <= b[2] + 4 and b[1] - 4 <= y <= b[3] + 4 for b in others)
                if track_id >= 0 and inside and not hidden:
                    colour = sample["pixel_values_videos"][t, :, y, x]
                    assert (colour - wanted[track_id]).abs().max() < 0.3, (index, t)
                    checked += 1
    assert checked > 50


def test_boxes_cut_off_by_the_window_are_ignored(mot):
    seen = Counter()
    for index in range(len(mot)):
        sample = mot[(2, index)]
        height, width = (int(sample["pixel_mask"].any(axis).sum()) for axis in (1, 0))
        for labels in sample["frame_labels"]:
            boxes = labels["boxes"]
            inside = torch.stack((boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)), -1)  # (n, 2, 2)
            share = (inside[:, 1] - inside[:, 0]).prod(-1) / (boxes[:, 2:] - boxes[:, :2]).prod(-1)
            assert (share > 0).all() and labels["ignore"][share < 0.24].all()
            assert (labels["track_ids"][labels["ignore"]] == -1).all()
            seen.update({"cut": int((share < 0.24).sum()), "kept": int((~labels["ignore"]).sum())})
    assert seen["cut"] > 0 and seen["kept"] > 100


def test_labels_of_actions_and_of_fights_are_separate_groups(root, actions):
    assert action_names(root) == ["golf", "wave"]
    batch = collate([actions[i] for i in range(len(actions))])
    assert [name.rsplit("/")[-1][:4] for name in (s.name for s in actions.sources)] == ["one_", "x_wa", "fi00", "nofi"]
    assert batch["labels"].tolist() == [0, 1, -100, -100]
    assert batch["group_labels"]["fight"].tolist() == [-100, -100, 1, 0]
    assert batch["pixel_values_videos"].shape == (4, 8, 3, 224, 288)
    assert batch["region_boxes"].shape == (4, 8, 4)
    assert torch.isfinite(batch["region_boxes"][:2]).any() and torch.isnan(batch["region_boxes"][2:]).all()
    assert collate([actions[2], actions[3]])["region_boxes"] is None


def test_nobody_is_background_where_nobody_looked_for_people(actions):
    golf, wave, fight = (actions[i]["frame_labels"] for i in range(3))
    assert all(frame is None for frame in wave + fight)
    assert all(frame is not None for frame in golf)


def test_the_actor_is_positive_and_region_at_once(root):
    form = evaluation_form(ACTION_FORM, (64, 64), 30)
    clips = ActionClips(action_sources(root, "train", splits=root / "lists"), replace(form, num_frames=20), train=False)
    sample = clips[0]
    assert sample["pixel_mask"][:48, :64].all() and sample["pixel_mask"].sum() == 48 * 64
    for t, labels in enumerate(sample["frame_labels"]):
        people = dict(zip(labels["boxes"][:, 0].tolist(), labels["ignore"].tolist(), strict=True))
        assert people.pop(40.0) == (t % 2 == 0)  # score 0.2 in even frames
        if t == 9:
            assert not people and torch.isnan(sample["region_boxes"][t]).all()
        else:
            assert people == {4.0 + t: False}
            assert sample["region_boxes"][t].tolist() == [4 + t, 4, 14 + t, 16]


def test_a_clip_longer_than_the_video_is_masked(root):
    form = replace(evaluation_form(ACTION_FORM, (64, 64), 12.5), num_frames=16)
    clips = ActionClips(action_sources(root, "train", splits=root / "lists"), form, train=False)
    sample = clips[0]  # 20 frames at 30 a second hold 8 at 12.5
    assert sample["frame_mask"].tolist() == [True] * 8 + [False] * 8
    assert (sample["pixel_values_videos"][8:] == 0).all() and sample["frame_labels"][8:] == [None] * 8
    assert torch.isnan(sample["region_boxes"][8:]).all()


def test_a_sequence_shorter_than_the_clip_is_played_to_and_fro(root):
    clips = MotClips([read_sequence(root / "mot/train/A", "A", part=(11, 14))])
    sample = clips[0]
    assert sample["frame_mask"].all()
    places = [int(frame["boxes"].sum() * 1000) if len(frame["boxes"]) else None for frame in sample["frame_labels"]]
    assert places[0] == places[6] and places[1] == places[7] == places[5]


def test_samples_depend_on_seed_epoch_and_index_alone(root, mot):
    again = mot_train(root, splits=root / "lists")
    again[3], again[1]
    assert same(mot[(4, 7)], again[(4, 7)])
    again.set_epoch(4)
    assert same(mot[(4, 7)], again[7])
    other = mot_train(root, splits=root / "lists", seed=1)
    for key, clips in (((5, 7), mot), ((4, 8), mot), ((4, 7), other)):
        assert not torch.equal(mot[(4, 7)]["pixel_values_videos"], clips[key]["pixel_values_videos"])
    with pytest.raises(IndexError):
        mot[len(mot)]


def test_batches_are_the_same_for_any_number_of_workers(actions):
    runs = []
    for workers in (0, 2):
        batches = BalancedBatches(actions.strata, 2, seed=3, length=3)
        runs.append(list(DataLoader(actions, batch_sampler=batches, collate_fn=collate, num_workers=workers)))
    assert same(*runs)


@pytest.mark.parametrize("window", [None, (3, 5, 60, 40)])
def test_cached_frames_are_the_decoded_ones(root, tmp_path, monkeypatch, window):
    monkeypatch.setattr("kinetrack.hub_scripts.data.frames._SPARE_BYTES", 0)
    path = root / "mot/train/A/video.mp4"
    plain, cached = FrameStore(path), FrameStore(path, cache=tmp_path / "cache")
    order = [5, 2, 2, 89]
    expected = plain.read(order, window)
    assert expected.shape == (4, 35 if window else HEIGHT, 57 if window else WIDTH, 3)
    np.testing.assert_array_equal(cached.read(order, window), expected)
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".npy"]  # no temporary file is left
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(cached)).read(order, window), expected)


def test_a_cache_that_was_interrupted_is_made_again(root, tmp_path, monkeypatch):
    store = FrameStore(root / "mot/train/A/video.mp4", cache=tmp_path)
    monkeypatch.setattr(FrameStore, "_decode", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.read([0])
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert store.read([0]).shape == (1, HEIGHT, WIDTH, 3)


def test_image_folders_read_like_videos(root, tmp_path):
    from PIL import Image

    frames = FrameStore(root / "mot/train/A/video.mp4").read(range(5))
    (tmp_path / "img1").mkdir()
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(tmp_path / f"img1/{number:06d}.png")
    write_lines(tmp_path / "gt/gt.txt", ["1,1,4,4,10,10,1,1,1"])
    write_lines(tmp_path / "seqinfo.ini", ["[Sequence]", "frameRate=14"])
    source = read_sequence(tmp_path)
    assert (source.stop, source.frames.frame_rate, source.frames.width) == (5, 14, WIDTH)
    np.testing.assert_array_equal(source.frames.read([4, 0]), frames[[4, 0]])


def test_a_video_with_fewer_frames_than_announced_repeats_its_last(root):
    store = FrameStore(root / "mot/train/A/video.mp4")
    store.num_frames = LENGTH + 5
    np.testing.assert_array_equal(*store.read([LENGTH - 1, LENGTH + 3]))


def test_what_is_not_there_is_named(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="img1"):
        read_sequence(tmp_path)
    with pytest.raises(ValueError, match="frames 80-95"):
        read_sequence(root / "mot/train/A", part=(80, 95))
    with pytest.raises(FileNotFoundError, match="one folder a class"):
        action_names(tmp_path)
    with pytest.raises(ValueError, match="No clips"):
        mot_train(tmp_path)


def test_strata_get_their_shares_and_every_item_its_turn():
    strata = ["long"] * 90 + ["short"] * 10
    drawn = [i for n in range(100) for _, i in BalancedBatches(strata, 4, shares={}, seed=1).batch(n)]
    counts = Counter(drawn)
    assert 190 <= sum(counts[i] for i in range(90, 100)) <= 210
    assert max(counts[i] for i in range(90)) - min(counts[i] for i in range(90)) <= 1
    plain = Counter(i for n in range(25) for _, i in BalancedBatches(strata, 4, seed=1).batch(n))
    assert set(plain.values()) == {1} and len(plain) == 100
    triple = [i for n in range(100) for _, i in BalancedBatches(strata, 4, shares={"short": 3.0}, seed=1).batch(n)]
    assert 280 <= sum(i >= 90 for i in triple) <= 320


def test_an_item_drawn_twice_is_not_varied_alike():
    strata = ["long"] * 90 + ["short"] * 10
    drawn = [pair for n in range(100) for pair in BalancedBatches(strata, 4, shares={}, seed=1).batch(n)]
    assert len(set(drawn)) == len(drawn)


def test_batches_go_on_where_they_stopped():
    strata = ["a"] * 7 + ["b"] * 3
    whole = list(BalancedBatches(strata, 3, seed=2, length=20))
    first = BalancedBatches(strata, 3, seed=2, length=20)
    first.position = 8
    rest = BalancedBatches(strata, 3, seed=2, length=20)
    rest.load_state_dict(first.state_dict())
    assert list(rest) == whole[8:] and len(rest) == 12
    with pytest.raises(ValueError, match="seed 2"):
        BalancedBatches(strata, 3, seed=5).load_state_dict(first.state_dict())


def test_two_processes_share_out_the_batch_of_one():
    strata = ["a"] * 7 + ["b"] * 3
    one = BalancedBatches(strata, 4, seed=2)
    two = [BalancedBatches(strata, 2, seed=2, rank=rank, world_size=2) for rank in range(2)]
    for number in range(10):
        assert one.batch(number) == two[0].batch(number) + two[1].batch(number)


def test_the_contact_sheet_shows_the_boxes(root, tmp_path):
    from PIL import Image

    form = replace(evaluation_form(ACTION_FORM, (64, 64), 30), num_frames=8)
    clips = ActionClips(action_sources(root, "train", splits=root / "lists"), form, train=False)
    draw_contact_sheet(clips, [0], tmp_path / "sheet.png", frames=(0, 7))
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (64 + 12, 128, 3)
    assert (sheet == (0, 255, 0)).all(-1).any() and (sheet == (255, 40, 40)).all(-1).any()
    assert (sheet[12 + 48 :] == (90, 0, 90)).all()  # padding


def test_somebody_who_goes_somewhere_is_a_walker(root):
    boxes = read_sequence(root / "mot/train/A", "A").boxes
    walker = draw_walker(boxes, [10, 20, 30], 20, np.random.default_rng(0))
    assert walker.shape == (3, 4) and abs(walker[2, 0] - walker[0, 0]) == 2 * 20
    still = replace(boxes, xyxy=boxes.xyxy * 0 + [4, 4, 24, 64])
    assert draw_walker(still, [10, 20, 30], 20, np.random.default_rng(0)) is None
    assert draw_walker(boxes, [10, LENGTH + 10], 20, np.random.default_rng(0)) is None  # nobody is there at the end
    assert draw_walker(boxes, [10, 20, 30], 200, np.random.default_rng(0)) is not None
    assert draw_walker(boxes, [10, 20, 30], 2, np.random.default_rng(0)) is None  # the same way, in ten seconds


def test_clips_of_walkers_say_so_about_the_walker(root):
    walking = {"labels": 1, "group_labels": {"fight": 0}}
    form = replace(MOT_FORM, canvas=(128, 192), walkers=1.0, mosaic=0.0)
    clips = MotClips(mot_sources(root, "train", splits=root / "lists"), form, walking=walking)
    samples = [clips[i] for i in range(8)]
    told = [sample for sample in samples if sample["labels"] == 1]
    assert len(told) > 4
    for sample in told:
        assert sample["group_labels"] == {"fight": 0}
        seen = torch.isfinite(sample["region_boxes"]).all(1)
        assert seen.sum() > 4
        for time in seen.nonzero()[:, 0].tolist():
            boxes = sample["frame_labels"][time]["boxes"]
            assert (boxes - sample["region_boxes"][time]).abs().amax(1).min() < 1e-3
    never = MotClips(clips.sources, replace(form, walkers=0.0), walking=walking)
    assert all(never[i]["labels"] == -100 and torch.isnan(never[i]["region_boxes"]).all() for i in range(4))
