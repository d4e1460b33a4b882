"""Draws what the model sees onto frames: boxes, identities, traces, actions of people and clip, attention."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import supervision as sv
from PIL import ImageFont

# Okabe and Ito's palette (https://jfly.uni-koeln.de/color/) without black, which vanishes in dark scenes: told apart
# with every common form of colour blindness. Neighbouring identities get colours that differ in lightness too.
IDENTITY_COLORS = ("#E69F00", "#0072B2", "#F0E442", "#D55E00", "#56B4E9", "#CC79A7", "#009E73")
BANNER_COLOR = "#101418"
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf"  # has Latin, Greek and Cyrillic

# Attention over the average at which `overlay_attention` reaches its full colour, and how opaque that is.
ATTENTION_FULL = 16.0
ATTENTION_STRENGTH = 0.62

_TRACE_SECONDS = 2.0


def identity_color(track_id: int) -> str:
    """Hexadecimal colour of an identity: always the same one, in the video and in the summary."""
    return IDENTITY_COLORS[int(track_id) % len(IDENTITY_COLORS)]


def text_color(background: str) -> str:
    """Black or white, whichever has the higher contrast (WCAG 2 relative luminance) on a hexadecimal colour."""
    channels = np.array([int(background[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "#000000" if float(linear @ (0.2126, 0.7152, 0.0722)) > 0.179 else "#FFFFFF"


class FrameAnnotator:
    """Draws the results of one stream; line widths and type follow the frame's size.

    Args:
        height: pixels of the frames.
        width: pixels of the frames.
        frame_rate: Hz of the frames that are drawn; traces show the last two seconds.
        action_names: names of the actions, in the model's order; None when actions are not drawn.
        action_threshold: probability below which an action is "uncertain".
        group_names: names of the labels of further groups of actions.
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        frame_rate: float = 25.0,
        action_names: list[str] | None = None,
        action_threshold: float = 0.0,
        group_names: dict[str, list[str]] | None = None,
    ):
        self.action_names = None if action_names is None else [*map(in_words, action_names)]
        self.action_threshold = action_threshold
        self.group_names = {group: [*map(in_words, names)] for group, names in (group_names or {}).items()}
        side = min(height, width)
        self.thickness = max(1, round(side / 320))
        self.font_size = int(np.clip(round(side / 42), 9, 40))
        self.padding = max(2, self.font_size // 4)
        self.font = ImageFont.truetype(str(FONT), self.font_size)
        palette = sv.ColorPalette.from_hex([_swapped(color) for color in IDENTITY_COLORS])
        by_identity = {"color": palette, "color_lookup": sv.ColorLookup.TRACK}
        type_options = {"font_path": str(FONT), "border_radius": self.padding // 2}
        self._boxes = sv.BoxAnnotator(thickness=self.thickness, **by_identity)
        self._traces = sv.TraceAnnotator(
            thickness=self.thickness,
            position=sv.Position.BOTTOM_CENTER,
            trace_length=max(2, round(_TRACE_SECONDS * frame_rate)),
            **by_identity,
        )
        self._labels = sv.RichLabelAnnotator(
            text_color=sv.ColorPalette.from_hex([text_color(color) for color in IDENTITY_COLORS]),
            font_size=self.font_size,
            text_padding=self.padding,
            **by_identity,
            **type_options,
        )
        self._banner = sv.RichLabelAnnotator(
            color=sv.Color.from_hex(_swapped(BANNER_COLOR)),
            text_color=sv.Color.WHITE,
            font_size=round(1.25 * self.font_size),
            text_padding=2 * self.padding,
            **type_options,
        )

    def annotate(self, frame: np.ndarray, result) -> np.ndarray:
        """Draws everything that a `KineTrackFrameResult` says.

        Args:
            frame: (H, W, 3) uint8 RGB; it is not changed.
            result: of that frame.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        scene = np.array(frame, order="C")
        height, width = scene.shape[:2]
        shown, names = self._visible(result, height, width)
        scene = self._traces.annotate(scene, shown)
        if len(shown):
            scene = self._boxes.annotate(scene, shown)
            scene = self._labels.annotate(scene, self._label_places(shown, names, height, width), labels=names)
        banner = self.banner_text(result)
        if banner:
            line = round(1.25 * self.font_size) + 4 * self.padding
            corner = sv.Detections(
                xyxy=np.array([[self.padding, line + self.padding, width, height]], float), class_id=np.zeros(1, int)
            )
            scene = self._banner.annotate(scene, corner, labels=[banner])
        return scene

    def banner_text(self, result) -> str:
        """What the whole clip shows in this frame's window, one line; empty without an action head."""
        if result.clip_action is None or self.action_names is None:
            return ""
        parts = [describe_action(result.clip_action, self.action_names, self.action_threshold)]
        for name, probabilities in result.group_actions.items():
            labels = self.group_names.get(name, [])
            if len(labels) == len(probabilities):
                parts.append(f"{name}: {describe_action(probabilities, labels, self.action_threshold)}")
        return "  |  ".join(parts)

    def _label_places(self, shown: sv.Detections, names: list[str], height: int, width: int) -> sv.Detections:
        """Boxes whose top left corners the labels stand on: inside the picture, and not on top of each other."""
        line = self.font_size + 2 * self.padding + 2
        places, taken = shown.xyxy.copy(), []
        for row in np.argsort(-shown.xyxy[:, 3], kind="stable"):  # those in front first
            needed = self.font.getlength(names[row]) + 2 * self.padding + 1
            left = max(0.0, min(float(places[row, 0]), width - needed))
            wanted = float(np.clip(places[row, 1], line, height - 1))
            bottom = wanted
            for _ in range(4):
                clash = [y for x1, x2, y in taken if x1 < left + needed and left < x2 and abs(y - bottom) < line]
                if not clash:
                    break
                bottom = min(clash) - line
            bottom = bottom if bottom >= line else wanted
            taken.append((left, left + needed, bottom))
            places[row] = left, bottom, left + needed, bottom + line
        return sv.Detections(xyxy=places, tracker_id=shown.tracker_id)

    def _visible(self, result, height: int, width: int):
        """Detections that touch the frame, cut to just outside it, and their labels."""
        boxes = np.asarray(result.boxes, np.float32).reshape(-1, 4)
        inside = (boxes[:, 2] > 0) & (boxes[:, 3] > 0) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
        inside &= np.isfinite(boxes).all(1)
        margin = 2 * self.thickness
        cut = np.clip(boxes[inside], -margin, [width + margin, height + margin] * 2)
        rows = np.flatnonzero(inside)
        shown = sv.Detections(xyxy=cut, tracker_id=np.asarray(result.track_ids)[inside].astype(int))
        return shown, [self._label(result, row, boxes[row, 2] - boxes[row, 0]) for row in rows]

    def _label(self, result, row: int, box_width: float) -> str:
        """Identity and action, shorter where the box is too narrow for all of it."""
        identity = f"#{int(result.track_ids[row])}"
        if result.actions is None or self.action_names is None:
            return identity
        name, confidence = top_action(result.actions[row], self.action_names, self.action_threshold)
        room = max(1.6 * box_width, 6 * self.font_size)
        if name == "uncertain":
            choices = [f"{identity} uncertain", f"{identity} ?"]
        else:
            choices = [f"{identity} {name} {confidence:.0%}", f"{identity} {name}"]
        return next((text for text in choices if self.font.getlength(text) <= room), choices[-1])


def annotator_for(result, frame_rate: float, model: dict) -> FrameAnnotator:
    """The annotator of a stream that begins with a `KineTrackFrameResult`.

    Args:
        result: of its first frame.
        frame_rate: Hz of the frames that are drawn.
        model: from `describe_model`.
    """
    return FrameAnnotator(
        result.height,
        result.width,
        frame_rate=frame_rate,
        action_names=model["actions"] if result.clip_action is not None else None,
        action_threshold=model["action_threshold"],
        group_names=model["groups"],
    )


def _swapped(color: str) -> str:
    """A colour with red and blue exchanged: supervision takes frames to be BGR, and ours are RGB."""
    return "#" + color[5:7] + color[3:5] + color[1:3]


def in_words(label: str) -> str:
    """`shoot_ball` as "shoot ball", `noFight` as "no fight"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.replace("_", " ")).lower()


def top_action(probabilities: np.ndarray, names: list[str], threshold: float = 0.0) -> tuple[str, float]:
    """Name and probability of the likeliest action; the name is "uncertain" below the threshold."""
    best = int(np.argmax(probabilities))
    confidence = float(probabilities[best])
    return (names[best] if confidence >= threshold else "uncertain"), confidence


def describe_action(probabilities: np.ndarray, names: list[str], threshold: float = 0.0) -> str:
    """One phrase such as `walk 71%`, or `uncertain (walk 31%)`."""
    best = int(np.argmax(probabilities))
    phrase = f"{names[best]} {float(probabilities[best]):.0%}"
    return phrase if probabilities[best] >= threshold else f"uncertain ({phrase})"


def overlay_attention(frame: np.ndarray, attention: np.ndarray, strength: float = ATTENTION_STRENGTH) -> np.ndarray:
    """Lays the spatial attention over a frame: grey where it is average or less, warm where it is more.

    The scale is absolute, so attention that has collapsed to uniform shows as nothing instead of as a pattern.

    Args:
        frame: (H, W, 3) uint8 RGB.
        attention: (h, w) alpha over the same picture, summing to one.
        strength: opacity where attention is `ATTENTION_FULL` times the average or more.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    from PIL import Image

    height, width = frame.shape[:2]
    # Logarithmic: doubling the attention is one step of colour, wherever it starts.
    relative = np.log(np.maximum(attention * attention.size, 1.0)) / np.log(ATTENTION_FULL)
    small = Image.fromarray(np.clip(relative, 0, 1).astype(np.float32), mode="F")
    weight = np.clip(np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)  # (H, W)
    colors = matplotlib.colormaps["inferno"](0.25 + 0.7 * weight)[..., :3] * 255
    gray = frame @ np.array([0.299, 0.587, 0.114])
    base = 0.5 * frame + 0.35 * gray[..., None]
    opacity = strength * np.sqrt(weight)[..., None]
    return np.clip((1 - opacity) * base + opacity * colors, 0, 255).astype(np.uint8)
