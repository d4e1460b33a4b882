"""Can the temporal modules use time where nothing else helps? Forwards or backwards is all they are asked."""

from dataclasses import asdict, replace
from pathlib import Path

import torch

from .experiment import Plot, Results, Summary, Table, Variant, spread
from .played_both_ways import (
    GAP,
    GRID,
    PairSettings,
    Plays,
    judge_margins,
    look_at_frames,
    score_margins,
    train_both_ways,
)
from .plots import draw_intervals, new_figure, save_figure
from .statistics import Interval, bootstrap_difference, bootstrap_mean, simultaneous_level
from .temporal_models import REFERENCE, build_classifier, count_parameters
from .temporal_module import FRAMES, TemporalModule

TRIM = 4
LOOK, BLIND = "look", "mean"
VIEWS = {"whole": "whole clips", "inner": f"without the first and the last {TRIM} frames"}
_COLORS = {"whole": "tab:blue", "inner": "tab:orange"}


class ArrowOfTime(TemporalModule):
    """See the module's text."""

    name = "arrow-of-time"
    question = (
        "Can the temporal modules use time where nothing else helps? The models of `temporal-module` see each clip "
        "forwards and backwards and are asked which is which (as in arXiv 1803.09544); without time that is a guess, "
        "50 %. And how much of the answer does a single frame give away?"
    )
    claim = "it builds on parallel sequence modelling; its abstract leaves open whether the order of frames is used."
    variants = {
        **{name: Variant(planned.about, 0.5) for name, planned in TemporalModule.variants.items()},
        LOOK: Variant("no module: ridge regression on two single frames, the earlier less the later", 0.2, 1),
    }

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        frozen = super().protocol(quick)
        return {key: frozen[key] for key in ("encoder", "input", "frames")} | {
            "task": "every clip forwards and backwards in one batch; loss of the difference between their scores",
            "grid": f"{GRID}×{GRID}, every channel divided by its standard deviation within clips",
            "frames_left_out_at_both_ends": 1 if quick else TRIM,
            "hidden_size": 16 if quick else 64,
            "blocks": 2,
            **asdict(self._settings(quick)),
            "epoch_chosen_by": "lowest loss on dev",
        }

    @staticmethod
    def _settings(quick: bool) -> PairSettings:
        return replace(PairSettings(), epochs=2) if quick else PairSettings()

    def prepare(self, inputs) -> dict:
        """See `Experiment.prepare`."""
        about = super().prepare(inputs)
        self._plays = {}
        for view, trim in (("whole", 0), ("inner", self.protocol(self._quick)["frames_left_out_at_both_ends"])):
            train = Plays(self._parts["train"], FRAMES, trim)
            others = {part: Plays(self._parts[part], FRAMES, trim, train.scales) for part in ("dev", "val")}
            self._plays[view] = {"train": train} | others
        return about

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        if variant == LOOK:
            return self._look()
        found, settings = {}, self._settings(self._quick)
        channels, size = self._parts["train"].channels, self.protocol(self._quick)["hidden_size"]
        for view, plays in self._plays.items():
            torch.manual_seed(seed)
            model = build_classifier(variant, 2, channels, size, settings.dropout)
            found[view] = train_both_ways(model, plays["train"], plays["dev"], settings, seed)
            found[view]["hits"] = judge_margins(score_margins(model, plays["val"]))
        return found | {"parameters": count_parameters(model)}

    def _look(self) -> dict:
        """How surely two single frames tell which is earlier: a clip's first and last, and neighbours."""
        frames = {"start": ("whole", 0, GAP), "end": ("whole", -1 - GAP, -1)} | {view: (view, 0, -1) for view in VIEWS}
        return {
            name: {
                part: judge_margins(look_at_frames(self._plays[view]["train"], self._plays[view][of], *pair))
                for part, of in (("dev_hits", "dev"), ("hits", "val"))
            }
            for name, (view, *pair) in frames.items()
        }

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        rows = []
        for name in results.variants():
            row = [name, "–" if name == LOOK else f"{results.values(name, 'parameters')[0]:.0f}"]
            for view in VIEWS:
                interval = _share(results, name, view)
                marks = results.hits(name, view, "dev_hits") if name == LOOK else None
                dev = results.values(name, view, "dev_top1") if marks is None else 100 * marks.mean(1)
                row += [spread(dev), spread(100 * results.hits(name, view, "hits").mean(1))]
                row += [f"{interval.low:.1f} to {interval.high:.1f}"]
            rows.append(row)
        return [
            Table(
                f"Per cent told right, on whole clips and without the first and the last {TRIM} frames: mean ± "
                f"standard deviation over seeds; intervals over films and seeds. `{LOOK}` compares the first frame "
                "that is shown with the last.",
                ["", "parameters", "dev", "val", "95 % interval", "dev, inner", "val, inner", "95 % interval"],
                rows,
            )
        ]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        said = [_tell_views(results)]
        if BLIND in results.variants():
            marks = {results.hits(BLIND, view, "hits").mean() for view in VIEWS}
            said.append(
                "The control that sees each frame alone scores both ways of every clip alike, as it must."
                if marks == {0.5}
                else "The control that sees each frame alone is not at 50 %, which cannot be: the protocol is broken."
            )
        seeds = sorted({len(results.measures(name)) for name in results.variants() if name != LOOK})
        return [
            *said,
            *(text for text in (_compare(results), _tell_look(results)) if text),
            "**Not shown.** The encoder was frozen, and clips of a second or so such as a steady walk hardly have a "
            f"direction. {results.data['val_clips']} clips of {results.data['val_films']} films and "
            f"{' to '.join(map(str, seeds))} seeds a module; one protocol served all modules, and a module that is "
            "behind here may do better with another. An earlier protocol, in which single plays were to be classified "
            "with half of the classifier's inputs dropped, taught nothing to any module (50 % on `val`, one seed); "
            "this one was found in some twenty short runs on `dev`: of one GRU each, single plays without that dropout "
            "were learned as well, and pairs with it were not.",
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        if REFERENCE not in results.variants():
            return Summary("causal propagation was not run yet", "open")
        own = {view: _share(results, REFERENCE, view) for view in VIEWS}
        rivals = [name for name in results.variants() if name not in (REFERENCE, LOOK, BLIND)]
        means = [_share(results, name, "whole").mean for name in rivals]
        others = f", the {len(rivals)} others that see time {min(means):.0f} to {max(means):.0f} %" if rivals else ""
        look = ""
        if LOOK in results.variants():
            look = f"; a linear look at the first and the last frame alone {_share(results, LOOK, 'whole').mean:.0f} %"
        return Summary(
            f"forwards or backwards on JHMDB `val`, frozen features, a guess is 50 %: causal propagation "
            f"{_brief(own['whole'])}{others}{look}; without the first and the last {TRIM} frames propagation "
            f"{_brief(own['inner'])}",
            _verdict(results),
        )

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        names = results.variants()
        figure, axes = new_figure(11, 0.42 * len(names) + 1.3, columns=2, sharex=True)
        for axis, (view, title) in zip(axes[0], VIEWS.items(), strict=True):
            seeds = [100 * results.hits(name, view, "hits").mean(1) for name in names]
            intervals = [_share(results, name, view) for name in names]
            draw_intervals(axis, names, seeds, intervals, _COLORS[view])
            axis.axvline(50, color="tab:red", linewidth=1)
            axis.set(xlabel="told right on val, % (red: a guess)", title=title)
        save_figure(figure, folder / "arrow.png")
        return [Plot("arrow.png", "Forwards or backwards, by temporal module: seeds and 95 % intervals.")]


def _films(results: Results) -> list:
    """Of both marks of every clip."""
    return [film for film in results.data["films"] for _ in range(2)]


def _share(results: Results, name: str, view: str, level: float = 0.95) -> Interval:
    """Per cent told right, with films and seeds drawn."""
    return bootstrap_mean(results.hits(name, view, "hits"), _films(results), level)


def _brief(share: Interval) -> str:
    return f"{share.mean:.0f} % ({share.low:.0f} to {share.high:.0f})"


def _modules(results: Results) -> list[str]:
    """Variants that could see time."""
    return [name for name in results.variants() if name not in (LOOK, BLIND)]


def _beyond_chance(results: Results, view: str) -> dict[str, bool]:
    """Which modules are better than a guess, by intervals that hold together over both views."""
    level = simultaneous_level(len(VIEWS) * len(_modules(results)))
    return {name: _share(results, name, view, level).low > 50 for name in _modules(results)}


def _tell_views(results: Results) -> str:
    parts = []
    for view, where in VIEWS.items():
        beyond = _beyond_chance(results, view)
        able, unable = (
            [f"{name} {_share(results, name, view).mean:.1f} %" for name, better in beyond.items() if better == wanted]
            for wanted in (True, False)
        )
        text = f"{where.capitalize()}: "
        text += f"better than a guess, with intervals that hold together, {', '.join(able)}" if able else ""
        text += "; " if able and unable else ""
        text += f"not shown to be better than a guess {', '.join(unable)}" if unable else ""
        parts.append(text + ".")
    return "**The direction of time.** " + " ".join(parts)


def _compare(results: Results) -> str:
    """Propagation against the other modules, on whole clips."""
    rivals = [name for name in _modules(results) if name != REFERENCE]
    if REFERENCE not in results.variants() or not rivals:
        return ""
    level, films = simultaneous_level(len(rivals)), _films(results)
    own = results.hits(REFERENCE, "whole", "hits")
    gaps = {name: bootstrap_difference(own, results.hits(name, "whole", "hits"), films, level) for name in rivals}
    said = "; ".join(f"{name} {gap.judged()}" for name, gap in gaps.items())
    return (
        f"**Causal propagation less the others**, on whole clips, in points, by {100 * level:.4g} % intervals that "
        f"hold together: {said}."
    )


def _tell_look(results: Results) -> str:
    """How much of it single frames give away."""
    if LOOK not in results.variants():
        return ""
    shares = {name: _share(results, LOOK, name) for name in ("start", "end", *VIEWS)}
    text = (
        f"**What single frames give away.** Linear regression on two single frames, {GAP} frames apart, tells the "
        f"earlier from the later in {_brief(shares['start'])} at the beginning of clips and in "
        f"{_brief(shares['end'])} at their end, and a clip's first from its last in {_brief(shares['whole'])}, in "
        f"{_brief(shares['inner'])} without {TRIM} frames at both ends. "
    )
    if shares["start"].low > 50:
        text += (
            f"People hardly do anything in {GAP} frames that would show so well in a still: much of this is likely a "
            "mark that video compression leaves at the beginning of a file. So the task shows whether a module can "
            "use the order of frames, not whether it understands motion"
        )
        beyond = _beyond_chance(results, "inner")
        text += "." if any(beyond.values()) else ", which without the ends of the clips was shown for none."
    return text


def _verdict(results: Results) -> str:
    whole, inner = (_beyond_chance(results, view) for view in VIEWS)
    if not whole[REFERENCE]:
        return "not shown that it can use time" + (
            ", where others can" if any(whole.values()) else ", nor that others can"
        )
    marked = LOOK in results.variants() and _share(results, LOOK, "start").low > 50
    cue = ", here likely a mark of compression" if marked else ""
    rest = "and also without the clips' ends" if inner[REFERENCE] else "not shown without the clips' ends"
    return f"it can use the order of frames{cue}; {rest}"
