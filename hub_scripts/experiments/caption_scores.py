"""Answers without a decoder, and what is right about anybody's answers."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch

from ..captioning.video_tokens import PLACES, VideoTokens
from .caption_corpus import (
    CAPTION,
    DOES,
    GOES,
    HOW_MANY,
    MOST,
    SLOTS,
    Scene,
    compose,
    count_of,
    most_of,
    said_slots,
    verb_of,
    way_of,
)
from .experiment import hits_text

# Which question each part of a sentence answers, in the order of `said_slots`.
_PAIR_PARTS = (DOES.format("left"), GOES.format("left"), DOES.format("right"), GOES.format("right"))
_STREET_PARTS = (HOW_MANY,)
_SIDES = {"left": (0.0, 0.5), "right": (0.5, 1.0)}
_FIRST_X, _MOVED_X, _SHARE = (PLACES.index(name) for name in ("first x", "moved x", "share of frames"))

Answers = list[dict[str, str]]


def kinds_of(questions: dict) -> tuple[str, ...]:
    """Questions of a scene whose parts its sentence has, in the sentence's order."""
    return _STREET_PARTS if HOW_MANY in questions else _PAIR_PARTS


def majority_answers(train: Sequence[Scene], scenes: Sequence[Scene]) -> Answers:
    """The commonest answer to every question in training, none to what was never asked, and the sentence of these."""
    counts: dict[str, Counter] = {}
    for scene in train:
        for question, answer in scene.answers.items():
            counts.setdefault(question, Counter())[answer] += 1
    commonest = {question: counter.most_common(1)[0][0] for question, counter in counts.items()}
    found = []
    for scene in scenes:
        answers = {question: commonest.get(question, "") for question in scene.answers if question}
        found.append(answers | {CAPTION: compose(answers)})
    return found


@torch.inference_mode()
def rule_answers(model, scenes: Sequence[Scene], tokens: Sequence[VideoTokens], otherwise: Answers) -> Answers:
    """What the same tokens say by rule: the action head on a track's token, and where and how far tracks went.

    Args:
        model: with an action head, whose tokens these are.
        scenes: what is asked about.
        tokens: of each.
        otherwise: answers where there is no track to read.
    """
    found = []
    for scene, seen, fallback in zip(scenes, tokens, otherwise, strict=True):
        answers = dict(fallback)
        if HOW_MANY in scene.answers:
            ways = [way_of(shift) for shift in seen.places[seen.places[:, _SHARE] >= 0.5, _MOVED_X]]
            answers |= {HOW_MANY: count_of(len(ways)), MOST: most_of(ways)}
        for side, (low, high) in _SIDES.items() if HOW_MANY not in scene.answers else ():
            here = np.flatnonzero((seen.places[:, _FIRST_X] >= low) & (seen.places[:, _FIRST_X] < high))
            if len(here):  # the one seen longest and surest comes first
                track = torch.from_numpy(seen.tracks[here[:1]].astype(np.float32))
                logits = model.action_head(track)[0]
                answers[DOES.format(side)] = verb_of(model.config.id2label[int(logits.argmax())])
                answers[GOES.format(side)] = way_of(2 * seen.places[here[0], _MOVED_X])  # half the frame is a clip
        found.append(answers | {CAPTION: compose(answers)})
    return found


def score_answers(scenes: Sequence[Scene], answers: Answers) -> dict[str, dict[str, str]]:
    """What is right, as text that `Results.hits` reads, in the order of `unit_films`.

    Args:
        scenes: with the truth.
        answers: to all their questions.

    Returns:
        `answers` by slot, exact; `sentences`: the same slots where a description says them, and `sentence` where all of
        it is right.
    """
    asked: dict[str, list[bool]] = {}
    told: dict[str, list[bool]] = {}
    for scene, given in zip(scenes, answers, strict=True):
        for question, truth in scene.answers.items():
            slot = SLOTS[question]
            (told if slot == "sentence" else asked).setdefault(slot, []).append(given[question] == truth)
        parts, order = said_slots(given[CAPTION]), kinds_of(scene.answers)
        fits = parts is not None and (len(parts) == 4) == (len(order) == 4)
        for number, question in enumerate(order):
            right = fits and parts[number] == scene.answers[question]
            told.setdefault(SLOTS[question], []).append(right)
    return {
        "answers": {slot: hits_text(right) for slot, right in asked.items()},
        "sentences": {slot: hits_text(right) for slot, right in told.items()},
    }


def unit_films(scenes: Sequence[Scene]) -> dict[str, list[str]]:
    """By slot, which film each answer is about; a pair's sentence counts for the film on its left."""
    films: dict[str, list[str]] = {}
    for scene in scenes:
        for question in scene.answers:
            films.setdefault(SLOTS[question], []).append(scene.films[question])
    return films
