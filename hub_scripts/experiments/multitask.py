"""Does learning both tasks at once help either, harm either, or neither? And do their gradients agree?"""

from pathlib import Path

import numpy as np

from .experiment import Plot, Results, Summary, Table, Variant, spread
from .joint_cells import JointCell, JointExperiment
from .joint_model import SHARED, time_frames
from .joint_report import (
    ALONE,
    SCORES,
    few_seeds,
    gap_between,
    judge,
    scope,
    score_table,
    seed_note,
    tracked_on,
)
from .joint_training import TASKS
from .plots import draw_course, draw_differences, new_figure, save_figure
from .statistics import Interval, bootstrap_mean, simultaneous_level

JOINT = {"joint-fixed": "fixed", "joint-learned": "learned"}
_COLORS = {"joint-fixed": "tab:blue", "joint-learned": "tab:orange"}
_PAIRS = {"across": "between the tasks", "actions": "two steps of actions", "tracking": "two steps of tracking"}


class Multitask(JointExperiment):
    """See the module's text."""

    name = "multitask"
    question = (
        "Actions alone, tracking alone, and both jointly from the same weights and over the same batches, with fixed "
        "and with learned weights of the losses: what changes for each task, what is saved, and do the gradients of "
        "the two agree in the parts they share?"
    )
    claim = "one encoder serves both tasks; what either gains or loses by being learned together is not reported."
    variants = {
        "actions": Variant("actions alone", 2.5),
        "tracking": Variant("tracking alone", 1.5),
        "joint-fixed": Variant("both, weights of the configuration (the same training as `both` of `attention`)", 4.0),
        "joint-learned": Variant("both, weights by learned uncertainty", 4.0),
    }
    cells = {
        "actions": JointCell(("actions",)),
        "tracking": JointCell(("tracking",)),
        "joint-fixed": JointCell(),
        "joint-learned": JointCell(learned=True),
    }

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        measures = super().run_cell(variant, seed)
        if variant != "joint-fixed":
            return measures
        start = self.start(seed)
        models = {"+".join(tasks): start.build(tasks) for tasks in (("actions",), ("tracking",), TASKS)}
        size = tuple(self.protocol(self._quick)["sequence_size"])
        sizes = {name: sum(value.numel() for value in model.parameters()) for name, model in models.items()}
        return measures | {"parameters": sizes, "milliseconds": time_frames(models, size, 2 if self._quick else 20)}

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        names = results.variants()
        costs = [
            [model, f"{sizes[model] / 1e6:.2f}", spread(results.values("joint-fixed", "milliseconds", model))]
            for sizes in (results.measures("joint-fixed")[0]["parameters"] if "joint-fixed" in names else {},)
            for model in sizes
        ]
        joint = [name for name in names if name in JOINT]
        cosines = [
            [f"{name}, {part}"]
            + [spread(_cosines(results, name, pair, part).mean(1), 3) for pair in _PAIRS]
            + [spread(np.array(_of(results, name, "negative", part)).mean(1), 0)]
            for name in joint
            for part in SHARED
        ]
        return [
            score_table(results, names),
            Table(
                f"Cost of a model: parameters (millions), and processor time on one thread of a frame of "
                f"{_size(results)} through all of it, ± over seeds.",
                ["", "parameters", "ms a frame"],
                costs,
            ),
            Table(
                "Cosine of gradients in shared parts, mean over the training, ± over seeds: between the tasks; and, as "
                "a measure of what can be expected, between two successive steps of one task. Last: per cent of "
                "steps in which the tasks' cosine is below 0.",
                ["", *_PAIRS.values(), "below 0, %"],
                cosines,
            ),
        ]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        gaps = _gaps(results)
        if not gaps:
            return ["No joint training can be compared with one of a single task yet."]
        return [
            f"**Each task.** Joint training less single, by {100 * next(iter(gaps.values())).level:.4g} % intervals "
            f"that hold together: {'; '.join(_said(results, *key, gap) for key, gap in gaps.items())}. "
            f"{_verdict(results, gaps).capitalize()}.",
            *(text for text in (_weighing_text(results), _cost_text(results), _cosine_text(results)) if text),
            scope(results, [*gaps.values(), *_weighing(results).values()]),
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        gaps = _gaps(results)
        if not gaps:
            return Summary("nothing comparable yet", "open")
        said = [
            f"{'actions' if score == 'top-1' else 'tracking'} {score} {gap.brief()} with {JOINT[name]} weights"
            for (name, score), gap in gaps.items()
            if score in ("top-1", "HOTA")
        ]
        said += [
            f"{score} {gap.brief()} with learned less with fixed weights"
            for score, gap in _weighing(results).items()
            if score in ("top-1", "HOTA")
        ]
        saved = _savings(results, "milliseconds")
        cost = f"; one joint model takes {saved.mean():.0f} % less time a frame than two" if saved is not None else ""
        return Summary(
            f"short trainings, joint less single, points: {', '.join(said)} (HOTA on {tracked_on(results)}){cost}",
            _verdict(results, gaps),
        )

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        joint = [name for name in results.variants() if name in JOINT]
        gaps = _gaps(results)
        figure, axes = new_figure(11, 0.4 * max(len(gaps), 3) + 1.4)
        names = [f"{score}, {JOINT[name]} weights" for name, score in gaps]
        draw_differences(axes[0, 0], names, list(gaps.values()), [_COLORS[name] for name, _ in gaps])
        axes[0, 0].set(title="Joint training less single training", xlabel="points")
        save_figure(figure, folder / "tasks.png")
        figure, axes = new_figure(11, 3.2, columns=len(SHARED), sharey=True)
        for axis, part in zip(axes[0], SHARED, strict=True):
            for name in joint:
                label = f"tasks, {JOINT[name]} weights"
                draw_course(axis, _cosines(results, name, "across", part), _COLORS[name], label)
            if joint:
                for pair, color in (("actions", "0.5"), ("tracking", "0.75")):
                    draw_course(axis, _cosines(results, joint[0], pair, part), color, _PAIRS[pair], "--")
            axis.axhline(0, color="0.6", linewidth=1)
            axis.set_title(part)
        axes[0, 0].set_ylabel("cosine of gradients")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        save_figure(figure, folder / "gradients.png")
        return [
            Plot("tasks.png", "What joint training changes for each task; intervals hold together."),
            Plot("gradients.png", "Do the tasks' gradients agree? Means over tenths of the training; bands: seeds."),
        ]


def _of(results: Results, name: str, *path: str) -> list:
    """Series of every seed from what was watched in training."""
    found = [measures["training"] for measures in results.measures(name)]
    for key in path:
        found = [part[key] for part in found]
    return found


def _cosines(results: Results, name: str, pair: str, part: str) -> np.ndarray:
    """`(S, pieces)`."""
    return np.array(_of(results, name, "cosine", pair, part))


def _gaps(results: Results) -> dict[tuple[str, str], Interval]:
    """By joint variant and score, the difference from the single task, all intervals holding together."""
    names = results.variants()
    wanted = [
        (name, score)
        for name in JOINT
        if name in names
        for score in ("top-1", *SCORES)
        if ALONE[_task_of(score)] in names
    ]
    level = simultaneous_level(len(wanted) + len(_weighed(results)))
    return {(name, score): gap_between(results, name, ALONE[_task_of(score)], score, level) for name, score in wanted}


def _weighed(results: Results) -> tuple[str, ...]:
    """Scores by which learned weights can be compared with fixed ones."""
    return ("top-1", *SCORES) if set(JOINT) <= set(results.variants()) else ()


def _weighing(results: Results) -> dict[str, Interval]:
    """By score, learned weights less fixed ones, with intervals that hold together with those of `_gaps`."""
    alone = [name for name in ALONE.values() if name in results.variants()]
    scores = len(JOINT) * sum(1 if name == "actions" else len(SCORES) for name in alone)
    level = simultaneous_level(scores + len(_weighed(results)))
    return {score: gap_between(results, *reversed(JOINT), score, level) for score in _weighed(results)}


def _weighing_text(results: Results) -> str:
    gaps = _weighing(results)
    if not gaps:
        return ""
    names = tuple(reversed(JOINT))
    said = [
        f"{key} {gap.brief()} points, {judge(results, gap, *names, 'better', 'worse')}" for key, gap in gaps.items()
    ]
    ends = {name: _of(results, name, "weights") for name in names}
    terms = [
        f"{term} {learned:.2f} ({fixed:g})"
        for term in ends[names[0]][0]
        for learned, fixed in [[np.mean([end[term] for end in ends[name]]) for name in names]]
    ]
    return (
        "**Weights of the losses.** Learned less fixed, from the same starts and over the same batches, by intervals "
        f"that hold together with those above: {'; '.join(said)}. Learning ends with these weights (fixed ones in "
        f"brackets): {', '.join(terms)}."
    )


def _task_of(score: str) -> str:
    return "actions" if score == "top-1" else "tracking"


def _said(results: Results, name: str, score: str, gap: Interval) -> str:
    judged = judge(results, gap, name, ALONE[_task_of(score)], "better", "worse")
    return f"{score} of {_task_of(score)} with {JOINT[name]} weights {gap.brief()} points, {judged}"


def _verdict(results: Results, gaps: dict[tuple[str, str], Interval]) -> str:
    """By rule: what the intervals that exclude zero say, where there are enough trainings to say it of."""
    signs = {
        np.sign(gap.mean)
        for (name, score), gap in gaps.items()
        if gap.excludes_zero and not few_seeds(results, name, ALONE[_task_of(score)])
    }
    if not signs:
        return "neither positive transfer nor interference was shown" + seed_note(results)
    if signs == {1.0}:
        return "positive transfer"
    return "interference" if signs == {-1.0} else "positive transfer in one measure, interference in another"


def _savings(results: Results, key: str) -> np.ndarray | None:
    """Per cent that one joint model spares against one model a task, of every seed."""
    if "joint-fixed" not in results.variants():
        return None
    actions, tracking, both = (results.values("joint-fixed", key, name) for name in (*ALONE.values(), "+".join(TASKS)))
    return 100 * (1 - both / (actions + tracking))


def _cost_text(results: Results) -> str:
    time, size = _savings(results, "milliseconds"), _savings(results, "parameters")
    if time is None:
        return ""
    return (
        f"**Cost.** One joint model has {size[0]:.0f} % fewer parameters than two single ones together, and takes "
        f"{spread(time, 0)} % less processor time a frame: of these models of hidden size "
        f"{results.protocol['hidden_size']}, one frame alone. What the whole of kinetrack-nano saves in a stream is in "
        "the table of speed in the main README."
    )


def _cosine_text(results: Results) -> str:
    joint = [name for name in results.variants() if name in JOINT]
    if not joint:
        return ""
    level, said, low = simultaneous_level(len(joint) * len(SHARED)), [], []
    for name in joint:
        for part in SHARED:
            series = _cosines(results, name, "across", part)
            gap = bootstrap_mean(series, level=level, scale=1)
            shown = ("agree" if gap.mean > 0 else "conflict") if gap.excludes_zero else "not shown to be other than 0"
            shown += " in these trainings" if gap.excludes_zero and few_seeds(results, name) else ""
            said.append(f"{part} with {JOINT[name]} weights {gap.brief(3)}, {shown}")
            low += [abs(gap.mean) < abs(_cosines(results, name, pair, part).mean()) for pair in ("actions", "tracking")]
    same = [_cosines(results, joint[0], pair, part).mean() for pair in ("actions", "tracking") for part in SHARED]
    text = (
        f"**Gradients.** Mean cosine between the tasks' gradients, by {100 * level:.4g} % intervals over tenths of the "
        f"training and seeds: {'; '.join(said)}. Two successive steps of one task have {min(same):.3f} to "
        f"{max(same):.3f}"
    )
    return text + (
        ": the tasks' gradients are closer to orthogonal than those of either task's own batches."
        if all(low)
        else ": the tasks' gradients are as far from orthogonal as those of some task's own batches."
    )


def _size(results: Results) -> str:
    return "×".join(map(str, results.protocol["sequence_size"]))
