"""A picture of training samples with their boxes, to be looked at before a run is started.

Positives are green (dark green where they count less than 1), ignored boxes grey, the actor red, what a model found
yellow; padding is purple, and so is a frame that is masked out. Identities within the sequence are written on boxes.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from ..atomic_files import atomic_path

GREEN, DARK_GREEN, GREY, RED, PURPLE = (0, 255, 0), (0, 120, 0), (150, 150, 150), (255, 40, 40), (90, 0, 90)
YELLOW = (255, 220, 0)


def draw_sample(
    sample: dict,
    frames: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    detections: Sequence[torch.Tensor] | None = None,
):
    """Draws some frames of a sample side by side.

    Args:
        sample: As the datasets give it.
        frames: Which of its frames.
        mean: Normalisation of the pixels, to be undone.
        std: Likewise.
        detections: For every frame of the sample, `(n, 4)` boxes that a model found.

    Returns:
        A `PIL.Image`.
    """
    from PIL import Image, ImageDraw

    pixels = sample["pixel_values_videos"] * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()  # (T, H, W, 3)
    height, width = pixels.shape[1:3]
    row = Image.new("RGB", (width * len(frames), height + 12))
    for column, t in enumerate(frames):
        valid = sample["pixel_mask"].numpy() & bool(sample["frame_mask"][t])
        picture = Image.fromarray(np.where(valid[..., None], pixels[t], np.array(PURPLE, np.uint8)))
        pen = ImageDraw.Draw(picture)
        labels = sample["frame_labels"][t]
        if labels is not None:
            for box, ignore, weight, track_id in zip(
                *(labels[key].tolist() for key in ("boxes", "ignore", "weight", "track_ids")), strict=True
            ):
                colour = GREY if ignore else GREEN if weight == 1 else DARK_GREEN
                pen.rectangle(box, outline=colour, width=2)
                if track_id >= 0:
                    pen.text((box[0] + 2, box[1] + 1), str(track_id % 2**24), fill=colour)
        for x1, y1, x2, y2 in [] if detections is None else detections[t].tolist():
            pen.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=YELLOW)
        region = sample["region_boxes"][t]
        if torch.isfinite(region).all():
            x1, y1, x2, y2 = region.tolist()
            pen.rectangle((x1 + 2, y1 + 2, x2 - 2, y2 - 2), outline=RED)
        row.paste(picture, (column * width, 12))
    title = f"{Path(sample['names']).name} label {sample['labels']} {sample['group_labels']}"
    ImageDraw.Draw(row).text((2, 0), title, fill=(255, 255, 0))
    return row


def draw_contact_sheet(
    dataset: Dataset, items: Sequence[int | tuple[int, int]], path: str | os.PathLike, frames: Sequence[int] = (0, 3, 7)
) -> None:
    """Writes one row for each item of a dataset to a PNG file."""
    from PIL import Image

    form = dataset.form
    frames = [t for t in frames if t < form.num_frames]
    rows = [draw_sample(dataset[item], frames, form.image_mean, form.image_std) for item in items]
    sheet = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)))
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    with atomic_path(path) as partial:
        sheet.save(partial)


def main() -> None:
    """Draws sheets of both kinds of clips of a data root."""
    from .clips import ActionClips, MotClips
    from .sources import action_sources, mot_sources

    parser = argparse.ArgumentParser(description="Draw augmented training samples with their boxes.")
    parser.add_argument("root", help="data folder with actions/ and mot/")
    parser.add_argument("output", help="folder for mot.png and actions.png")
    parser.add_argument("--cache", help="folder for decoded frames")
    parser.add_argument("--count", type=int, default=8, help="samples in a sheet")
    parser.add_argument("--epoch", type=int, default=0)
    parser.add_argument("--evaluation", action="store_true", help="the unvaried form")
    arguments = parser.parse_args()
    Path(arguments.output).mkdir(parents=True, exist_ok=True)
    for name, make, read in (("mot", MotClips, mot_sources), ("actions", ActionClips, action_sources)):
        clips = make(read(arguments.root, cache=arguments.cache), train=not arguments.evaluation)
        chosen = np.random.default_rng(arguments.epoch).permutation(len(clips))[: arguments.count]
        items = [(arguments.epoch, int(index)) for index in chosen]
        draw_contact_sheet(clips, items, Path(arguments.output) / f"{name}.png")


if __name__ == "__main__":
    main()
