"""Can a small text decoder say what KineTrack's tokens of frames and tracks hold? The paper's future work, in small."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ...processing.loading import load_model
from ..captioning.caption_training import CaptionedVideo, mean_loss, train_captioner
from ..captioning.captioner import VideoCaptioner, VideoCaptionerConfig, answer, make_tokenizer
from ..captioning.video_tokens import TokenCache, TokenSession, VideoTokens
from ..train_config import CaptionSettings
from .caption_corpus import CAPTION, HOW_MANY, MOVED, RATE, WINDOW, Scene, read_scenes
from .caption_findings import BLIND, FULL, draw_accuracy, figures, findings, in_a_line, scene_table
from .caption_scores import majority_answers, rule_answers, score_answers, unit_films
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant

_SEES = {BLIND: "nothing", "frames": "frames", "tracks": "tracks", FULL: "both"}
_SHOWN = (4, 2)  # pairs and streets in the report, evenly spaced over val


class Captioning(Experiment):
    """See the module's text."""

    name = "captioning"
    question = (
        "Can a small text decoder that attends to KineTrack's tokens of frames and tracks describe a video and answer "
        "questions about it? On a small made-up corpus of real frames, against the commonest answers and a decoder "
        "that sees no video."
    )
    claim = "it names captioning and visual question answering as future work; it reports nothing on them."
    variants = {
        "majority": Variant("the commonest answer to each question in training", 0.01),
        "rules": Variant("no decoder: the action head on track tokens, and where and how far tracks went", 0.05),
        BLIND: Variant("the decoder, trained and asked without any token of the video", 1.0),
        "frames": Variant("the decoder with tokens of frames alone", 1.0),
        "tracks": Variant("the decoder with tokens of tracks alone", 1.0),
        FULL: Variant("the decoder with tokens of frames and tracks", 1.0),
    }
    seeds = 3

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "tokens": "of the given model in a session, with its own detections and tracks, frozen",
            "pairs": f"two JHMDB clips side by side at {RATE} frames a second",
            "streets": f"parts of MOT sequences, {WINDOW} frames",
            "moved": f"{MOVED:.0%} of the frame's width",
            "decoder": "GPT2LMHeadModel with cross-attention, random weights",
            **{name: value for name, value in asdict(self._settings(quick)).items() if name not in ("pairs", "sees")},
            "step_chosen_by": "lowest loss on dev",
        }

    @staticmethod
    def _settings(quick: bool) -> CaptionSettings:
        return CaptionSettings(steps=4, evaluate_every=2, hidden_size=16, layers=1) if quick else CaptionSettings()

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self._quick = inputs.quick
        self._model, processor = load_model(inputs.model, "cpu", allow_untrained=inputs.quick, backend="auto")
        session = TokenSession(self._model, processor, allow_untrained=inputs.quick)
        cache = TokenCache(session, inputs.cache)
        self._scenes: dict[str, list[Scene]] = {}
        self._videos: dict[str, list[CaptionedVideo]] = {}
        for part in ("train", "dev", "val"):
            scenes = self._scenes[part] = read_scenes(inputs.data, part, 2 if inputs.quick else None)
            bar = tqdm(scenes, desc=f"tokens of {part}", unit="video", disable=None, leave=False)
            self._videos[part] = [
                CaptionedVideo(cache.read(scene.name, scene.frames), tuple(scene.answers.items())) for scene in bar
            ]
        said = [text for video in self._videos["train"] for pair in video.said for text in pair]
        self._tokenizer = make_tokenizer(said)
        return {"set": "JHMDB split 1 and MOT sequences, by the committed lists", "model": inputs.model} | self._facts()

    def _facts(self) -> dict:
        """What the report says of the corpus."""
        sentences = {part: [scene.answers[CAPTION] for scene in scenes] for part, scenes in self._scenes.items()}
        streets = {part: sum(HOW_MANY in scene.answers for scene in scenes) for part, scenes in self._scenes.items()}
        train, val = self._scenes["train"], self._scenes["val"]
        right = score_answers(train, self._by_rule("train"))["answers"]["verb"]
        new = [sentence not in set(sentences["train"]) for sentence in sentences["val"]]
        films = unit_films(val)
        return {
            **{f"{part}_pairs": len(scenes) - streets[part] for part, scenes in self._scenes.items()},
            **{f"{part}_streets": count for part, count in streets.items()},
            "train_sentences": len(set(sentences["train"])),
            "words": len(self._tokenizer),
            "val_sentences_not_in_training": f"{100 * np.mean(new):.0f} %",
            "verbs_right_by_rule_in_training": f"{100 * right.count('1') / len(right):.0f} %",
            "val_films": len(set(films["verb"])),
            "val_stretches_of_streets": len(set(films.get("count", ()))),
            "films": films,
        }

    def _by_rule(self, part: str) -> list[dict[str, str]]:
        scenes = self._scenes[part]
        tokens = [video.tokens for video in self._videos[part]]
        return rule_answers(self._model, scenes, tokens, majority_answers(self._scenes["train"], scenes))

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        val = self._scenes["val"]
        if variant not in _SEES:
            answers = self._by_rule("val") if variant == "rules" else majority_answers(self._scenes["train"], val)
            return score_answers(val, answers)
        settings = self._settings(self._quick)
        torch.manual_seed(seed)
        seen = [video.tokens for video in self._videos["train"]]
        config = VideoCaptionerConfig.for_data(
            self._tokenizer,
            seen,
            settings.hidden_size,
            settings.layers,
            token_dropout=settings.token_dropout,
            sees=_SEES[variant],
        )
        model = VideoCaptioner(config)
        chosen = train_captioner(model, self._tokenizer, self._videos["train"], self._videos["dev"], settings, seed)
        answers = self._ask(model, val, [video.tokens for video in self._videos["val"]])
        measures = {
            **chosen,
            "val_loss": mean_loss(model, self._tokenizer, self._videos["val"]),
            "parameters": model.num_parameters(),
            **score_answers(val, answers),
        }
        return measures | ({"shown": self._shown(val, answers)} if (variant, seed) == (FULL, 0) else {})

    def _ask(self, model, scenes: Sequence[Scene], tokens: Sequence[VideoTokens]) -> list[dict[str, str]]:
        """The decoder's answers to all questions, its sentences included."""
        asked = [(number, question) for number, scene in enumerate(scenes) for question in scene.answers]
        numbers, questions = zip(*asked, strict=True)
        found: list[dict[str, str]] = [{} for _ in scenes]
        texts = answer(model, self._tokenizer, [tokens[number] for number in numbers], questions)
        for number, question, text in zip(numbers, questions, texts, strict=True):
            found[number][question] = text
        return found

    @staticmethod
    def _shown(scenes: Sequence[Scene], answers: Sequence[dict[str, str]]) -> list[dict]:
        """A few scenes for the report, evenly spaced and not picked: what is true and what was said."""
        shown = []
        for is_street, count in zip((False, True), _SHOWN, strict=True):
            numbers = [number for number, scene in enumerate(scenes) if (HOW_MANY in scene.answers) == is_street]
            places = (np.arange(min(count, len(numbers))) + 0.5) * len(numbers) / max(min(count, len(numbers)), 1)
            for number in (numbers[int(place)] for place in places):
                shown.append({"truth": scenes[number].answers, "said": answers[number]})
        return shown

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        return [*figures(results, self.variants), *scene_table(results)]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        return findings(results)

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        return in_a_line(results)

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        return draw_accuracy(results, folder)
