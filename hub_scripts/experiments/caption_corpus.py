"""A small made-up corpus: real frames, with sentences and answers that follow by template from labels and boxes.

Two kinds of scenes. In a *pair*, two JHMDB clips of different actions play side by side: who does what, and which way
they go, from the class folders and the actor's annotated boxes. In a *street*, a part of a MOT sequence of about a
second is cut out: how many people there are and which way most go, from the annotated tracks.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...processing.decoding_kinetrack import VideoFrame
from ..data.clips import ClipSource
from ..data.frames import FrameStore
from ..data.sources import ACTION_SET, action_names, action_sources, film_names, mot_sources
from ..evaluation_actions import ActorClip, draw_pairs, resample, stitch
from ..evaluation_items import LabelledClip

RATE = 12.5  # frames a second, kinetrack-nano's own
MOVED = 0.05  # of the frame's width: who moves less stays where they are
WINDOW = 16  # frames of a street
STRETCH = 100  # frames of a sequence that intervals draw together
PARTS_OF_A_WINDOW = {"train": 3, "dev": 4, "val": 2}

VERBS = {
    "brush_hair": "brushes hair",
    "catch": "catches",
    "clap": "claps",
    "climb_stairs": "climbs stairs",
    "golf": "plays golf",
    "jump": "jumps",
    "kick_ball": "kicks a ball",
    "pick": "picks something up",
    "pour": "pours",
    "pullup": "does pullups",
    "push": "pushes something",
    "run": "runs",
    "shoot_ball": "shoots a ball",
    "shoot_bow": "shoots a bow",
    "shoot_gun": "shoots a gun",
    "sit": "sits down",
    "stand": "stands up",
    "swing_baseball": "swings a bat",
    "throw": "throws",
    "walk": "walks",
    "wave": "waves",
}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
MANY = "many"

DOES = "what does the person on the {} do ?"
GOES = "which way does the person on the {} go ?"
HOW_MANY = "how many people are there ?"
MOST = "which way do most people go ?"
CAPTION = ""
SLOTS = {
    DOES.format("left"): "verb",
    DOES.format("right"): "verb",
    GOES.format("left"): "way",
    GOES.format("right"): "way",
    HOW_MANY: "count",
    MOST: "most",
    CAPTION: "sentence",
}
NOWHERE, DIFFERENT = "nowhere", "different ways"
SIDES = ("left", "right")

_PAIR = re.compile(r"a person (.+?)(?: moving (left|right))? while another (.+?)(?: moving (left|right))?")
_STREET = re.compile(r"(\w+) (?:person|people) in the street(?: (?:mostly )?going (\w+))?")


@dataclass(frozen=True)
class Scene:
    """One video of the corpus, and what can be said of it.

    Attributes:
        name: unlike any other's.
        answers: by question; that to no question at all, "", is the sentence that describes the scene.
        films: by question, what the answer's clip was cut from: answers of one film are not independent.
        frames: makes the frames.
    """

    name: str
    answers: dict[str, str]
    films: dict[str, str]
    frames: Callable[[], Iterator[VideoFrame]]


def read_scenes(root: Path, part: str, limit: int | None = None) -> list[Scene]:
    """All scenes of "train", "dev" or "val", by the committed lists.

    Args:
        root: data root with `actions/jhmdb`, and `mot/` unless there are to be no streets.
        part: which list.
        limit: this many clips of each class alone, and as many windows of each sequence.

    Raises:
        ValueError: too few clips to pair.
    """
    return [*_pairs(root, part, limit), *_streets(root, part, limit)]


def verb_of(action: str) -> str:
    """What somebody does, from the name of a class."""
    return VERBS.get(action, action.replace("_", " "))


def way_of(shift: float) -> str:
    """From a shift in parts of the frame's width to a word."""
    return NOWHERE if abs(shift) < MOVED else "left" if shift < 0 else "right"


def most_of(ways: list[str]) -> str:
    """Which way more than half of several people go."""
    return next((way for way in ("left", "right", NOWHERE) if ways.count(way) > len(ways) / 2), DIFFERENT)


def count_of(people: int) -> str:
    """A number as a word."""
    return COUNTS[people] if people < len(COUNTS) else MANY


def compose(answers: dict[str, str]) -> str:
    """The sentence that says what the answers to a scene's questions say."""
    if HOW_MANY in answers:
        noun, going = ("person", "going") if answers[HOW_MANY] == COUNTS[1] else ("people", "mostly going")
        most = answers[MOST]
        return f"{answers[HOW_MANY]} {noun} in the street" + (f" {going} {most}" if most in ("left", "right") else "")
    told = []
    for side in SIDES:
        way = answers[GOES.format(side)]
        told.append(answers[DOES.format(side)] + ("" if way == NOWHERE else f" moving {way}"))
    return f"a person {told[0]} while another {told[1]}"


