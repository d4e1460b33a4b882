"""How well does each encoder whose weights can be had learn to track? The other half of `backbone`."""

from pathlib import Path

from .backbone import REFERENCE, WEIGHTS, weights_of_all
from .experiment import Inputs, Plot, Results, Summary, Table, Variant
from .features import FrozenEncoder
from .joint_cells import JointCell, JointExperiment
from .joint_model import MAPS, Start
from .joint_report import SCORES, judge, score_gap, score_table, tracked_on
from .plots import draw_differences, new_figure, save_figure
from .statistics import Interval, simultaneous_level


class BackboneTracking(JointExperiment):
    """See the module's text."""

    name = "backbone-tracking"
    question = (
        "Trained to track in the same way, from ImageNet weights and over the same windows: which of the encoders "
        "whose weights can be had offline tracks best?"
    )
    claim = "its encoder is a ResNet-50; no other is compared."
    variants = {name: Variant("its last two stages and the tracking head learn", 4.0) for name in WEIGHTS}
    cells = dict.fromkeys(WEIGHTS, JointCell(("tracking",)))
    keeps_pictures = False

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return super().protocol(quick) | {
            "encoder": "from ImageNet: stem and stages 1 to 5 frozen, stages 6 and 7 (stride 32) trained",
        }

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`.

        Raises:
            FileNotFoundError: the weights of Lite1 or Lite2 do not lie beside those of Lite0.
        """
        self.begin(inputs)
        self._files = weights_of_all(inputs)
        self._turn_to(REFERENCE)
        return {"set": "MOT sequences, by the committed lists", **self.describe_sequences()}

    def _turn_to(self, network: str) -> None:
        """From now on the encoder is this one."""
        self._network = network
        encoder = FrozenEncoder(self._files[network], self._settings.action_size, network, MAPS)
        self.read_sequences(encoder)
        self._description = {"encoder": encoder.key, **self.describe_sequences()}

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        if variant != self._network:
            self._turn_to(variant)
        return super().run_cell(variant, seed) | {"weights": self._description["encoder"]}

    def start(self, seed: int) -> Start:
        """See `JointExperiment.start`."""
        file = self._files[self._network]
        return Start(seed, file and str(file), self._labels, self._settings.hidden_size, self._network)

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        return [score_table(results, results.variants())]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        gaps, protocol = _gaps(results), results.protocol
        if not gaps:
            return ["No encoder can be compared with EfficientNet-Lite0 yet."]
        said = [
            f"{name}: {score} {gap.brief()} points, {judge(results, gap, name, REFERENCE, 'better', 'worse')}"
            for (name, score), gap in gaps.items()
        ]
        level = 100 * next(iter(gaps.values())).level
        whole = [
            f"{name} {results.values(name, 'tracking', 'whole', 'COMBINED', 'HOTA').mean():.1f}"
            for name in results.variants()
        ]
        return [
            f"**Tracking.** Less that of {REFERENCE}, over stretches, by {level:.4g} % intervals that hold together: "
            f"{'; '.join(said)}. HOTA of the whole, mean over seeds: {', '.join(whole)}.",
            f"**Not shown.** These are short trainings, {protocol['steps']} steps of {protocol['windows']} windows, "
            "with all but the last two stages of the encoder frozen. ResNets, MobileNetV3 and ConvNeXt-V2 are left "
            f"out: no weights of theirs are to be had. Tracking was measured on {tracked_on(results)} alone, in "
            f"{len(results.data['stretches'])} stretches that follow one another, so intervals are rough and say "
            "nothing of other scenes. What each encoder costs is in `backbone`.",
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        gaps = _gaps(results)
        if not gaps:
            return Summary("nothing comparable yet", "open")
        said = [f"{name} {gap.brief()}" for (name, score), gap in gaps.items() if score == "HOTA"]
        shown = [
            f"{name}'s {score} {judge(results, gap, name, REFERENCE, 'better', 'worse')}"
            for (name, score), gap in gaps.items()
            if gap.excludes_zero
        ]
        measured = (
            f"short trainings, points of HOTA above {REFERENCE} over stretches: {', '.join(said)} "
            f"(on {tracked_on(results)})"
        )
        return Summary(measured, ", ".join(shown) or "no difference from Lite0 was shown")

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        gaps = _gaps(results)
        figure, axes = new_figure(9, 0.4 * max(len(gaps), 3) + 1.4)
        names = [f"{score}, {name}" for name, score in gaps]
        draw_differences(axes[0, 0], names, list(gaps.values()), ["tab:blue"] * len(names))
        axes[0, 0].set(title=f"Less {REFERENCE}", xlabel="points")
        save_figure(figure, folder / "tracking.png")
        return [Plot("tracking.png", "Tracking by encoder against EfficientNet-Lite0; intervals hold together.")]


def _gaps(results: Results) -> dict[tuple[str, str], Interval]:
    """By encoder and score, points above the reference, all intervals holding together."""
    names = results.variants()
    if REFERENCE not in names:
        return {}
    wanted = [(name, score) for name in names if name != REFERENCE for score in SCORES]
    level = simultaneous_level(len(wanted))
    return {(name, score): score_gap(results, name, REFERENCE, score, level) for name, score in wanted}
