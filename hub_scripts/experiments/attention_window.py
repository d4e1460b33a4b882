"""How far beta of Eq. 5 should look back in the shipped model: asked of `dev`, which defaults may be chosen on."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from ...processing.loading import load_model
from ..data.sources import ACTION_SET, FIGHT_SET, action_sources, film_names
from ..evaluation_actions import read_actor
from ..evaluation_items import LabelledClip
from ..evaluation_runs import RegionSession, Stopwatch, classify_people
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant, hits_text, spread
from .features import neighbour_names
from .frame_streams import attend_at_every_frame
from .long_streams import EncodedFrames, attend, play, read_spans, shuffled_passes, without_poses
from .plots import draw_intervals, new_figure, save_figure
from .statistics import Interval, bootstrap_difference, bootstrap_mean, share_by_unit, simultaneous_level

WINDOWS = ("8", "16", "32")
STREAMS = "streams"
# By measure: what it says in words, and which list of films it goes by.
ALONE = {"clip": ("actions of clips", "films"), "actor": ("actions of actors", "films"), "fight": ("fights", "fights")}
JOINED = {"ends": "at the ends of clips", "frames": "at every frame"}


@contextmanager
def looking_back(model, window: int) -> Iterator[None]:
    """The same weights with another attention window for a while; sessions made inside have it.

    Args:
        model: a KineTrack model that PyTorch runs.
        window: frames.
    """
    attention, config = model.kinetrack.attention, model.config
    before = config.attention_window
    attention.window = config.attention_window = window
    try:
        yield
    finally:
        attention.window = config.attention_window = before


class AttentionWindow(Experiment):
    """See the module's text."""

    name = "attention-window"
    question = (
        "How many frames should β of Eq. 5 look back over in kinetrack-nano? `long-video` and `sequence-length` saw "
        "on `val` that a long window mixes scenes; a default may not be chosen there, so `dev` is asked, clip by clip "
        "and with clips joined into streams."
    )
    claim = "Eq. 5 attends over all frames of a clip; streams, which do not end, are not spoken of."
    variants = {
        **{
            window: Variant(f"every clip alone, as `kinetrack evaluate --split dev`, {window} frames", 2.0, 1)
            for window in WINDOWS
        },
        STREAMS: Variant("the same clips one after the other, in new orders, all windows on the same stream", 1.0),
    }

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "stream_frames": 200 if quick else 10000,
            "stream_input": "64×96" if quick else "192×256",
            "answer_of_a_clip": "mean over its windows, as in sessions, pipeline and evaluation",
            "trained_again": "no: the shipped model as it is",
        }

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self._frames = self.protocol(inputs.quick)["stream_frames"]
        self._size = (64, 96) if inputs.quick else (192, 256)
        model, self._processor = load_model(inputs.model, "cpu", allow_untrained=inputs.quick, backend="torch")
        self._model = without_poses(model)
        self._untrained = inputs.quick
        self._actions = action_sources(inputs.data, "dev", sets=(ACTION_SET,))
        fights = "fight" in (self._model.config.label_groups or {})
        self._fights = action_sources(inputs.data, "dev", sets=(FIGHT_SET,)) if fights else []
        if not self._actions:
            raise ValueError(f"No clip of the dev list lies below {inputs.data}/actions/{ACTION_SET}.")
        window = str(self._model.config.attention_window)
        if window not in WINDOWS:
            raise ValueError(f"The model's attention window is {window}; this experiment compares {WINDOWS}.")
        films, neighbours = film_names(self._actions), neighbour_names(self._fights)
        return {
            "set": "JHMDB and surveillance clips of the committed `dev` list",
            "model": inputs.model,
            "attention_window": window,
            "dev_clips": len(self._actions),
            "dev_fights": len(self._fights),
            "films": [films[clip.name] for clip in self._actions],
            "fights": [neighbours[clip.name] for clip in self._fights],
        }

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        if variant == STREAMS:
            actions = self._play(self._actions, [clip.label for clip in self._actions], None, seed)
            fights = [clip.group_labels["fight"] for clip in self._fights]
            return {"actions": actions} | (
                {"fights": self._play(self._fights, fights, "fight", seed)} if fights else {}
            )
        with looking_back(self._model, int(variant)):
            return self._classify()

    def _classify(self) -> dict:
        """Every clip alone, exactly as `evaluate` runs them."""
        session = RegionSession(self._model, self._processor, allow_untrained=self._untrained)
        right: dict[str, list[bool]] = {"clip": [], "actor": [], "fight": []}
        for source in self._actions:
            actor = read_actor(_listed(source), source.label)
            boxes = None if actor is None else actor.boxes[:, None]
            clip, people = classify_people(session, source.frames.path, boxes, Stopwatch())
            right["clip"].append(clip["actions"].argmax() == source.label)
            right["actor"].append(bool(people) and people[0] is not None and people[0].argmax() == source.label)
        for source in self._fights:
            clip, _ = classify_people(session, source.frames.path, None, Stopwatch())
            right["fight"].append(clip["fight"].argmax() == source.group_labels["fight"])
        return {key: hits_text(values) for key, values in right.items() if values}

    def _play(self, clips: list, labels: list[int], group: str | None, seed: int) -> dict:
        """Share of each clip's appearances, and of its frames, that are answered right, by window."""
        frames, spans = read_spans(clips, self._model.config.frame_rate, self._size)
        mean, std = self._processor.image_mean, self._processor.image_std
        encoded = EncodedFrames(self._model.kinetrack.encoder, frames, self._size, mean, std)
        order, ends, shown = shuffled_passes(spans, self._frames, seed)
        trace = play(self._model.kinetrack, encoded, order)
        clip_of = np.repeat(shown, np.diff(ends, prepend=0))
        found: dict[str, dict] = {"ends": {}, "frames": {}}
        for window in WINDOWS:
            last = torch.stack([attend(trace, end, int(window))[1] for end in ends])
            every = attend_at_every_frame(trace.scores[None], trace.pooled[None], int(window))[0]
            for key, summaries, units in (("ends", last, shown), ("frames", every, clip_of)):
                right = self._answers(summaries, group) == np.asarray(labels)[units]
                found[key][window] = share_by_unit(right, units, len(clips))
        return found | {"shortest": min(length for _, length in spans), "longest": max(length for _, length in spans)}

    @torch.inference_mode()
    def _answers(self, summaries: torch.Tensor, group: str | None) -> np.ndarray:
        actions, groups = self._model.action_head(summaries)
        return (actions if group is None else groups[group]).argmax(1).numpy()

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        alone, joined = _alone(results), _joined(results)
        return [
            Table(
                f"Per cent right on `dev`, by window, every clip alone (95 % interval over films): {_counts(results)}.",
                ["", *WINDOWS],
                [[ALONE[key][0], *(_cell(results, alone[key], key, window) for window in WINDOWS)] for key in alone],
            ),
            Table(
                "The same clips joined into streams: mean ± standard deviation over orders.",
                ["", *WINDOWS],
                [
                    [f"{kind} {JOINED[key]}", *(spread(100 * values[window].mean(1)) for window in WINDOWS)]
                    for (kind, key), values in joined.items()
                ],
            ),
        ]

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        alone, joined, shipped = _alone(results), _joined(results), results.data["attention_window"]
        gaps = _gaps(results)
        if not alone or not joined:
            return ["Either clips alone or streams were not run, so nothing can be said about a window yet."]
        level = next(iter(gaps.values())).level

        def said(names: list) -> str:
            return "; ".join(
                f"{window} frames, {name}, {gap.judged()}" for (window, name), gap in gaps.items() if name in names
            )

        single = [ALONE[key][0] for key in alone]
        streams = [f"{kind} {JOINED[key]}" for kind, key in joined]
        reach = results.measures(STREAMS)[0]
        lengths = "; ".join(f"{kind} {reach[kind]['shortest']} to {reach[kind]['longest']}" for kind in _kinds(results))
        return [
            f"**Clips alone.** Against {shipped}, the window at the time, in points, by {100 * level:.4g} % intervals "
            f"that hold together for all {len(gaps)} comparisons: {said(single)}.",
            f"**Streams.** Clips have {lengths} frames at the model's rate, and a new one follows at once. Against "
            f"{shipped} frames: {said(streams)}.",
            f"**Said by rule.** {_verdict(results).capitalize()}.",
            f"**Not shown.** `dev` has {_counts(results)}; an interval that contains zero does not show equality, and "
            f"those of clips alone would not show a loss below {_blind_below(results, single):.0f} points. The "
            "checkpoint, its temperature and its threshold of actions were chosen on these clips with that "
            "window, and would have to be calibrated again with another. Cuts every second or two are not how a "
            "camera's stream looks; one in which an action goes on for many seconds may want a longer window.",
        ]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        said = [
            f"{ALONE[key][0]} " + ", ".join(f"{100 * values[window].mean():.1f}" for window in WINDOWS)
            for key, values in _alone(results).items()
        ]
        said += [
            f"in streams, {kind} {JOINED[key]} " + ", ".join(f"{100 * values[window].mean():.1f}" for window in WINDOWS)
            for (kind, key), values in _joined(results).items()
        ]
        return Summary(f"`dev`, % right with {', '.join(WINDOWS)} frames: {'; '.join(said)}", _verdict(results))

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        alone, joined = _alone(results), _joined(results)
        panels = [(f"{ALONE[key][0]}, alone", values, ALONE[key][1]) for key, values in alone.items()]
        panels += [(f"streams: {kind}\n{JOINED[key]}", values, _films(kind)) for (kind, key), values in joined.items()]
        figure, axes = new_figure(12, 2.2, columns=max(len(panels), 1), sharey=True)
        for axis, (title, values, films) in zip(axes[0], panels, strict=False):
            intervals = [bootstrap_mean(values[window], results.data[films]) for window in WINDOWS]
            draw_intervals(axis, WINDOWS, [100 * values[window].mean(1) for window in WINDOWS], intervals)
            axis.set_title(title, fontsize=8)
        axes[0, 0].set_ylabel("window, frames")
        figure.supxlabel("% right on dev", fontsize=9)
        save_figure(figure, folder / "window.png")
        return [Plot("window.png", "Right on `dev` by window, with 95 % intervals over films (and orders of streams).")]


