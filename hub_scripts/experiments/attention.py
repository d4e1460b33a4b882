"""What is the hierarchy of attention worth, does it collapse, and does alpha look at the people?"""

from pathlib import Path

import numpy as np

from .experiment import Plot, Results, Summary, Table, Variant, spread
from .joint_cells import JointCell, JointExperiment
from .joint_report import SCORES, action_gap, gap_between, judge, scope, score_table, seed_note, tracked_on
from .plots import draw_course, draw_differences, new_figure, save_figure
from .statistics import Interval, bootstrap_difference, simultaneous_level

REFERENCE, TAUGHT = "both", "taught"
UNIFORM, SINGLE = 0.99, 0.05  # relative entropies from which on, and up to which, attention counts as collapsed
_CLAIMED = 2.1
_STRIDE = 16


class Attention(JointExperiment):
    """See the module's text."""

    name = "attention"
    question = (
        "Neither level of attention, α alone, β alone, or both: accuracy of actions and of tracking, entropies of α "
        "and β through training, collapse, and whether α lies on the annotated people."
    )
    claim = f"a drop of {_CLAIMED} % without the hierarchical attention."
    variants = {
        "none": Variant("cells and frames averaged with equal weights", 4.0),
        "spatial": Variant("α learned, frames averaged", 4.0),
        "temporal": Variant("cells averaged, β learned", 4.0),
        REFERENCE: Variant("Eqs. 3 to 5 (the same training as `joint-fixed` of `multitask`)", 4.0),
        TAUGHT: Variant("both, and α and the actor's action learn from the actor's box, as in `kinetrack train`", 4.0),
    }
    cells = {
        "none": JointCell(spatial=False, temporal=False),
        "spatial": JointCell(temporal=False),
        "temporal": JointCell(spatial=False),
        REFERENCE: JointCell(),
        TAUGHT: JointCell(taught=True),
    }

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        measures = super().run_cell(variant, seed)
        return measures | ({"start": self.measure_start(seed)} if variant == REFERENCE else {})

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        names = results.variants()
        rows = []
        for name in names:
            begin = {level: np.array(_entropies(results, name, level))[:, 0] for level in _LEVELS}
            end = {level: np.array(_entropies(results, name, level))[:, -1] for level in _LEVELS}
            rows.append([name, *(f"{spread(begin[k], 3)} → {spread(end[k], 3)}" for k in _LEVELS)])
            rows[-1] += [spread(results.values(name, "actions", level), 3) for level in ("alpha", "beta")]
            rows[-1].append(_collapse(results, name))
        where = [
            [name, *(f"{100 * values.mean():.1f}" for values in _shares(results, name, task))]
            + [f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"]
            for name in names
            if self.cells[name].spatial
            for task in ("actions", "tracking")
            for gap in [_concentration(results, name, task, 0.95)]
        ]
        for row, task in zip(where, ["the actor", "everybody"] * len(where), strict=False):
            row[0] += f", {task}"
        return [
            score_table(results, names),
            Table(
                "Entropy relative to uniform (1: uniform, 0: a single entry), on training batches from the first to "
                f"the last tenth of the training, and on `val`. Near uniform: from {UNIFORM} on; on single entries: "
                f"up to {SINGLE}.",
                ["", *_LEVELS.values(), "α on `val` clips", "β on `val` clips", "collapsed, seeds"],
                rows,
            ),
            Table(
                "Share of α within boxes of annotated people, and the share of the frame that they cover, in per cent: "
                f"of `val` clips the actor, of {tracked_on(results)} everybody; the difference with its 95 % interval.",
                ["", "α inside", "area", "difference"],
                where,
            ),
        ]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        gaps = _gaps(results)
        if not gaps:
            return [f"`{REFERENCE}` cannot be compared with anything yet."]
        level = 100 * next(iter(gaps.values())).level
        said = "; ".join(
            f"{score} over {name} {gap.brief()} points, {judge(results, gap, REFERENCE, name, 'a gain', 'a loss')}"
            for (name, score), gap in gaps.items()
        )
        return [
            f"**What it is worth.** Both levels, by {level:.4g} % intervals that hold together: {said}.",
            *(text for text in (_claim_text(results), _entropy_text(results), _people_text(results)) if text),
            scope(results, gaps.values()),
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        gaps = {score: gap for (name, score), gap in _gaps(results).items() if name == "none"}
        if not gaps:
            return Summary("nothing comparable yet", "open")
        said = ", ".join(f"{score} {gap.brief()}" for score, gap in gaps.items() if score in ("top-1", "HOTA"))
        where = {name: _concentration(results, name, "actions", 0.95) for name in _looking(results)}
        looks = ", ".join(f"{100 * gap.mean:+.1f} points {_WAYS[name]}" for name, gap in where.items())
        entropy = results.values(REFERENCE, "actions", "alpha").mean()
        return Summary(
            f"both levels less none in short trainings, points: {said} (HOTA on {tracked_on(results)}); α ends with "
            f"{entropy:.3f} of the entropy of uniform weights; its share on actors less their area: {looks}",
            "; ".join(
                f"{score}: {judge(results, gap, REFERENCE, 'none', 'a gain', 'a loss')}"
                for score, gap in gaps.items()
                if score in ("top-1", "HOTA")
            )
            + "".join(f"; {_WAYS[name]} α {_direction(gap)}" for name, gap in where.items())
            + seed_note(results),
        )

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        names, gaps = results.variants(), _gaps(results)
        figure, axes = new_figure(11, 3.4, columns=4, width_ratios=[1.5, 1, 1, 1])
        labels, colors = [f"{score}, over {name}" for name, score in gaps], [_COLORS[name] for name, _ in gaps]
        draw_differences(axes[0, 0], labels, list(gaps.values()), colors)
        axes[0, 0].set(title="Both levels less the others", xlabel="points")
        for axis, (level, title) in zip(axes[0, 1:], _LEVELS.items(), strict=True):
            for name in names:
                draw_course(axis, np.array(_entropies(results, name, level)), _COLORS[name], name)
            axis.set(title=f"entropy of {title}", ylim=(_lowest(results) - 0.01, 1.01))
        handles, labels = axes[0, 1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=5, frameon=False)
        save_figure(figure, folder / "attention.png")
        plots = [Plot("attention.png", "What both levels add (intervals hold together), and entropies in training.")]
        shown = {
            name: next((m["pictures"] for m in results.measures(name) if "pictures" in m), None)
            for name in _looking(results)
        }
        if REFERENCE in shown and all(shown.values()):
            rows = {"before": shown[REFERENCE]["before"]}
            rows |= {f"after, {_WAYS[name]}": pictures["after"] for name, pictures in shown.items()}
            _draw_alpha(results.data["pictures"], rows, folder / "alpha.png")
            plots.append(
                Plot(
                    "alpha.png",
                    "α of the first seed before and after training, times the number of cells (1: uniform), on three "
                    f"clips of `val` and a frame of {results.data['pictures'][-1]['name']}; boxes: annotated people. "
                    "The frames are not shown, because not all of them may be passed on.",
                )
            )
        return plots


def _draw_alpha(pictures: list[dict], rows: dict[str, list], path: Path) -> None:
    """A row for every moment, a column for every frame, all in one scale."""
    figure, axes = new_figure(11, 1.9 * len(rows) + 0.3, columns=len(pictures), rows=len(rows))
    for line, (when, grids) in zip(axes, rows.items(), strict=True):
        for axis, about, grid in zip(line, pictures, grids, strict=True):
            alpha, (height, width) = np.array(grid), about["size"]
            extent = (0, _STRIDE * alpha.shape[1], _STRIDE * alpha.shape[0], 0)
            drawn = axis.imshow(alpha * alpha.size, cmap="inferno", extent=extent, vmin=0, vmax=3)
            for left, top, right, bottom in about["boxes"]:
                axis.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="cyan", lw=1)
            axis.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        line[0].set_ylabel(when)
    for axis, about in zip(axes[0], pictures, strict=True):
        axis.set_title(about["name"])
    figure.colorbar(drawn, ax=axes, shrink=0.6, label="times uniform", extend="max")
    save_figure(figure, path)


_CLEARLY = 0.1  # of all of alpha, that people must have beyond their area for it to be more than a little
_WAYS = {REFERENCE: "untaught", TAUGHT: "taught by boxes"}
_LEVELS = {"alpha on actions": "α on clips", "alpha on tracking": "α on sequences", "beta on actions": "β on clips"}
_COLORS = {"none": "0.6", "spatial": "tab:green", "temporal": "tab:orange", REFERENCE: "tab:blue", TAUGHT: "tab:red"}


def _entropies(results: Results, name: str, level: str) -> list[list[float]]:
    """`(S, pieces)`, from the training's first to its last tenth."""
    return [measures["training"]["entropy"][level] for measures in results.measures(name)]


def _lowest(results: Results) -> float:
    """Of all entropies in training."""
    return min(np.min(_entropies(results, name, level)) for name in results.variants() for level in _LEVELS)


def _gaps(results: Results) -> dict[tuple[str, str], Interval]:
    """By variant and score, what both levels have more; all intervals hold together."""
    names = results.variants()
    if REFERENCE not in names:
        return {}
    wanted = [(name, score) for name in names if name != REFERENCE for score in ("top-1", *SCORES)]
    level = simultaneous_level(len(wanted))
    return {(name, score): gap_between(results, REFERENCE, name, score, level) for name, score in wanted}


def _claim_text(results: Results) -> str:
    if "none" not in results.variants():
        return ""
    gap = action_gap(results, REFERENCE, "none", 0.95)
    own = results.accuracy(REFERENCE, "actions", "hits").mean
    relative = 100 * gap.mean / own if own else 0.0
    place = "within" if gap.low <= _CLAIMED <= gap.high else "outside"
    return (
        f"**The paper's {_CLAIMED} %.** Here top-1 drops without the hierarchy by {gap.text()}, which is "
        f"{relative:.1f} % of what both levels have; {_CLAIMED} points lie {place} that interval"
        + ("." if gap.excludes_zero else ", and so does zero." if place == "within" else ", zero within it.")
    )


_ALIKE = (
    " With α this near to uniform, the variants without boxes compute almost the same, so what lies between them may "
    "be no more than the chance of training; what attention is worth where it is sharp is left open."
)


def _looking(results: Results) -> list[str]:
    """Variants with both levels."""
    return [name for name in _WAYS if name in results.variants()]


def _collapse(results: Results, name: str) -> str:
    """By rule, of the levels that are learned, on `val`."""
    cell, said = Attention.cells[name], []
    for level, sign, learned in (("alpha", "α", cell.spatial), ("beta", "β", cell.temporal)):
        values = results.values(name, "actions", level)
        if learned and (values >= UNIFORM).any():
            said.append(f"{sign} near uniform in {(values >= UNIFORM).sum()} of {len(values)}")
        if learned and (values <= SINGLE).any():
            said.append(f"{sign} on single entries in {(values <= SINGLE).sum()} of {len(values)}")
    return ", ".join(said) or "no"


def _entropy_text(results: Results) -> str:
    alpha, beta = (np.array(_entropies(results, REFERENCE, level)) for level in ("alpha on actions", "beta on actions"))
    levels = {name: _collapse(results, name) for name in results.variants() if name != "none"}
    broken = "; ".join(f"{name}: {text}" for name, text in levels.items() if text != "no")
    return (
        f"**Collapse.** With both levels the entropy of α on clips goes from {alpha[:, 0].mean():.3f} in the first "
        f"tenth of the training to {alpha[:, -1].mean():.3f} in the last, that of β from {beta[:, 0].mean():.3f} to "
        f"{beta[:, -1].mean():.3f} (1 is uniform, from which training starts). "
        + (
            f"By the rule on `val`, attention that has collapsed or never left the start: {broken} seeds."
            if broken
            else "By the rule on `val`, nothing collapsed."
        )
        + (_ALIKE if (results.values(REFERENCE, "actions", "alpha") >= UNIFORM).all() else "")
    )


def _shares(results: Results, name: str, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Alpha inside boxes `(S, N)` and their area `(S, N)`, of the clips or stretches that have boxes."""
    inside, area = (
        np.array([measures[task][key] for measures in results.measures(name)], np.float64) for key in ("inside", "area")
    )
    known = np.isfinite(inside).all(0)
    return inside[:, known], area[:, known]


def _concentration(results: Results, name: str, task: str, level: float) -> Interval:
    """Alpha inside boxes less their area, paired."""
    inside, area = _shares(results, name, task)
    groups = None
    if task != "tracking":  # a clip belongs to a film
        known = [value is not None for value in results.measures(name)[0][task]["inside"]]
        groups = [film for film, kept in zip(results.data["films"], known, strict=True) if kept]
    return bootstrap_difference(inside, area, groups, level, scale=1)


def _direction(gap: Interval) -> str:
    """Where alpha lies, by rule."""
    if not gap.excludes_zero:
        return "not shown to prefer people"
    if gap.mean < 0:
        return "avoids people"
    return "prefers people" if gap.mean >= _CLEARLY else "prefers people, but by little"


def _people_text(results: Results) -> str:
    names = _looking(results)
    level, said = simultaneous_level(2 * len(names)), []
    for name in names:
        for task, where in (("actions", "the labelled actor"), ("tracking", "the people of a sequence")):
            gap = _concentration(results, name, task, level)
            inside, area = _shares(results, name, task)
            verb = ("more than" if gap.mean > 0 else "less than") if gap.excludes_zero else "not shown to be other than"
            said.append(
                f"{_WAYS[name]}, {100 * inside.mean():.1f} % of α lies on {where}, {verb} the "
                f"{100 * area.mean():.1f} % of the frame there ({100 * gap.mean:+.1f} points, {100 * gap.low:+.1f} to "
                f"{100 * gap.high:+.1f})"
            )
    start = _concentration(results, REFERENCE, "start", level)
    return (
        f"**Where α looks**, by {100 * level:.4g} % intervals: {'; '.join(said)}. Before training, what lies on the "
        f"actor differs from the area by {100 * start.mean:+.1f} points ({100 * start.low:+.1f} to "
        f"{100 * start.high:+.1f})."
    )
