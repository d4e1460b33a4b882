"""Sequence length and tracking: what following people loses when the shipped model sees a video in short clips."""

from pathlib import Path

import numpy as np

from ...processing.loading import load_model
from ...processing.session_kinetrack import tracker_settings
from ..detection_cache import track_detections
from ..evaluate import person_label
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant
from .plots import new_figure, save_figure
from .sequence_scores import KEYS, STRETCH, describe_sequences, score_sequences, val_sequences
from .statistics import Interval, bootstrap_difference, simultaneous_level
from .watching import watch_sequences

STREAM = "stream"
LENGTHS = ("8", "16", "32", "64", "128")
_COMPARED = ("HOTA", "IDF1")


class TrackingLength(Experiment):
    """See the module's text."""

    name = "sequence-length-tracking"
    question = (
        "How much of the past does tracking need? The shipped model sees the sequences in clips of T steps of its "
        "temporal part and forgets everything between them, or as one stream; the tracker goes on over all of them. "
        "β of Eq. 5 takes no part in boxes or identities, so its window cannot matter here."
    )
    claim = "it tracks in real time; its abstract leaves open how much of the past that takes."
    variants = {
        **{length: Variant(f"clips of {length} steps", 3.0) for length in LENGTHS},
        STREAM: Variant("as shipped: one stream (as in `identity`, whose cache it reads)", 3.0),
    }
    seeds = 1

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "tracker": "the shipped settings, tuned on dev over one stream",
            "stretch": f"{STRETCH} frames",
            "trained_again": "no: the shipped model as it is",
        }

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self._sequences = val_sequences(inputs.data, inputs.quick)
        self._model, self._processor = load_model(inputs.model, "cpu", allow_untrained=inputs.quick, backend="torch")
        self._cache = inputs.cache
        rate = f"{self._model.config.frame_rate:g} Hz at most"
        return {"set": "mot/val", "model": inputs.model, "steps": rate, **describe_sequences(self._sequences)}

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        restart = None if variant == STREAM else int(variant)
        detected, _ = watch_sequences(self._model, self._processor, self._sequences, True, self._cache, restart)
        config = self._model.config
        settings = tracker_settings(config.detection_threshold, config.tracker_settings)
        person = person_label(config)
        rows = {item.sequence.folder.name: track_detections(item, settings, person) for item in detected}
        return score_sequences(rows, self._sequences)

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        rows = []
        for variant in results.variants():
            for name, scores in results.measures(variant)[0]["whole"].items():
                rows.append([variant, name, *(f"{scores[key]:.1f}" for key in KEYS[:-1]), str(scores["IDSW"])])
        caption = "Scores by TrackEval on whole sequences. Nothing is random here, so there is one run."
        return [Table(caption, ["T", "sequence", *KEYS[:-1], "switches"], rows)]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        if STREAM not in results.variants():
            return ["The stream was not run, so nothing can be compared with it."]
        gaps = _gaps(results)
        said = [f"T = {length} changes {key} by {gap.judged('points')}" for (length, key), gap in gaps.items()]
        count = len(results.measures(STREAM)[0]["stretches"]["HOTA"])
        level = simultaneous_level(len(gaps))
        whole = [
            f"{name if name == STREAM else f'T = {name}'} has HOTA {scores['HOTA']:.1f}, IDF1 {scores['IDF1']:.1f} and "
            f"{scores['IDSW']} switches"
            for name in results.variants()
            for scores in [results.measures(name)[0]["whole"]["COMBINED"]]
        ]
        return [
            f"**Clips against one stream.** Over {count} stretches of about {STRETCH} frames, by {100 * level:.4g} % "
            f"intervals, which hold together for all {len(gaps)} comparisons: {'; '.join(said)}. On the whole "
            f"sequences together, {'; '.join(whole)}.",
            "**Not shown.** Two sequences from two static cameras, one model, one training run, on clips of 8 frames "
            "(`configs/nano.yaml`): what a model trained on longer ones would make of the past is another question. "
            "The tracker carries identities from clip to clip; without it, none would outlive a clip.",
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        lengths = [name for name in results.variants() if name != STREAM]
        scores = {name: results.measures(name)[0]["whole"]["COMBINED"] for name in results.variants()}
        said = ", ".join(f"{scores[name]['HOTA']:.1f} / {scores[name]['IDF1']:.1f} at T = {name}" for name in lengths)
        if STREAM not in scores:
            return Summary(f"HOTA / IDF1 on `mot/val`: {said}", "nothing to compare with")
        said = f"{said}, {scores[STREAM]['HOTA']:.1f} / {scores[STREAM]['IDF1']:.1f} as one stream"
        worse, better = (
            [f"{key} at T = {length}" for (length, key), gap in _gaps(results).items() if test(gap)]
            for test in (lambda gap: gap.high < 0, lambda gap: gap.low > 0)
        )
        verdict = [
            *([f"forgetting costs {', '.join(worse)}"] if worse else []),
            *([f"forgetting helps {', '.join(better)}"] if better else []),
        ]
        return Summary(f"HOTA / IDF1 on `mot/val`: {said}", "; ".join(verdict) or "no need for a longer past was shown")

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        names = [name for name in (*LENGTHS, STREAM) if name in results.variants()]
        sequences = list(results.measures(names[0])[0]["whole"])
        figure, axes = new_figure(9, 3.2, columns=3)
        for axis, key in zip(axes[0], (*_COMPARED, "IDSW"), strict=True):
            for sequence in sequences:
                values = [results.measures(name)[0]["whole"][sequence][key] for name in names]
                together = sequence == "COMBINED"
                label = "together" if together else sequence
                axis.plot(names, values, "o-", markersize=4, label=label, color="black" if together else None)
            axis.set(title="identity switches" if key == "IDSW" else f"{key}, %", xlabel="T, steps")
            axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
            axis.grid(axis="y", color="0.9")
        axes[0, 0].legend(frameon=False, fontsize=8, loc="lower right")
        save_figure(figure, folder / "tracking-length.png")
        return [Plot("tracking-length.png", "Scores on whole sequences by the length T of clips, and as one stream.")]


def _gaps(results: Results) -> dict[tuple[str, str], Interval]:
    """By length and score, what clips change against one stream, with intervals that hold together."""
    lengths = [name for name in LENGTHS if name in results.variants()]
    level = simultaneous_level(len(lengths) * len(_COMPARED))

    def stretches(name: str, key: str) -> np.ndarray:
        return results.values(name, "stretches", key)

    return {
        (length, key): bootstrap_difference(stretches(length, key), stretches(STREAM, key), level=level, scale=1)
        for length in lengths
        for key in _COMPARED
    }