def _listed(source) -> LabelledClip:
    return LabelledClip(source.frames.path, source.frames.path.parent.name)


def _films(kind: str) -> str:
    return "fights" if kind == "fights" else "films"


def _kinds(results: Results) -> list[str]:
    """Streams that were played: of "actions" and of "fights"."""
    return list(results.measures(STREAMS)[0]) if STREAMS in results.variants() else []


def _alone(results: Results) -> dict[str, dict[str, np.ndarray]]:
    """By measure and window, `(1, clips)`; nothing before all windows were run."""
    if not set(WINDOWS) <= set(results.variants()):
        return {}
    keys = [key for key in ALONE if key in results.measures(WINDOWS[0])[0]]
    return {key: {window: results.hits(window, key) for window in WINDOWS} for key in keys}


def _joined(results: Results) -> dict[tuple[str, str], dict[str, np.ndarray]]:
    """By stream, measure and window, `(orders, clips)`."""
    return {
        (kind, key): {window: results.values(STREAMS, kind, key, window) for window in WINDOWS}
        for kind in _kinds(results)
        for key in JOINED
    }


def _gaps(results: Results) -> dict[tuple[str, str], Interval]:
    """By window and measure in words, the difference from the shipped window; all intervals hold together."""
    found = [(ALONE[key][0], ALONE[key][1], values) for key, values in _alone(results).items()]
    found += [(f"{kind} {JOINED[key]}", _films(kind), values) for (kind, key), values in _joined(results).items()]
    shipped = results.data["attention_window"]
    others = [window for window in WINDOWS if window != shipped]
    level = simultaneous_level(len(found) * len(others))
    return {
        (window, name): bootstrap_difference(values[window], values[shipped], results.data[films], level)
        for window in others
        for name, films, values in found
    }