def _pairs(root: Path, part: str, limit: int | None) -> list[Scene]:
    sources = [source for source in action_sources(root, part, sets=(ACTION_SET,)) if source.actor is not None]
    if limit is not None:
        kept = {}
        for source in sources:
            kept.setdefault(source.label, []).append(source)
        sources = [source for group in kept.values() for source in group[:limit]]
    pairs = draw_pairs([source.label for source in sources])
    if not pairs:
        raise ValueError(f"The {part} list finds no two clips of different classes with boxes below {root}.")
    names, films = action_names(root), film_names(sources)
    scenes = []
    for numbers in pairs:
        both = [sources[number] for number in numbers]
        verbs = [verb_of(names[source.label]) for source in both]
        shown = min(source.frames.num_frames for source in both)
        ways = [way_of(_shift(source.actor[:shown]) / source.frames.width) for source in both]
        answers, owner = {}, {CAPTION: films[both[0].name]}
        for side, verb, way, source in zip(SIDES, verbs, ways, both, strict=True):
            for question, answer in ((DOES, verb), (GOES, way)):
                answers[question.format(side)], owner[question.format(side)] = answer, films[source.name]
        answers[CAPTION] = compose(answers)
        scenes.append(Scene(" + ".join(source.name for source in both), answers, owner, _PairFrames(*both)))
    return scenes


def _shift(boxes: np.ndarray) -> float:
    """How far the centre of boxes `(T, 4)` moves to the right from first to last, those that are NaN left out."""
    centres = boxes[np.isfinite(boxes).all(1)][:, [0, 2]].mean(1)
    return float(centres[-1] - centres[0]) if len(centres) else 0.0


class _PairFrames:
    """Two clips side by side at the model's rate."""

    def __init__(self, left: ClipSource, right: ClipSource):
        self._clips = [
            ActorClip(LabelledClip(source.frames.path, ""), source.label, source.actor) for source in (left, right)
        ]

    def __call__(self) -> Iterator[VideoFrame]:
        return resample((frame for frame, _ in stitch(*self._clips)), RATE)


def _streets(root: Path, part: str, limit: int | None) -> list[Scene]:
    scenes = []
    for source in mot_sources(root, part) if (Path(root) / "mot").is_dir() else []:
        step = max(source.frames.frame_rate / RATE, 1.0)
        starts = np.arange(source.first, source.stop - round(step * (WINDOW - 1)), round(step * WINDOW))
        rng = np.random.default_rng(0)
        for start in starts[:limit]:
            frames = start + (np.arange(WINDOW) * step).round().astype(int)
            for _ in range(PARTS_OF_A_WINDOW[part]):
                scene = _street(source, frames, _draw_part(source, rng))
                scenes += [] if scene is None else [scene]
    return scenes


def _draw_part(source: ClipSource, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A part of the frame, no wider than 4:3, `(left, top, right, bottom)`."""
    height = round(source.frames.height * rng.uniform(min(0.95, max(0.35, 192 / source.frames.height)), 0.95))
    width = min(source.frames.width, round(height * 4 / 3))
    left = int(rng.integers(0, source.frames.width - width + 1))
    top = int(rng.integers(0, source.frames.height - height + 1))
    return left, top, left + width, top + height


def _street(source: ClipSource, frames: np.ndarray, part: tuple[int, int, int, int]) -> Scene | None:
    """None where nobody is seen by half in half of the frames."""
    left, top, right, bottom = part
    centres: dict[int, list[float]] = {}
    for frame in frames:
        rows = source.boxes.at(int(frame))
        inside = np.minimum(rows.xyxy[:, 2:], [right, bottom]) - np.maximum(rows.xyxy[:, :2], [left, top])
        share = inside.clip(0).prod(1) / (rows.xyxy[:, 2:] - rows.xyxy[:, :2]).prod(1).clip(1e-6)
        for row in np.flatnonzero((share >= 0.5) & ~rows.ignore):
            centres.setdefault(int(rows.track_id[row]), []).append(float(rows.xyxy[row, [0, 2]].mean()))
    people = [series for series in centres.values() if len(series) >= len(frames) / 2]
    if not people:
        return None
    ways = [way_of((series[-1] - series[0]) / (right - left)) for series in people]
    answers = {HOW_MANY: count_of(len(people)), MOST: most_of(ways)}
    answers[CAPTION] = compose(answers)
    film = f"{source.name} {frames[0] // STRETCH}"
    name = f"{source.name}:{frames[0] + 1}-{frames[-1] + 1}@{part}"
    return Scene(name, answers, dict.fromkeys(answers, film), _StreetFrames(source, frames, part))


class _StreetFrames:
    """A part of a sequence at the model's rate, or its own where that is lower."""

    def __init__(self, source: ClipSource, frames: np.ndarray, part: tuple[int, int, int, int]):
        self._source, self._frames, self._part = source, frames, part

    def __call__(self) -> Iterator[VideoFrame]:
        left, top, right, bottom = self._part
        images = _read_window(self._source.frames, tuple(self._frames.tolist()))[:, top:bottom, left:right]
        for number, (frame, image) in enumerate(zip(self._frames, images, strict=True)):
            yield VideoFrame(image, float(frame - self._frames[0]) / self._source.frames.frame_rate, number)


@lru_cache(maxsize=1)  # the parts of one window follow one another, and every read decodes from the video's start
def _read_window(store: FrameStore, frames: tuple[int, ...]) -> np.ndarray:
    return store.read(frames)


def said_slots(sentence: str) -> tuple[str, ...] | None:
    """What a sentence of either form says: `(verb, way, verb, way)` or `(count, way)`; None for any other."""
    if pair := _PAIR.fullmatch(sentence):
        return tuple(word or NOWHERE for word in pair.groups())
    if street := _STREET.fullmatch(sentence):
        return tuple(word or NOWHERE for word in street.groups())
    return None
