"""The actor's joints: read, moved with the picture, mirrored as a body is, kept beside a changed backdrop."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.annotations import read_people
from kinetrack.hub_scripts.data.augmentation import Window
from kinetrack.hub_scripts.data.clips import ACTION_FORM, ActionClips, ClipSource
from kinetrack.hub_scripts.data.frames import FrameStore
from kinetrack.hub_scripts.data.keypoints import JOINTS, MIRRORED, find_keypoints, read_keypoints
from kinetrack.hub_scripts.data.sources import action_sources, has_keypoints, read_labelled_clip

LENGTH, WIDTH, HEIGHT = 12, 128, 96
LEFT_WRIST, RIGHT_WRIST = JOINTS.index("left_wrist"), JOINTS.index("right_wrist")


def joints_line(frame, **places):
    triples = [places.get(name, (0, 0, 0)) for name in JOINTS]
    return f"{frame},1," + ",".join(str(value) for triple in triples for value in triple)


@pytest.fixture
def root(tmp_path, make_video, draw_frames):
    """One clip whose actor's left wrist moves by two pixels a frame; the right one is seen in the first frame only."""
    make = tmp_path / "actions/jhmdb"
    for kind in ("train", "train_boxes", "train_people", "train_keypoints"):
        (make / kind / "wave").mkdir(parents=True)
    make_video(make / "train/wave/clip.mp4", draw_frames(LENGTH, WIDTH, HEIGHT), frame_rate=25)
    (make / "train_boxes/wave/clip.txt").write_text("".join(f"{i + 1},1,20,10,60,70,1,1,1\n" for i in range(LENGTH)))
    (make / "train_people/wave/clip.txt").write_text("1,-1,90,10,20,40,0.9,1,1,1\n")
    lines = [
        joints_line(i + 1, left_wrist=(30 + 2 * i, 40, 1), **({"right_wrist": (70, 44, 1)} if i == 0 else {}))
        for i in range(LENGTH)
    ]
    (make / "train_keypoints/wave/clip.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_joints_are_read_by_frame(root):
    points = read_keypoints(root / "actions/jhmdb/train_keypoints/wave/clip.txt", LENGTH)
    assert points.shape == (LENGTH, 13, 3)
    assert points[3, LEFT_WRIST].tolist() == [36, 40, 1]
    assert points[0, RIGHT_WRIST, 2] == 1 and points[1, RIGHT_WRIST, 2] == 0


def test_lines_of_another_length_are_refused(tmp_path):
    (tmp_path / "clip.txt").write_text("1,1,5,5,1\n")
    with pytest.raises(ValueError, match="41 numbers a line, got 5"):
        read_keypoints(tmp_path / "clip.txt", 3)


def test_data_without_joints_are_read_as_before(root):
    folder = root / "actions/jhmdb/train_keypoints"
    assert has_keypoints(root)
    folder.rename(folder.with_name("elsewhere"))
    assert not has_keypoints(root)
    assert read_labelled_clip(root, "actions/jhmdb/train/wave/clip.mp4").keypoints is None


def test_mirroring_twice_changes_nothing_and_swaps_sides_once():
    assert [MIRRORED[place] for place in MIRRORED] == list(range(len(JOINTS)))
    assert MIRRORED[LEFT_WRIST] == RIGHT_WRIST and MIRRORED[JOINTS.index("nose")] == JOINTS.index("nose")


def test_points_move_with_the_window_and_weigh_nothing_beyond_it():
    window = Window((10, 0, 74, 48), (96, 128))  # twice the size
    moved = window.map_points(np.array([[20.0, 10.0, 1.0], [5.0, 10.0, 1.0]], np.float32))
    assert moved.tolist() == [[20, 20, 1], [-10, 20, 0]]
    flipped = replace(window, flip=True).map_points(np.array([[20.0, 10.0, 1.0]], np.float32))
    assert flipped[0].tolist() == [108, 20, 1]


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_samples_hold_the_actors_joints_where_the_actor_is(root, flip):
    form = replace(ACTION_FORM, canvas=(96, 128), num_frames=4, scale=(1.0, 1.0), flip=flip, backdrop=0.0)
    clips = ActionClips(action_sources(root, "train", sets=("jhmdb",)), form)
    for epoch in range(5):
        sample = clips[(epoch, 0)]
        wrist = RIGHT_WRIST if flip else LEFT_WRIST
        for labels, frame in zip(sample["frame_labels"], sample["region_boxes"], strict=True):
            actor = int((labels["track_ids"] >= 0).nonzero())
            x, y, weight = labels["keypoints"][actor, wrist].tolist()
            assert weight == 1 and frame[0] <= x <= frame[2] and y == 40
            assert not labels["keypoints"][torch.arange(len(labels["boxes"])) != actor].any()


def test_a_changed_backdrop_leaves_the_actor_and_ignores_all_else(root):
    form = replace(ACTION_FORM, canvas=(96, 128), num_frames=4, scale=(1.0, 1.0), backdrop=1.0)
    sample = ActionClips(action_sources(root, "train", sets=("jhmdb",)), form)[0]
    for labels in sample["frame_labels"]:
        assert labels["ignore"].tolist() == [False, True]
        assert labels["boxes"][1].tolist() == [0, 0, 128, 96]
        assert labels["keypoints"][0, :, 2].any() and not labels["keypoints"][1].any()


def test_finding_joints_without_mediapipe_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(ImportError, match="pip install mediapipe=="):
        find_keypoints(np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 4)))


def test_a_pose_is_kept_only_where_the_person_is(monkeypatch):
    """BlazePose is played by a stub that puts every joint at one place of the square it is shown."""
    place = {}

    class Pose:
        def __init__(self, **options):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def process(self, image):
            assert image.shape == (384, 384, 3)
            marks = [
                type("Mark", (), {"x": place["x"], "y": 0.5, "visibility": 0.4 if i == 0 else 0.9}) for i in range(33)
            ]
            return type("Found", (), {"pose_landmarks": type("Marks", (), {"landmark": marks})})

    stub = SimpleNamespace(solutions=SimpleNamespace(pose=SimpleNamespace(Pose=Pose)))
    monkeypatch.setitem(sys.modules, "mediapipe", stub)
    boxes = np.tile([40.0, 20.0, 60.0, 70.0], (3, 1))
    frames = np.zeros((3, 96, 128, 3), np.uint8)
    place["x"] = 0.5
    points = find_keypoints(frames, boxes)
    np.testing.assert_allclose(points[:, :, :2], np.broadcast_to([50.0, 45.0], (3, 13, 2)), atol=1e-3)
    assert (points[:, 1:, 2] == 1).all() and not points[:, 0, 2].any()  # the nose is hardly visible
    place["x"] = 0.0
    assert not find_keypoints(frames, boxes).any()


def test_a_source_without_an_actor_has_no_joints(root):
    video = root / "actions/jhmdb/train/wave/clip.mp4"
    people = read_people(root / "actions/jhmdb/train_people/wave/clip.txt", "clip")
    source = ClipSource("clip", FrameStore(video), 0, LENGTH, people)
    labels = ActionClips([source], replace(ACTION_FORM, canvas=(96, 128), num_frames=2))[0]["frame_labels"]
    assert all("keypoints" not in frame for frame in labels)
