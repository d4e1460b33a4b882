"""Where do identity switches come from: looks, propagated features, occlusions, or (as the paper suspects) beta?"""

from pathlib import Path

import numpy as np

from ...processing.loading import load_model
from ...processing.session_kinetrack import tracker_settings
from ...processing.tracking_kinetrack import Detections
from ..detection_cache import SequenceDetections, track_detections
from ..evaluate import person_label
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant
from .identity_events import CAUSES, COVERED_FROM, IdentityHistory, read_people
from .plots import new_figure, save_figure
from .sequence_scores import STRETCH, describe_sequences, length_of, score_sequences, val_sequences
from .statistics import Interval, bootstrap_contrast, bootstrap_difference, bootstrap_mean, simultaneous_level
from .watching import watch_sequences

NEAR = 6  # frames on either side of a switch
FULL = "full"


class Identity(Experiment):
    """See the module's text."""

    name = "identity"
    question = (
        "Where do identity switches come from? The shipped model with and without embeddings in the association, with "
        "and without what it carries from frame to frame, through occlusions; and what β does around every switch."
    )
    claim = (
        "it suspects temporal attention behind identity switches, and reports tracking precision on MOT17, 2.8 % "
        "better than existing methods."
    )
    variants = {
        FULL: Variant("as shipped", 4.0),
        "no-embeddings": Variant("association by boxes and scores alone", 0.5),
        "no-memory": Variant("the model sees each frame as the first: no state, no differences", 4.0),
        "neither": Variant("neither embeddings nor memory", 0.5),
    }
    seeds = 1

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "tracker": "the shipped settings, tuned on dev with embeddings and memory",
            "covered_from": COVERED_FROM,
            "near_a_switch": f"within {NEAR} frames",
            "stretch": f"{STRETCH} frames",
            "trained_again": "no: parts of the shipped model are switched off",
        }

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self._sequences = val_sequences(inputs.data, inputs.quick)
        self._model, self._processor = load_model(inputs.model, "cpu", allow_untrained=inputs.quick, backend="torch")
        self._person = person_label(self._model.config)
        self._cache = inputs.cache
        return {"set": "mot/val", "model": inputs.model, **describe_sequences(self._sequences)}

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        memory = variant in (FULL, "no-embeddings")
        detected, attention = watch_sequences(self._model, self._processor, self._sequences, memory, self._cache)
        if variant in ("no-embeddings", "neither"):
            detected = [_without_looks(item) for item in detected]
        config = self._model.config
        settings = tracker_settings(config.detection_threshold, config.tracker_settings)
        rows = {item.sequence.folder.name: track_detections(item, settings, self._person) for item in detected}
        events = {}
        for item in self._sequences:
            span = item.part or (1, length_of(item))
            history = IdentityHistory(read_people(item.folder), rows[item.folder.name], span)
            events[item.folder.name] = {
                "switches": [switch.to_dict() for switch in history.switches()],
                "occlusions": history.occlusions(),
                "covered": [share >= COVERED_FROM for person in history.covered.values() for share in person.values()],
            }
            events[item.folder.name]["covered"] = float(np.mean(events[item.folder.name]["covered"]))
        measures = score_sequences(rows, self._sequences) | {"events": events}
        return measures | ({"beta": attention} if variant == FULL else {})

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        rows, survival = [], []
        for variant in results.variants():
            [measures] = results.measures(variant)
            for name, scores in measures["whole"].items():
                rows.append([variant, name, *(f"{scores[key]:.1f}" for key in ("HOTA", "IDF1", "MOTA"))])
                rows[-1].append(str(scores["IDSW"]))
            causes = [switch["cause"] for event in measures["events"].values() for switch in event["switches"]]
            kept = _survivals(measures)
            survival.append(
                [
                    variant,
                    str(len(causes)),
                    *(str(causes.count(cause)) for cause in CAUSES),
                    f"{kept.sum():.0f} of {kept.size}",
                ]
            )
        return [
            Table(
                "Scores by TrackEval on whole sequences. Nothing is random here, so there is one run.", _SCORES, rows
            ),
            Table(
                "Switches by what went before (the first that applies): the new identity was another person's in the "
                f"last second; {COVERED_FROM:.0%} of the box was covered by another's; the person was missed; none of "
                "these. And how many occlusions of three frames or more an identity outlived.",
                ["variant", "switches", *CAUSES, "occlusions outlived"],
                survival,
            ),
        ]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        if FULL not in results.variants():
            return ["The shipped model was not run, so nothing can be compared with it."]
        return [
            self._parts_text(results),
            self._causes_text(results),
            self._beta_text(results),
            "**Not shown.** Two sequences from two static cameras, one model and one training run: what a model "
            "trained without these parts would do is another question, and so is a tracker tuned without them, since "
            "this one's settings were chosen on dev with both. A cause is assigned by rule from boxes, which "
            "say what was near a switch, not what made it.",
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        [measures] = results.measures(FULL)
        causes = [switch["cause"] for event in measures["events"].values() for switch in event["switches"]]
        entropy, newest, marked, groups = _around_switches(measures)
        counts = ", ".join(f"{causes.count(cause)} {cause}" for cause in CAUSES)
        measured = f"{len(causes)} switches on `mot/val`: {counts}"
        if not marked.any() or marked.all():
            return Summary(measured, "nothing to compare β with")
        gap = bootstrap_contrast(entropy, marked, groups, simultaneous_level(2))
        differs = "differs by" if gap.excludes_zero else "is not shown to differ:"
        return Summary(
            f"{measured}; the relative entropy of β near them {differs} {gap.mean:+.3f} ({gap.low:+.3f} to "
            f"{gap.high:+.3f})",
            "β takes no part in the association here: not the cause"
            + (", at most a faint sign" if gap.excludes_zero else ", nor a sign"),
        )

    @staticmethod
    def _parts_text(results: Results) -> str:
        others = [name for name in results.variants() if name != FULL]
        level = simultaneous_level(2 * len(others))
        said = []
        for name in others:
            for key, unit in (("HOTA", "points"), ("IDSW", "switches a stretch")):
                values = [np.array([results.measures(v)[0]["stretches"][key]], np.float64) for v in (name, FULL)]
                gap = bootstrap_difference(*values, level=level, scale=1)
                verdict = "shown" if gap.excludes_zero else "not shown to differ"
                said.append(f"{name} changes {key} by {gap.text(unit)}, {verdict}")
        count = len(results.measures(FULL)[0]["stretches"]["HOTA"])
        whole = [
            f"{name} has IDF1 {scores['IDF1']:.1f} and HOTA {scores['HOTA']:.1f}"
            for name in results.variants()
            for scores in [results.measures(name)[0]["whole"]["COMBINED"]]
        ]
        return (
            f"**Parts.** Against the model as shipped, over {count} stretches of about {STRETCH} frames, with "
            f"intervals that hold together: {'; '.join(said)}. Stretches cannot see what is forgotten over longer "
            f"times: on the whole sequences together, {'; '.join(whole)}."
            if said
            else "**Parts.** Only the shipped model was run."
        )

    @staticmethod
    def _causes_text(results: Results) -> str:
        [measures] = results.measures(FULL)
        switches = [switch for event in measures["events"].values() for switch in event["switches"]]
        if not switches:
            return "**Causes.** There was no switch to explain."
        counts = {cause: sum(switch["cause"] == cause for switch in switches) for cause in CAUSES}
        kept = _survivals(measures)
        text = (
            f"**Causes.** Of {len(switches)} switches, "
            + ", ".join(f"{count} {cause}" for cause, count in counts.items())
            + f": {_usual(switches, counts)}. Of all boxes, "
            + ", ".join(f"{100 * event['covered']:.0f} % of {name}" for name, event in measures["events"].items())
            + f" are covered to {COVERED_FROM:.0%} by another's. "
        )
        if kept.size:
            share = bootstrap_mean(kept[None])
            text += (
                f"An identity outlived {kept.sum():.0f} of {kept.size} occlusions ({share.mean:.0f} %, 95 % interval "
                f"{share.low:.0f} to {share.high:.0f}). "
            )
        return text.strip()

    @staticmethod
    def _beta_text(results: Results) -> str:
        entropy, newest, marked, groups = _around_switches(results.measures(FULL)[0])
        if not marked.any() or marked.all():
            return "**β.** With no switch, or switches everywhere, β cannot be compared between the two."
        entropies, newests = (
            bootstrap_contrast(values, marked, groups, simultaneous_level(2)) for values in (entropy, newest)
        )
        shown = entropies.excludes_zero or newests.excludes_zero
        stretches = len(set(groups)), len(set(groups[marked]))
        return (
            f"**β.** Each sequence's mean taken out, the entropy of β relative to uniform is, within {NEAR} frames "
            f"of a switch, {entropy[marked].mean():.3f}, elsewhere {entropy[~marked].mean():.3f}: a difference of "
            f"{_small(entropies)}; the newest frame's share differs by {_small(newests)}. Drawn were "
            f"{stretches[0]} stretches, {stretches[1]} of them with a switch: few, so that such intervals come out too "
            "narrow. "
            + (
                "So β does look different around switches"
                + (f", and {'sharper' if entropies.mean < 0 else 'flatter'} there" if entropies.excludes_zero else "")
                + ", as far as these can tell"
                if shown
                else "The paper's suspicion, that β is different where identities switch, was not borne out"
            )
            + ". In this implementation β takes no part in detection or association, so it could be a sign of "
            "trouble but not its cause."
        )

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        variants = results.variants()
        figure, axes = new_figure(11, 3.4, columns=3, width_ratios=[1.2, 1, 1])
        left = np.zeros(len(variants))
        for cause, color in zip(CAUSES, ("tab:red", "tab:orange", "0.6", "0.85"), strict=True):
            counts = [
                sum(
                    s["cause"] == cause
                    for event in results.measures(v)[0]["events"].values()
                    for s in event["switches"]
                )
                for v in variants
            ]
            axes[0, 0].barh(variants, counts, left=left, color=color, label=cause)
            left += counts
        axes[0, 0].invert_yaxis()
        axes[0, 0].set(title="Switches by what went before", xlabel="identity switches, both sequences")
        axes[0, 0].legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.4, -0.18))
        for place, kept in enumerate(_survivals(results.measures(v)[0]) for v in variants):
            if not kept.size:
                continue
            span = bootstrap_mean(kept[None])
            axes[0, 1].plot([span.low, span.high], [place, place], color="tab:blue", alpha=0.5)
            axes[0, 1].plot(span.mean, place, "o", color="tab:blue")
        axes[0, 1].set_yticks(range(len(variants)), variants)
        axes[0, 1].set(title="Occlusions outlived, %", xlim=(0, 100), ylim=(len(variants) - 0.5, -0.5))
        if FULL in variants:
            entropy, _, marked, _ = _around_switches(results.measures(FULL)[0])
            bins = np.linspace(entropy.min(), entropy.max() + 1e-6, 25)
            for chosen, color, label in ((~marked, "0.6", "elsewhere"), (marked, "tab:red", "near a switch")):
                if chosen.any():
                    axes[0, 2].hist(entropy[chosen], bins, density=True, color=color, alpha=0.6, label=label)
            axes[0, 2].set(title="Entropy of β (1: uniform)", yticks=[])
            axes[0, 2].legend(frameon=False, fontsize=8)
        save_figure(figure, folder / "identity.png")
        return [Plot("identity.png", "Switches by cause, occlusions outlived (95 % intervals), and β around switches.")]