def _verdict(results: Results) -> str:
    """By rule, of every other window: what it was shown to change on `dev`."""
    gaps, said = _gaps(results), []
    for window in dict.fromkeys(window for window, _ in gaps):
        own = {name: gap for (other, name), gap in gaps.items() if other == window and gap.excludes_zero}
        better = [name for name, gap in own.items() if gap.mean > 0]
        worse = [name for name, gap in own.items() if gap.mean < 0]
        text = f"{window} frames are " + " and ".join(
            [
                *([f"better at {', '.join(better)}"] if better else []),
                *([f"worse at {', '.join(worse)}"] if worse else []),
            ]
            or ["not shown to differ"]
        )
        said.append(text + ("" if worse or not better else ", and not shown to be worse anywhere"))
    return "; ".join(said) or "nothing was compared yet"


def _blind_below(results: Results, names: list[str]) -> float:
    """The widest half of the intervals of some measures, in points."""
    return max((gap.high - gap.low) / 2 for (_, name), gap in _gaps(results).items() if name in names)


def _counts(results: Results) -> str:
    data = results.data
    return f"{data['dev_clips']} clips of {len(set(data['films']))} films and {data['dev_fights']} of fights or none"


def _cell(results: Results, values: dict[str, np.ndarray], key: str, window: str) -> str:
    interval = bootstrap_mean(values[window], results.data[ALONE[key][1]])
    return f"{interval.mean:.1f} ({interval.low:.1f} to {interval.high:.1f})"
