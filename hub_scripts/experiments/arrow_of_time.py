"""Can the temporal modules use time where nothing else helps? Forwards or backwards is all they are asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .clip_training import ClipSet, TrainingSettings, classify, spread_frames, train_classifier
from .experiment import Plot, Results, Summary, Table, Variant, hits_text, spread
from .plots import draw_intervals, new_figure, save_figure
from .statistics import Interval, bootstrap_mean, simultaneous_level
from .temporal_models import REFERENCE, build_classifier, count_parameters
from .temporal_module import FRAMES, TemporalModule


class BothDirections:
    """Every clip twice: item 2n is clip n as it is, with label 0, and item 2n + 1 is clip n backwards, with label 1.

    Args:
        clips: what is played.
    """

    def __init__(self, clips: ClipSet):
        self.clips = clips
        self.labels = torch.arange(2 * len(clips)) % 2
        self.films = [film for film in clips.films for _ in range(2)]
        self.lengths = [length for length in clips.lengths for _ in range(2)]

    targets = ClipSet.targets

    def __len__(self) -> int:
        return 2 * len(self.clips)

    def batch(self, chosen: list[tuple[int, np.ndarray]], with_middle: bool, flip: np.ndarray | None = None) -> dict:
        """See `ClipSet.batch`."""
        played = [(item // 2, frames[::-1].copy() if item % 2 else frames) for item, frames in chosen]
        return self.clips.batch(played, with_middle, flip)


class ArrowOfTime(TemporalModule):
    """See the module's text."""

    name = "arrow-of-time"
    question = (
        "Can the temporal modules use time where nothing else helps? The models of `temporal-module` are asked "
        "whether a clip runs forwards or backwards (as in arXiv 1803.09544); without time that is a guess, 50 %."
    )
    claim = "it builds on parallel sequence modelling; its abstract leaves open whether the order of frames is used."
    variants = {name: Variant(planned.about, 0.8) for name, planned in TemporalModule.variants.items()}

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return super().protocol(quick) | {"task": "forwards or backwards, every clip once each way in an epoch"}

    @staticmethod
    def _training(quick: bool) -> TrainingSettings:
        return replace(TrainingSettings(), epochs=2 if quick else 6)

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        torch.manual_seed(seed)
        parts = {name: BothDirections(clips) for name, clips in self._parts.items()}
        channels = self._parts["train"].channels
        model = build_classifier(variant, 2, channels, self.protocol(self._quick)["hidden_size"])
        choose = spread_frames(FRAMES)
        chosen = train_classifier(model, parts["train"], parts["dev"], self._training(self._quick), choose, seed)
        right = classify(model, parts["val"], choose).argmax(1) == parts["val"].labels
        return {**chosen, "parameters": count_parameters(model), "hits": hits_text(right)}

    @staticmethod
    def _share(results: Results, name: str, level: float = 0.95) -> Interval:
        """Per cent right, with films drawn."""
        films = [film for film in results.data["films"] for _ in range(2)]
        return bootstrap_mean(results.hits(name, "hits"), films, level)

    def _beyond_chance(self, results: Results) -> dict[str, bool]:
        level = simultaneous_level(len(results.variants()))
        return {name: self._share(results, name, level).low > 50 for name in results.variants()}

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        rows = []
        for name in results.variants():
            interval, seeds = self._share(results, name), 100 * results.hits(name, "hits").mean(1)
            parameters = f"{results.values(name, 'parameters')[0]:.0f}"
            row = [name, parameters, spread(results.values(name, "dev_top1")), spread(seeds)]
            rows.append([*row, f"{interval.low:.1f} to {interval.high:.1f}"])
        caption = "Per cent told right, mean ± standard deviation over seeds; intervals over films and seeds."
        return [Table(caption, ["", "parameters", "dev", "val", "95 % interval"], rows)]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        beyond, shares = self._beyond_chance(results), {name: self._share(results, name) for name in results.variants()}
        able = [f"{name} ({shares[name].mean:.1f} %)" for name, better in beyond.items() if better]
        unable = [f"{name} ({shares[name].mean:.1f} %)" for name, better in beyond.items() if not better]
        text = "**The direction of time.** "
        text += f"Better than a guess, with intervals that hold together, were {', '.join(able)}. " if able else ""
        text += f"Not shown to be better than a guess: {', '.join(unable)}." if unable else ""
        seeds = {len(results.measures(name)) for name in results.variants()}
        count = "{} to {} seeds a module were" if len(seeds) > 1 else "{} seeds a module were"
        count = "one seed a module was" if seeds == {1} else count.format(min(seeds), max(seeds))
        alone = ", so that intervals are over films alone," if min(seeds) == 1 else ""
        said = [text.strip()]
        if "mean" in beyond:
            blind = "as it must" if not beyond["mean"] else "which cannot be: something other than time gives it away"
            said.append(f"The control that sees each frame alone has {shares['mean'].mean:.1f} %, {blind}.")
        return [
            *said,
            *([] if able else [_NOBODY]),
            f"**Not shown.** The encoder was frozen, {count} run{alone} with one learning rate, that of "
            "`temporal-module`, and some clips, such as a steady walk on the spot, hardly have a direction: a module "
            "that fails here may do better with other features, more clips or another training.",
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        own, beyond = self._share(results, REFERENCE), self._beyond_chance(results)
        best = max(results.variants(), key=lambda name: self._share(results, name).mean)
        return Summary(
            f"forwards or backwards on JHMDB `val`, frozen features: causal propagation {own.mean:.1f} % "
            f"({own.low:.1f} to {own.high:.1f}), the best, {best}, {self._share(results, best).mean:.1f} %; a guess "
            "is 50 %",
            _verdict(beyond),
        )

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        names = results.variants()
        figure, axes = new_figure(7, 0.42 * len(names) + 1.3)
        seeds = [100 * results.hits(name, "hits").mean(1) for name in names]
        draw_intervals(axes[0, 0], names, seeds, [self._share(results, name) for name in names])
        axes[0, 0].axvline(50, color="tab:red", linewidth=1)
        axes[0, 0].set(xlabel="told right on val, % (red: a guess)", title="Forwards or backwards?")
        save_figure(figure, folder / "arrow.png")
        return [Plot("arrow.png", "Forwards or backwards, by temporal module: seeds and 95 % intervals.")]


_NOBODY = (
    "**So this says nothing for or against a module.** None learned the task, those that certainly mix frames in order "
    "included. A like training does teach the direction of time to whoever sees time where made-up features plainly "
    "move one way (held by a test); whether it fails here for want of clips, of motion in frozen features, or of a "
    "better training, was not found out."
)


def _verdict(beyond: dict[str, bool]) -> str:
    if beyond[REFERENCE]:
        return "it can use time where time is needed"
    if any(beyond.values()):
        return "not shown that it can use time, where others can"
    return "left open: no module learned it from these features"
