"""Clips put together from several: mosaics of sequences, and another clip's still behind an actor."""

from dataclasses import replace

import numpy as np
import torch
from kinetrack.hub_scripts.data.annotations import FrameBoxes
from kinetrack.hub_scripts.data.augmentation import ClipForm
from kinetrack.hub_scripts.data.clips import ActionClips, ClipSource, MotClips, join_mosaic
from kinetrack.hub_scripts.train_config import FINETUNING, load_train_config

PLAIN = ClipForm(num_frames=4, canvas=(64, 128), scale=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, hue=0.0)
PLAIN = replace(PLAIN, saturation=0.0, grayscale=0.0, focus=0.0)


class StillFrames:
    """Frames of one grey level, as a `FrameStore` gives them."""

    height, width, num_frames, frame_rate = 64, 128, 12, 12.5

    def __init__(self, level):
        self.level = level

    def read(self, indices, window):
        left, top, right, bottom = window
        return np.full((len(indices), bottom - top, right - left, 3), self.level, np.uint8)


def source(level, box, actor=False):
    frames = np.arange(12)
    corners = np.tile(np.float32(box), (12, 1))
    boxes = FrameBoxes(
        frame=frames,
        xyxy=corners,
        track_id=np.full(12, level),
        ignore=np.zeros(12, bool),
        weight=np.ones(12, np.float32),
        class_label=np.zeros(12, np.int64),
    )
    return ClipSource(f"level{level}", StillFrames(level), 0, 12, boxes, corners if actor else None, 0, stratum="s")


def test_a_mosaic_holds_four_clips_with_their_boxes_in_their_quarters():
    levels = [10, 80, 150, 220]
    sources = [source(level, (40, 20, 60, 50)) for level in levels]
    clips = MotClips(sources, replace(PLAIN, mosaic=1.0), anchor_stride=12)
    seen = set()
    for index in range(4):
        sample = clips[index]
        assert sample["pixel_values_videos"].shape == (4, 3, 64, 128) and sample["pixel_mask"].all()
        assert " + " in sample["names"]
        label = sample["frame_labels"][0]
        shown = ((sample["pixel_values_videos"][0, 0] + 1) * 127.5).round()
        for box, key in zip(label["boxes"][~label["ignore"]], label["track_ids"][~label["ignore"]], strict=True):
            x, y = ((box[:2] + box[2:]) / 2).long().tolist()
            assert shown[y, x] == key  # the box lies on the clip it belongs to
            seen.add((x // 64, y // 32))
    assert len(seen) == 4


def test_a_box_centred_beyond_its_quarter_is_ignored_and_cut():
    def part(box):
        frame = {"boxes": torch.tensor([box]), "ignore": torch.tensor([False]), "track_ids": torch.tensor([7])}
        return {
            "pixel_values_videos": torch.zeros(1, 3, 32, 64),
            "frame_mask": torch.ones(1, dtype=torch.bool),
            "frame_labels": [frame],
            "names": "x",
        }

    joined = join_mosaic([part([0.0, 0.0, 20.0, 20.0]), part([-30.0, 4.0, 10.0, 20.0]), *[part([0.0] * 4)] * 2])
    label = joined["frame_labels"][0]
    assert label["boxes"][1].tolist() == [64, 4, 74, 20]
    assert label["ignore"].tolist()[:2] == [False, True] and label["track_ids"].tolist()[:2] == [7, -1]


def test_a_mosaic_fits_every_canvas_that_a_model_takes():
    sources = [source(level, (40, 20, 60, 50)) for level in (10, 80)]
    for canvas in ((96, 160), tuple(load_train_config(FINETUNING).data.tracking.size)):
        sample = MotClips(sources, replace(PLAIN, canvas=canvas, mosaic=1.0))[0]
        assert sample["pixel_values_videos"].shape == (4, 3, *canvas) == (4, 3, *sample["pixel_mask"].shape)


def test_a_backdrop_leaves_only_the_actor():
    sources = [source(200, (48, 16, 80, 48), actor=True), source(20, (0, 0, 5, 5))]
    clips = ActionClips(sources, replace(PLAIN, backdrop=1.0))
    drawn = []
    for epoch in range(8):
        sample = clips[(epoch, 0)]
        shown = ((sample["pixel_values_videos"][:, 0] + 1) * 127.5).round()
        assert (shown[:, 16:48, 48:80] == 200).all()
        assert sample["labels"] == 0
        for labels in sample["frame_labels"]:  # nobody looked for people in the backdrop: all of it is ignored
            assert labels["boxes"].tolist() == [[48, 16, 80, 48], [0, 0, 128, 64]]
            assert labels["ignore"].tolist() == [False, True]
        drawn.append(shown[0, 0, 127].item())
    assert set(drawn) == {20, 200}  # either clip can be the backdrop
