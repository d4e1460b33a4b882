"""Made-up clips under names that the committed lists know, so that every part has some."""

import shutil

import pytest
from kinetrack.hub_scripts.data.splits import parse_item, read_split


def _walk(make_frames, direction: int):
    frames = make_frames(12, 96, 64)
    return frames[::direction].copy()


@pytest.fixture(scope="session")
def clips_root(tmp_path_factory, make_video, draw_frames):
    """`actions/jhmdb` with two classes: two clips each to train on, and each class in `dev` and `val`."""
    root = tmp_path_factory.mktemp("experiment-data")
    names = [f"actions/jhmdb/train/{label}/made_up_{number}.mp4" for label in ("golf", "run") for number in range(2)]
    for part in ("dev", "val"):
        listed = [parse_item(item)[0] for item in read_split(part)]
        for label in ("golf", "run"):
            names.append(next(item for item in listed if f"/jhmdb/train/{label}/" in item))
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make_video(path, _walk(draw_frames, 1 if "/golf/" in name else -1))
        boxes = root / name.replace("/train/", "/train_boxes/").replace(".mp4", ".txt")
        boxes.parent.mkdir(parents=True, exist_ok=True)
        boxes.write_text("".join(f"{n},1,{10 + n},6,16,16,1,1,1\n" for n in range(1, 13)))
    return root


@pytest.fixture(scope="session")
def joint_root(clips_root, tmp_path_factory, draw_frames, make_video):
    """The made-up clips, and a sequence each to train on, in `dev` and in `val`."""
    root = tmp_path_factory.mktemp("joint-data")
    shutil.copytree(clips_root / "actions", root / "actions")
    frames = draw_frames(20, 96, 64)
    for name in ("train/WALKERS", "train/KITTI-17", "val/OTHERS"):
        folder = root / "mot" / name
        (folder / "gt").mkdir(parents=True)
        make_video(folder / "video.mp4", frames)
        lines = [f"{n},{p},{4 + 40 * (p - 1) + n},8,20,44,1,-1,-1,-1\n" for n in range(1, 21) for p in (1, 2)]
        (folder / "gt" / "gt.txt").write_text("".join(lines))
        (folder / "seqinfo.ini").write_text(
            f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=25\nseqLength=20\nimWidth=96\nimHeight=64\n"
        )
    return root
