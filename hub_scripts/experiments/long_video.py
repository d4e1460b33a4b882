"""What an hour does: to the state, to the sharpness of beta, to memory, to answers, and to identities."""

import time
from collections import deque
from pathlib import Path

import numpy as np
import torch

from ...processing.graphs.graph_cache import weight_hash
from ...processing.loading import load_model
from ...processing.session_kinetrack import tracker_settings
from ...processing.tracking_kinetrack import KineTracker
from ..data.sources import ACTION_SET, action_sources, film_names
from ..detection_cache import detect_sequence
from ..evaluation_items import Sequence, read_sequence_info
from .experiment import Experiment, Inputs, Plot, Results, Summary, Table, Variant
from .long_streams import (
    EncodedFrames,
    StreamTrace,
    attend,
    play,
    read_spans,
    shapes_loop,
    sharpness,
    shuffled_passes,
    without_poses,
)
from .plots import new_figure, save_figure
from .statistics import bootstrap_difference, bootstrap_mean, share_by_unit, simultaneous_level

RATE = 12.5  # Hz, the rate at which the temporal part runs
WINDOWS = (8, 16, 32, 64, 128, 512, 2048, 8192)
WHOLE = "all"
STREAMS = ("still", "shapes", "clips")


class LongVideo(Experiment):
    """See the module's text."""

    name = "long-video"
    question = (
        "What does an hour of video do to the shipped model: does its state drift, does β stay sharp as the window "
        "grows, does memory grow, do answers get worse, do identities survive? And a sliding window against full "
        "softmax."
    )
    claim = "it is made for real-time analysis of video; its abstract reports clips and sequences, and no long streams."
    variants = {
        "still": Variant("one frame for an hour", 3.0, most_seeds=1),
        "shapes": Variant("made-up moving boxes, the same 80 seconds again and again", 3.0),
        "clips": Variant("all clips of `val` one after the other, in a new order each time", 4.0),
        "identities": Variant(
            "detections of TUD-Stadtmitte, played to and fro, through the tracker", 2.0, most_seeds=1
        ),
    }
    seeds = 3

    def protocol(self, quick: bool) -> dict:
        """See `Experiment.protocol`."""
        return {
            "frames": 256 if quick else 45000,
            "rate": f"{RATE} Hz",
            "tracker_frames": 358 if quick else 90000,
            "tracker_rate": "25 Hz",
            "input": "64×96" if quick else "192×256",
            "trained_again": "no: the shipped model as it is",
        }

    def prepare(self, inputs: Inputs) -> dict:
        """See `Experiment.prepare`."""
        self._quick = inputs.quick
        self._settings = self.protocol(inputs.quick)
        self._size = (64, 96) if inputs.quick else (192, 256)
        model, self._processor = load_model(inputs.model, "cpu", allow_untrained=inputs.quick, backend="torch")
        self._model = without_poses(model)
        self._clips = [source for source in action_sources(inputs.data, "val", sets=(ACTION_SET,))]
        self._sequence = Path(inputs.data) / "mot" / "val" / "TUD-Stadtmitte"
        if not self._clips:
            raise ValueError(f"No clip of the val list lies below {inputs.data}/actions/{ACTION_SET}.")
        films = film_names(self._clips)
        return {
            "set": "JHMDB split 1 by the committed `val` list, TUD-Stadtmitte of mot/val",
            "model": inputs.model,
            "model_hash": weight_hash(model)[:12],
            "attention_window": self._model.config.attention_window,
            "val_clips": len(self._clips),
            "films": [films[clip.name] for clip in self._clips],
        }

    def run_cell(self, variant: str, seed: int) -> dict:
        """See `Experiment.run_cell`."""
        if variant == "identities":
            return self._follow_identities()
        count = self._settings["frames"]
        if variant == "clips":
            return self._play_clips(count, seed)
        frames = shapes_loop(count // 4 if self._quick else 1000, seed=seed)
        frames = frames[:1] if variant == "still" else frames
        trace = play(self._model.kinetrack, self._encode(frames), np.arange(count) % len(frames))
        loop = max(len(frames), self._model.config.attention_window)
        return _describe(trace) | {"return": _distance(trace, loop)}

    def _encode(self, frames: np.ndarray) -> EncodedFrames:
        mean, std = self._processor.image_mean, self._processor.image_std
        return EncodedFrames(self._model.kinetrack.encoder, frames, self._size, mean, std)

    def _play_clips(self, count: int, seed: int) -> dict:
        frames, spans = read_spans(self._clips, RATE, self._size)
        encoded = self._encode(frames)
        order, ends, clips = shuffled_passes(spans, count, seed)
        trace = play(self._model.kinetrack, encoded, order)
        right = {str(window): self._right(trace, ends, clips, window) for window in (*WINDOWS, len(order))}
        right[WHOLE] = right.pop(str(len(order)))
        alone = []
        for clip, (first, length) in enumerate(spans):
            fresh = play(self._model.kinetrack, encoded, range(first, first + length))
            alone.append(self._right(fresh, [length], [clip], length)[0])
        by_clip = {key: share_by_unit(values, clips, len(spans)) for key, values in right.items()}
        passes = np.array(right[str(self._window())]).reshape(-1, len(spans))
        quarter = max(len(passes) // 4, 1)
        half = len(spans) * quarter
        return _describe(trace) | {
            "frames": len(order),
            "shortest": min(length for _, length in spans),
            "by_clip": by_clip,
            "alone": [float(value) for value in alone],
            "begin": share_by_unit(right[str(self._window())][:half], clips[:half], len(spans)),
            "end": share_by_unit(right[str(self._window())][-half:], clips[-half:], len(spans)),
        }

    def _window(self) -> int:
        window = self._model.config.attention_window
        if window not in WINDOWS:
            raise ValueError(f"The model's attention window is {window}; this experiment compares {WINDOWS}.")
        return window

    @torch.inference_mode()
    def _right(self, trace: StreamTrace, ends: list[int], clips: list[int], window: int) -> list[bool]:
        """At the end of every clip, whether the answer over the last `window` frames is the clip's own."""
        summaries = torch.stack([attend(trace, end, window)[1] for end in ends])
        answers = self._model.action_head(summaries)[0].argmax(1).tolist()
        return [answer == self._clips[clip].label for answer, clip in zip(answers, clips, strict=True)]

    def _follow_identities(self) -> dict:
        if not self._sequence.is_dir():
            raise FileNotFoundError(f"No such folder: {self._sequence}. `identities` needs this sequence.")
        length = int(read_sequence_info(self._sequence)["seqLength"])
        detected = detect_sequence(self._model, self._processor, Sequence(self._sequence, (1, length)))
        there = np.arange(length)
        order = np.resize(np.concatenate([there, there[-2:0:-1]]), self._settings["tracker_frames"])
        config = self._model.config
        tracker = KineTracker(**tracker_settings(config.detection_threshold, config.tracker_settings))
        minutes, known, spent, tracks, shown, kept = [], 0, [], [], [], []
        step = 25 * 60 if not self._quick else 100
        earlier: deque[set[int]] = deque(maxlen=2 * length - 2)  # as long as to and fro takes
        begin = time.process_time()
        for number, frame in enumerate(order, start=1):
            found = tracker.update(detected.frames[frame], number / 25)
            known = max(known, int(found.track_id.max(initial=0)))
            now = set(found.track_id.tolist())
            if number % step == 0:
                minutes.append(known)
                spent.append(1000 * (time.process_time() - begin) / step)
                tracks.append(len(tracker.known_ids))
                shown.append(len(now))
                kept.append(len(now & earlier[0]))
                begin = time.process_time()
            earlier.append(now)
        return {
            "new_identities": np.diff(minutes, prepend=0).tolist(),
            "milliseconds": spent,
            "alive": tracks,
            "shown": shown,
            "kept": kept,
            "loop_seconds": earlier.maxlen / 25,
        }

    def tables(self, results: Results) -> list[Table]:
        """See `Experiment.tables`."""
        streams = [name for name in STREAMS if name in results.variants()]
        state, sharp = [], []
        for name in streams:
            for number, measures in enumerate(results.measures(name)):
                rms, memory = measures["state_rms"], measures["memory_mib"]
                state.append([f"{name}, seed {number}", *(f"{rms[at]:.3f}" for at in ("first", "middle", "last"))])
                state[-1] += [f"{measures['state_peak']:.1f}", f"{memory['first']:.0f}", f"{memory['last']:.0f}"]
                state[-1] += [f"{measures['milliseconds'][at]:.1f}" for at in ("first", "last")]
                effective = measures["sharpness"]
                sharp.append([f"{name}, seed {number}", *(f"{entry['effective']:.0f}" for entry in effective.values())])
        tables = [
            Table(
                "The recurrent state's root mean square (all layers) in the first, middle and last tenth of the "
                "hour, its largest magnitude, the most memory in MiB that the process had in the first and in the last "
                "tenth, and processor time a frame without the encoder.",
                ["stream", "first", "middle", "last", "largest", "MiB first", "MiB last", "ms first", "ms last"],
                state,
            )
        ]
        if sharp:
            heads = list(results.measures(streams[0])[0]["sharpness"])
            tables.append(
                Table(
                    "Over how many frames β spreads (exponential of its entropy), by the length of the window in "
                    "frames.",
                    ["stream", *heads],
                    sharp,
                )
            )
        if "clips" in results.variants():
            tables.append(self._accuracy_table(results))
        return tables

    @staticmethod
    def _accuracy_table(results: Results) -> Table:
        rows = []
        for window in results.measures("clips")[0]["by_clip"]:
            values = _stacked(results, "by_clip", window)
            interval = bootstrap_mean(values, results.data["films"])
            rows.append([window, f"{interval.mean:.1f}", f"{interval.low:.1f} to {interval.high:.1f}"])
        for key, text in (("alone", "each clip alone, all of its frames"),):
            interval = bootstrap_mean(_stacked(results, key), results.data["films"])
            rows.append([text, f"{interval.mean:.1f}", f"{interval.low:.1f} to {interval.high:.1f}"])
        caption = "Top-1 on `val` at the end of every clip of the stream, by the length of β's window in frames, %."
        return Table(caption, ["window", "top-1", "95 % interval over films and seeds"], rows)

    def conclude(self, results: Results) -> list[str]:
        """See `Experiment.conclude`."""
        names = results.variants()
        said = [self._state_text(results, [name for name in STREAMS if name in names])]
        if "clips" in names:
            said.append(self._window_text(results))
        if "identities" in names:
            said.append(_identity_text(results.measures("identities")[0]))
        said.append(
            "**Not shown.** The streams repeat what they show, scenes change every second or so, and inputs are "
            f"small: {results.protocol['input']}. A camera's hour, with its light and its weather, is another test. "
            f"Nothing was trained again: seeds ({_seeds_text(results)}) are other orders of the clips and other boxes, "
            "and say nothing of other models. Poses and region statistics, where a model reads them as well, were left "
            "out: it answers otherwise than here."
        )
        return [text for text in said if text]

    def summarise(self, results: Results) -> Summary:
        """See `Experiment.summarise`."""
        said, ageing = ["of what is read from R alone, without poses and statistics"], None
        streams = [name for name in STREAMS if name in results.variants()]
        changes = [
            100 * (measures["state_rms"]["last"] / measures["state_rms"]["first"] - 1)
            for name in streams
            for measures in results.measures(name)
        ]
        if changes:
            said.append(f"over an hour the state's size changes by {min(changes):+.1f} to {max(changes):+.1f} %")
        if "clips" in streams:
            ageing = bootstrap_difference(_stacked(results, "end"), _stacked(results, "begin"), results.data["films"])
            effective = results.values("clips", "sharpness", WHOLE, "effective") / results.values("clips", "frames")
            window = str(results.data["attention_window"])
            sides = (_stacked(results, "by_clip", key) for key in (window, WHOLE))
            against = bootstrap_difference(*sides, results.data["films"])
            said.append(f"top-1 on clips by {ageing.brief()} points from its first to its last quarter")
            said.append(f"without a window β spreads over {100 * effective.mean():.0f} % of the hour")
            said.append(f"with one of {window} frames top-1 is {against.brief()} points higher")
        if "identities" in results.variants():
            lasting = _lasting(results.measures("identities")[0])
            said.append(f"{lasting:.0f} % of identities are the same when the same seconds come again")
        if ageing is None:
            return Summary("; ".join(said), "answers were not measured")
        verdict = "answers change with time" if ageing.excludes_zero else "no drift of answers was shown"
        if against.excludes_zero:
            verdict += f"; {'a sliding window' if against.mean > 0 else 'the full softmax'} is the better"
        return Summary("; ".join(said), verdict)

    @staticmethod
    def _state_text(results: Results, streams: list[str]) -> str:
        said = []
        for name in streams:
            found = results.measures(name)
            sizes = [measures["state_rms"] for measures in found]
            text = (
                f"on {name} its size changes by {_span([100 * (rms['last'] / rms['first'] - 1) for rms in sizes])} % "
                "from the first tenth of the hour to the last"
            )
            if "return" in found[0]:
                most = max(measures["return"] for measures in found)
                second = results.data["attention_window"] / RATE
                early = f"{second:.1f} to {2 * second:.1f} seconds in, when the state still settles"
                early = early if name == "still" else "the second time round"
                text += f", f of Eq. 4 at the end differs by {100 * most:.2g} % at most from what it was {early}"
            grown = [measures["memory_mib"]["last"] - measures["memory_mib"]["first"] for measures in found]
            said.append(
                f"{text}, and the process's memory changes by {_span(grown, 0)} MiB, while "
                f"{found[0]['noted_mib']:.0f} MiB are noted for this report"
            )
        return f"**State and memory.** The state is a weighted mean of the past: {'; '.join(said)}." if said else ""

    @staticmethod
    def _window_text(results: Results) -> str:
        films, window = results.data["films"], str(results.data["attention_window"])
        level = simultaneous_level(4)
        short = str(WINDOWS[0])
        own = _stacked(results, "by_clip", window)
        against = bootstrap_difference(own, _stacked(results, "by_clip", WHOLE), films, level)
        ageing = bootstrap_difference(_stacked(results, "end"), _stacked(results, "begin"), films, level)
        alone = bootstrap_difference(own, _stacked(results, "alone"), films, level)
        recent = bootstrap_difference(_stacked(results, "by_clip", short), _stacked(results, "alone"), films, level)
        reach = results.measures("clips")[0]["shortest"]
        if reach < WINDOWS[0]:
            cause = f"but the shortest clip has {reach} frames, so some of these windows reach into another clip"
        elif recent.high < 0:
            cause = "what the state carries over from other clips costs something as well"
        else:
            cause = "no cost was shown of what the state carries over from other clips"
            cause += ", so it is the window that mixes them" if alone.high < 0 else ""
        effective = {key: results.values("clips", "sharpness", key, "effective").mean() for key in (window, WHOLE)}
        frames = results.measures("clips")[0]["frames"]
        share = effective[WHOLE] / frames
        shown = {True: "shown", False: "not shown to differ from none"}
        return (
            f"**Window.** On the stream of clips β spreads over {effective[window]:.0f} of {window} frames, and "
            f"without a window over {effective[WHOLE]:.0f} of {frames} ({100 * share:.0f} %): "
            f"{'it spreads with what is seen' if share > 0.5 else 'it stays on a part of what is seen'}. Answers "
            f"over the model's window of {window} less those of the full softmax are right by {against.text()} more, "
            f"{shown[against.excludes_zero]}. From the first to the last quarter of the hour "
            f"accuracy changes by {ageing.text()}, {shown[ageing.excludes_zero]}; against clips that are played "
            f"alone, by {alone.text()}, {shown[alone.excludes_zero]}. Read from the last {short} frames only, where "
            f"the shortest clip has {reach}, it differs from clips alone by {recent.text()}, "
            f"{shown[recent.excludes_zero]}: {cause}."
        )

    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """See `Experiment.draw`."""
        streams = [name for name in STREAMS if name in results.variants()]
        figure, axes = new_figure(11, 3.3, columns=3)
        for name in streams:
            measures = results.measures(name)[0]
            curve = measures["curve"]
            minutes = np.linspace(0, measures.get("frames", results.protocol["frames"]) / RATE / 60, len(curve))
            axes[0, 0].plot(minutes, curve, label=name)
            entries = measures["sharpness"]
            played = measures.get("frames", results.protocol["frames"])
            lengths = [played if key == WHOLE else int(key) for key in entries]
            axes[0, 1].plot(lengths, [entry["effective"] for entry in entries.values()], "o-", markersize=4, label=name)
        axes[0, 0].set(title="Size of the recurrent state", xlabel="minutes of video", ylabel="root mean square")
        axes[0, 0].set_ylim(bottom=0)
        if streams:
            limits = (WINDOWS[0], results.protocol["frames"])
            axes[0, 1].plot(limits, limits, color="0.8", zorder=0, label="uniform")
            axes[0, 1].set(title="Frames that β spreads over", xlabel="window, frames", xscale="log", yscale="log")
            axes[0, 0].legend(frameon=False, fontsize=8)
            axes[0, 1].legend(frameon=False, fontsize=8)
        if "clips" in streams:
            keys = list(results.measures("clips")[0]["by_clip"])
            spans = [bootstrap_mean(_stacked(results, "by_clip", key), results.data["films"]) for key in keys]
            places = np.arange(len(keys))
            axes[0, 2].fill_between(places, [s.low for s in spans], [s.high for s in spans], alpha=0.2)
            axes[0, 2].plot(places, [s.mean for s in spans], "o-", markersize=4)
            axes[0, 2].set_xticks(places, keys, fontsize=7)
            axes[0, 2].set(title="Top-1 at the ends of clips, %", xlabel="window, frames", ylim=(0, None))
        save_figure(figure, folder / "long-video.png")
        return [Plot("long-video.png", "An hour: the state, the spread of β, and accuracy by window (95 % intervals).")]


def _describe(trace: StreamTrace) -> dict:
    """What all streams are described by."""
    rms = trace.state_rms.mean(1)
    tenth = max(len(rms) // 10, 1)
    middle = slice((len(rms) - tenth) // 2, (len(rms) + tenth) // 2)
    parts = {"first": slice(0, tenth), "middle": middle, "last": slice(-tenth, None)}
    windows = [window for window in WINDOWS if window < len(trace.scores)]
    curve = rms[np.linspace(0, len(rms) - 1, min(len(rms), 120)).round().astype(int)]
    return {
        "state_rms": {key: float(rms[part].mean()) for key, part in parts.items()},
        "state_peak": float(trace.state_peak.max()),
        "memory_mib": {key: float(trace.memory_mib[part].max()) for key, part in parts.items()},
        "milliseconds": {key: float(np.median(trace.milliseconds[part])) for key, part in parts.items()},
        "sharpness": {str(window): sharpness(trace, window) for window in windows}
        | {WHOLE: sharpness(trace, len(trace.scores), 1)},
        "noted_mib": (trace.scores.numel() + trace.pooled.numel()) * 4 / 2**20,  # kept for this report alone
        "curve": np.round(curve, 5).tolist(),
    }


def _distance(trace: StreamTrace, loop: int) -> float:
    """Largest change of f, relative to its size, between the second and the last whole time of the same loop."""
    last = len(trace.pooled) - loop
    last -= (last - loop) % loop
    early, late = trace.pooled[loop : 2 * loop], trace.pooled[last : last + loop]
    return float((late - early).norm(dim=1).max() / early.norm(dim=1).mean())


def _stacked(results: Results, *path: str) -> np.ndarray:
    """`(S, N)` of the stream of clips."""
    found = []
    for measures in results.measures("clips"):
        for key in path:
            measures = measures[key]
        found.append(measures)
    return np.array(found, np.float64)


def _span(values: list[float], digits: int = 1) -> str:
    """`-0.3 to +0.1`, or one figure of one value."""
    ends = list(dict.fromkeys(f"{value:+.{digits}f}" for value in (min(values), max(values))))
    return " to ".join(ends)


def _seeds_text(results: Results) -> str:
    return ", ".join(f"{name} {len(results.measures(name))}" for name in results.variants())


def _lasting(measures: dict) -> float:
    """Per cent of people who had the same identity one time to and fro before."""
    return 100 * sum(measures["kept"]) / max(sum(measures["shown"]), 1)


def _identity_text(measures: dict) -> str:
    new, loop = np.array(measures["new_identities"], float), measures["loop_seconds"]
    part = max(len(new) // 6, 1)
    return (
        f"**Identities.** Through {len(new)} minutes of the same {loop / 2:.1f} seconds to and fro, "
        f"{new[:part].mean():.1f} new identities a minute in the first sixth and {new[-part:].mean():.1f} in the last; "
        f"of {np.mean(measures['shown']):.1f} people shown at the end of a minute, {_lasting(measures):.0f} % had the "
        f"same identity in the same frame {loop:.1f} seconds before; "
        f"{measures['alive'][0]} tracks known after the first minute and {measures['alive'][-1]} at the end; "
        f"{measures['milliseconds'][0]:.2f} and {measures['milliseconds'][-1]:.2f} ms of processor time a frame."
    )
