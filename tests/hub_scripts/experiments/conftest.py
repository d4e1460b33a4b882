"""Made-up clips under names that the committed lists know, so that every part has some."""

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
