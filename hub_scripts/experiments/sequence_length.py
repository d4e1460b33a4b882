"""How many frames pay? Accuracy, speed and memory by the length T of the sequence, for clips and for streams."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from .clip_training import (
    TrainingSettings,
    all_frames,
    classify,
    middle_frames,
    read_parts,
    spread_frames,
    train_classifier,
)
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant, hits_text
from .features import JHMDB, FrozenEncoder
from .frame_streams import ClipStream, FrameClassifier, piece_accuracy, pieces_of, stream_accuracy
from .model_costs import COSTS, costs_of, measure_costs
from .plots import new_figure, save_figure
from .sequence_length_report import (
    REFERENCE,
    STREAMS,
    TRUE,
    clip_table,
    clip_text,
    clips_in,
    cost_table,
    cost_text,
    draw_accuracy,
    draw_costs,
    draw_streams,
    learned_in,
    length_gaps,
    named,
    scope_text,
    stream_table,
    stream_text,
)
from .temporal_models import build_classifier

FORM = "propagation+beta"
HORIZONS = (8, 16, 32, 64, 128)
_FRAMES_A_STEP = 256  # of a stream's training, whatever T


class SequenceLength(Experiment):
    """See the module's text."""

    name = "sequence-length"
    question = (
        "How many frames pay? Propagation with both attentions on T = 8, 16 and 32 frames spread over a clip and on "
        "all of its frames; on pieces of 64 and 128 frames of joined clips with a label for every frame; each on a "
        "stream, too, with β looking back over 8 to 128 frames. And what T costs, as clips and as a stream. (Longer "
        "clips: `sequence-length-fights`; tracking: `sequence-length-tracking`.)"
    )
    claim = "it is made for real-time analysis of video; its abstract leaves open how many frames that takes."
    variants = {
        "8": Variant("8 frames spread over a clip", 0.6),
        REFERENCE: Variant("16 frames spread over a clip", 1.0),
        "32": Variant("32 frames spread over a clip", 1.8),
        TRUE: Variant("every frame of a clip", 2.0),
        "64": Variant("pieces of 64 frames of joined clips, a label for every frame", 1.5),
        "128": Variant("pieces of 128 frames of joined clips, a label for every frame", 1.5),
        COSTS: Variant("time and memory of kinetrack-nano at every T, as clip and as stream", 2.0),
    }
    seeds = 3
    needs_weights = True
    _labelled = JHMDB

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "encoder": "EfficientNet-Lite0, frozen, not kinetrack-nano's, which knows these labels",
            "input": "64×64" if quick else "224×224",
            "form": FORM,
            "hidden_size": 16 if quick else 64,
            **asdict(self._training(quick)),
            "epochs_of_streams": self._stream_training(quick, 64).epochs,
            "frames_a_step_of_streams": _FRAMES_A_STEP,
            "epoch_chosen_by": "lowest loss on dev",
        }

    @staticmethod
    def _training(quick: bool) -> TrainingSettings:
        return replace(TrainingSettings(), epochs=2) if quick else TrainingSettings()

    @staticmethod
    def _stream_training(quick: bool, length: int) -> TrainingSettings:
        size = max(_FRAMES_A_STEP // length, 1)
        return replace(TrainingSettings(), epochs=1 if quick else 6, batch_size=size)

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self._quick = inputs.quick
        self._size = 64 if inputs.quick else 224
        self._parts, about = read_parts(inputs, FrozenEncoder(inputs.weights, self._size), self._labelled)
        self._num_labels = self._labelled.labels(inputs.data)
        lengths = self._parts["val"].lengths
        return {**about, "val_frames": f"{min(lengths)} to {max(lengths)} a clip, {np.mean(lengths):.0f} on average"}

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        if variant == COSTS:
            return self._costs()
        torch.manual_seed(seed)
        hidden_size = self.protocol(self._quick)["hidden_size"]
        model = build_classifier(FORM, self._num_labels, self._parts["train"].channels, hidden_size)
        if variant in STREAMS:
            return self._learn_streams(model, int(variant), seed)
        choose = all_frames if variant == TRUE else spread_frames(int(variant))
        parts = self._parts
        chosen = train_classifier(model, parts["train"], parts["dev"], self._training(self._quick), choose, seed)
        views = {"spread": choose, "middle": all_frames if variant == TRUE else middle_frames(int(variant))}
        val = parts["val"]
        hits = {view: hits_text(classify(model, val, frames).argmax(1) == val.labels) for view, frames in views.items()}
        return {**chosen, "hits": hits, **self._stream(model, None if variant == TRUE else int(variant))}

    def _learn_streams(self, model, length: int, seed: int) -> dict:
        train, dev = ClipStream(self._parts["train"], length, 8, seed), ClipStream(self._parts["dev"], length)
        settings = self._stream_training(self._quick, length)
        chosen = train_classifier(FrameClassifier(model, length), train, dev, settings, pieces_of(length), seed)
        return {**chosen, **self._stream(model, length)}

    def _stream(self, model, length: int | None) -> dict:
        """Frame accuracy of every val clip within one stream of them, by horizon, and in pieces of T frames."""
        if self._labelled is not JHMDB:
            return {}
        stream = ClipStream(self._parts["val"], 1)
        pieces = {} if length is None else {"pieces": piece_accuracy(model, stream, length)}
        return {"stream": stream_accuracy(model, stream, HORIZONS), **pieces}

    def _costs(self) -> dict:
        size = (self._size, self._size)
        lengths = HORIZONS[:1] if self._quick else HORIZONS
        return {str(length): measure_costs(length, size, attention_window=length) for length in lengths}

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        return [table for table in (clip_table(results), stream_table(results), cost_table(results)) if table.rows]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        said = (clip_text(results), stream_text(results), cost_text(results), scope_text(results))
        return [text for text in said if text]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        names, costs = clips_in(results), costs_of(results)
        if not names:
            return Summary("accuracy was not measured", "nothing to compare")
        tops = ", ".join(f"{results.accuracy(name, 'hits', 'spread').mean:.1f} with {named(name)}" for name in names)
        said = f"{self._labelled.name} `val` top-1 on frozen features, %: {tops}"
        streamed = results.measures(names[0])[0].get("stream", {})
        if streamed:
            near, far = list(streamed)[0], list(streamed)[-1]
            right = [100 * results.values(names[-1], "stream", reach).mean() for reach in (near, far)]
            said += (
                f"; on joined clips {right[0]:.1f} % of frames with β over {near} of them, {right[1]:.1f} over {far}"
            )
        if costs:
            speeds = [entry["step"]["frames_per_second"] for entry in costs.values()]
            first, last = list(costs)[0], list(costs)[-1]
            said += (
                f"; {first} to {last} frames at once take {costs[first]['clip']['peak_mib']:.0f} to "
                f"{costs[last]['clip']['peak_mib']:.0f} MiB, a stream {costs[last]['step']['peak_mib']:.0f} MiB at "
                f"{min(speeds):.0f} to {max(speeds):.0f} frames/s a core, however far it looks back"
            )
        gaps = length_gaps(results)
        shown = [f"{named(name)} {gap.mean:+.1f} points" for name, gap in gaps.items() if gap.excludes_zero]
        verdict = (
            f"against {named(REFERENCE)}: {', '.join(shown)}"
            if shown
            else f"no difference from {named(REFERENCE)} was shown"
        )
        return Summary(said, verdict if gaps else "nothing to compare")

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        panels = [draw_accuracy] * bool(clips_in(results)) + [draw_streams] * any(
            "stream" in results.measures(name)[0] for name in learned_in(results)
        )
        panels += [draw_costs] * bool(costs_of(results))
        figure, axes = new_figure(3.7 * len(panels), 3.4, columns=len(panels))
        for draw, axis in zip(panels, axes[0], strict=True):
            draw(axis, results)
        save_figure(figure, folder / "sequence-length.png")
        return [Plot("sequence-length.png", "; ".join(_CAPTIONS[draw] for draw in panels) + ".")]


_CAPTIONS = {
    draw_accuracy: "Top-1 on clips by frames, or by what an answer costs (95 % intervals, dots are seeds)",
    draw_streams: "frame accuracy on one stream of joined clips by how far β looks back",
    draw_costs: "speed and memory by T",
}
