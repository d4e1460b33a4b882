"""What the page shows beyond the analysis: spatial attention of every frame, and a portrait of everybody tracked."""

import base64
import io
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image

from ..processing.drawing import ATTENTION_FULL, ATTENTION_STRENGTH
from ..processing.live_kinetrack import StreamEvent

VIEW, ATTENTION = "view.json", "attention.png"

_LEVELS = 64  # of attention; one byte a cell
_COLUMNS = 64  # frames side by side in the sheet: 3000 frames stay below the side that browsers decode
_PORTRAIT = (84, 112)  # pixels, width and height
_BETTER = 1.15  # a new portrait has to be this much better, so that few are cut out


@dataclass(frozen=True)
class Portrait:
    """The best look at somebody.

    Attributes:
        image: (112, 84, 3) uint8 RGB.
        time: seconds.
        quality: detection score times visible size; what "best" means.
    """

    image: np.ndarray
    time: float
    quality: float

    def data_uri(self) -> str:
        """The picture as JPEG, for the `src` of an `<img>`."""
        file = io.BytesIO()
        Image.fromarray(self.image).save(file, "JPEG", quality=82)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


class Evidence:
    """Gathers from the `KineTrackFrameResult`s of a run what `VideoAnalysis` does not keep; never whole frames."""

    def __init__(self):
        self.times: list[float] = []
        self.is_damaged = False
        self.portraits: dict[int, Portrait] = {}
        self._attention: list[np.ndarray] = []  # (h, w) uint8 levels
        self._strongest: list[tuple[int, int, float]] = []  # row, column, times the average
        self._boxes: defaultdict[int, list[list[int]]] = defaultdict(list)  # [frame, x1, y1, x2, y2]

    def add(self, result) -> None:
        """Takes the result of the next frame."""
        position = len(self.times)
        self.times.append(result.time)
        if result.spatial_attention is not None:
            relative = result.spatial_attention * result.spatial_attention.size
            weight = np.log(np.maximum(relative, 1.0)) / np.log(ATTENTION_FULL)
            self._attention.append(np.round(np.clip(weight, 0, 1) * (_LEVELS - 1)).astype(np.uint8))
            row, column = np.unravel_index(int(relative.argmax()), relative.shape)
            self._strongest.append((int(row), int(column), float(relative.max())))
        boxes = np.asarray(result.boxes, float)
        for track_id, box in zip(result.track_ids.tolist(), np.rint(boxes).astype(int).tolist(), strict=True):
            self._boxes[track_id].append([position, *box])
        self._look_at_people(result, boxes)

    def hear(self, event: StreamEvent) -> None:
        """Takes what happened to the source; left alone, it goes to the log, with the name of the file."""
        self.is_damaged |= event.kind == "damaged"

    def _look_at_people(self, result, boxes: np.ndarray) -> None:
        limits = [result.width, result.height] * 2
        inside = np.clip(boxes, 0, limits)
        sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-6)
        seen = np.maximum(inside[:, 2:] - inside[:, :2], 0)
        quality = result.scores * np.sqrt(seen.prod(1)) * (seen.prod(1) / sides.prod(1))
        for row, track_id in enumerate(result.track_ids.tolist()):
            best = self.portraits.get(track_id)
            if quality[row] > 0 and (best is None or quality[row] > _BETTER * best.quality):
                self.portraits[track_id] = Portrait(_cut_out(result.frame, boxes[row]), result.time, quality[row])

    def strongest(self, position: int) -> tuple[str, float] | None:
        """Where attention is highest in a frame, in words, and how many times the average; None without attention."""
        if not self._strongest:
            return None
        row, column, times_average = self._strongest[position]
        height, width = self._attention[position].shape
        return _place(row / height, column / width), times_average

    def attention(self, position: int) -> np.ndarray:
        """(h, w) attention of a frame on the logarithmic scale of the overlay, 0 to 1."""
        return self._attention[position] / np.float32(_LEVELS - 1)

    def save(self, folder: Path) -> None:
        """Writes what the page loads: `view.json` with times and boxes, `attention.png` with a tile a frame."""
        view = {"times": [round(time, 4) for time in self.times], "tracks": self._boxes, "attention": None}
        if self._attention:
            height, width = self._attention[0].shape
            view["attention"] = {"columns": min(_COLUMNS, len(self._attention)), "width": width, "height": height}
            view["strongest"] = [
                [_place(row / height, column / width), float(f"{times:.2g}")] for row, column, times in self._strongest
            ]
            attention_sheet(self._attention).save(folder / ATTENTION, optimize=True)
        (folder / VIEW).write_text(json.dumps(view, separators=(",", ":")), encoding="utf-8")


def attention_sheet(tiles: list[np.ndarray]) -> Image.Image:
    """All frames' attention in one transparent picture, `_COLUMNS` side by side, in the colours of the summary.

    Args:
        tiles: (h, w) uint8 levels, all of one size; one of another size (the frame size changed) is left empty.
    """
    height, width = tiles[0].shape
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height, index % columns * width
        if tile.shape == (height, width):
            sheet[top : top + height, left : left + width] = tile
    weight = np.linspace(0, 1, _LEVELS)
    colors = matplotlib.colormaps["inferno"](0.25 + 0.7 * weight, bytes=True)[:, :3]
    image = Image.fromarray(sheet, mode="P")
    image.putpalette(colors.tobytes())
    image.info["transparency"] = bytes(np.rint(255 * ATTENTION_STRENGTH * np.sqrt(weight)).astype(int).tolist())
    return image


def _cut_out(frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The part of a frame around a box, with a margin, in the shape of a portrait."""
    width, height = _PORTRAIT
    center = (box[:2] + box[2:]) / 2
    tall = 1.12 * max(box[3] - box[1], (box[2] - box[0]) * height / width)
    wide = tall * width / height
    corners = (center[0] - wide / 2, center[1] - tall / 2, center[0] + wide / 2, center[1] + tall / 2)
    crop = Image.fromarray(frame).crop(tuple(round(value) for value in corners))  # black beyond the frame
    return np.asarray(crop.resize(_PORTRAIT, Image.Resampling.BILINEAR, reducing_gap=2.0))


def _place(down: float, across: float) -> str:
    """A place in a picture in words."""
    row = ("upper", "middle", "lower")[min(2, int(3 * down))]
    column = ("left", "centre", "right")[min(2, int(3 * across))]
    return "centre" if (row, column) == ("middle", "centre") else f"{row} {column}"