_SCORES = ["variant", "sequence", "HOTA", "IDF1", "MOTA", "switches"]


def _without_looks(item: SequenceDetections) -> SequenceDetections:
    frames = [Detections(found.xyxy, found.confidence, found.class_id) for found in item.frames]
    return SequenceDetections(item.sequence, item.times, frames)


def _usual(switches: list[dict], counts: dict[str, int]) -> str:
    """Which cause was most frequent, where it was shown to be more frequent than the next."""
    first, second = sorted(counts, key=counts.get, reverse=True)[:2]
    lead = [(switch["cause"] == first) - (switch["cause"] == second) for switch in switches]
    if bootstrap_mean(np.array([lead])).excludes_zero:
        return f"most often {first}"
    return "none was shown to be the most frequent, and where several apply the first in this order is counted"


def _survivals(measures: dict) -> np.ndarray:
    return np.array([kept for event in measures["events"].values() for *_, kept in event["occlusions"]], np.float64)


def _around_switches(measures: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per frame of all sequences: entropy of beta, its newest weight, whether a switch is near, and the stretch.

    Sequences differ in both, and in how many switches they have: each is brought to the mean of all, so that frames are
    compared with others of their own sequence.
    """
    columns = []
    overall = np.concatenate([np.array(series) for series in measures["beta"].values()]).mean(0)
    for name, series in measures["beta"].items():
        frames = np.arange(1, len(series) + 1)
        switches = [switch["frame"] for switch in measures["events"][name]["switches"]]
        near = np.zeros(len(series), bool)
        for frame in switches:
            near |= np.abs(frames - frame) <= NEAR
        stretch = [f"{name} {number // STRETCH}" for number in range(len(series))]
        values = np.array(series) - np.array(series).mean(0) + overall
        columns.append((*values.T, near, np.array(stretch)))
    return tuple(np.concatenate(parts) for parts in zip(*columns, strict=True))


def _small(gap: Interval) -> str:
    return f"{gap.mean:+.3f} ({100 * gap.level:.4g} % interval {gap.low:+.3f} to {gap.high:+.3f})"
