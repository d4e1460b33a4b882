"""What the measures of `sequence-length` say: tables, sentences by rule, and pictures."""

from matplotlib.axes import Axes

from .experiment import Results, Table, spread
from .model_costs import COSTS, costs_of, trust_text
from .plots import draw_point
from .statistics import Interval, bootstrap_difference, simultaneous_level

REFERENCE = "16"  # `config.num_frames` of both presets
TRUE = "true"
CLIPS = ("8", REFERENCE, "32", TRUE)
STREAMS = ("64", "128")


def clips_in(results: Results) -> list[str]:
    """Lengths at which clips were learned."""
    return [name for name in CLIPS if name in results.variants()]


def named(name: str) -> str:
    """A length as people read it."""
    return "all frames" if name == TRUE else f"T = {name}"


def learned_in(results: Results) -> list[str]:
    """Lengths at which anything was learned."""
    return [name for name in (*CLIPS, *STREAMS) if name in results.variants()]


def length_gaps(results: Results) -> dict[str, Interval]:
    """What other lengths change against the reference, in points, by intervals that hold together."""
    others = [name for name in clips_in(results) if name != REFERENCE]
    if REFERENCE not in results.variants():
        return {}
    level = simultaneous_level(len(others))
    reference = (REFERENCE, "hits", "spread")
    return {name: results.difference((name, "hits", "spread"), reference, level) for name in others}


def clip_table(results: Results) -> Table:
    """Accuracy on clips by T."""
    rows = []
    for name in clips_in(results):
        interval = results.accuracy(name, "hits", "spread")
        tops = [spread(100 * results.hits(name, "hits", view).mean(1)) for view in ("spread", "middle")]
        rows.append([name, spread(results.values(name, "dev_top1")), tops[0]])
        rows[-1] += [f"{interval.low:.1f} to {interval.high:.1f}", tops[1]]
    return Table(
        "Top-1 on clips in per cent, mean ± standard deviation over seeds; intervals over films and seeds. In a row: "
        "the same model on T frames from the middle of the clip, or on all of a shorter one.",
        ["T", "dev", "val", "95 % interval", "val, in a row"],
        rows,
    )


def _streamed_in(results: Results) -> list[str]:
    return [name for name in learned_in(results) if "stream" in results.measures(name)[0]]


def _horizons(results: Results) -> list[str]:
    return list(results.measures(_streamed_in(results)[0])[0]["stream"])


def stream_table(results: Results) -> Table:
    """Frame accuracy by what was learned on and how far Eq. 5 looks back."""
    rows, horizons = [], []
    for name in _streamed_in(results):
        horizons = _horizons(results)
        cut = spread(100 * results.values(name, "pieces").mean(1)) if name != TRUE else "–"
        streamed = [spread(100 * results.values(name, "stream", horizon).mean(1)) for horizon in horizons]
        rows.append([named(name), cut, *streamed])
    return Table(
        "Per cent of frames answered right on all clips of `val` joined to one stream, every clip weighing the same: "
        "cut into pieces of T frames that begin anew, and as one stream with β over so many frames.",
        ["learned on", "pieces of T", *horizons],
        rows,
    )


def cost_table(results: Results) -> Table:
    """Speed and memory by T."""
    rows = []
    for length, forms in costs_of(results).items():
        clip, step = forms["clip"], forms["step"]
        rows.append([length, f"{clip['milliseconds']:.1f}", f"{clip['frames_per_second']:.0f}"])
        rows[-1] += [f"{clip['milliseconds'] * int(length):.0f}", f"{clip['peak_mib']:.0f}"]
        rows[-1] += [f"{step['milliseconds']:.1f}", f"{step['frames_per_second']:.0f}", f"{step['peak_mib']:.0f}"]
        rows[-1] += [f"{step['state_kib']:.0f}"]
    size = results.protocol.get("input")
    return Table(
        f"kinetrack-nano with both heads at {size}, encoder included, on one core (processor time, the least of "
        f"{len(results.measures(COSTS)) if rows else 0} runs): T frames at once, and a stream frame by frame with "
        "β over T frames. Memory is the peak above that of the loaded model.",
        [
            "T",
            "clip, ms a frame",
            "frames/s",
            "ms a clip",
            "MiB",
            "stream, ms a frame",
            "frames/s",
            "MiB",
            "state, KiB",
        ],
        rows,
    )


def clip_text(results: Results) -> str:
    """What was shown about T on clips."""
    gaps = length_gaps(results)
    if not gaps:
        return ""
    own, level = results.accuracy(REFERENCE, "hits", "spread"), next(iter(gaps.values())).level
    said = [f"{named(name)} differs by {gap.judged('points')}" for name, gap in gaps.items()]
    names = clips_in(results)
    level_views = simultaneous_level(len(names))
    views = {
        name: results.difference((name, "hits", "middle"), (name, "hits", "spread"), level_views)
        for name in names
        if name != TRUE
    }
    moved = [f"T = {name} {gap.brief()}" for name, gap in views.items() if gap.excludes_zero]
    text = (
        f"**Clips.** With T = {REFERENCE} top-1 on `val` is {own.mean:.1f} % (95 % interval {own.low:.1f} to "
        f"{own.high:.1f}). By {100 * level:.4g} % intervals, which hold together: {'; '.join(said)}. "
    )
    if moved:
        return f"{text}Frames in a row instead of spread ones change, in points, {'; '.join(moved)}."
    return f"{text}No change was shown from frames in a row instead of spread ones."


def stream_text(results: Results) -> str:
    """What was shown about how far to look back on streams."""
    names = _streamed_in(results)
    if not names:
        return ""
    films, horizons = results.data["films"], _horizons(results)
    short, long = horizons[0], horizons[-1]
    cut = [name for name in names if name != TRUE]
    level = simultaneous_level(len(names) + len(cut))

    def gap(name: str, first: tuple, second: tuple) -> str:
        sides = (results.values(name, *path) for path in (first, second))
        return f"learned on {named(name)} {bootstrap_difference(*sides, films, level).judged()}"

    reach = [gap(name, ("stream", short), ("stream", long)) for name in names]
    carried = [gap(name, ("stream", name), ("pieces",)) for name in cut]
    best = {name: max(horizons, key=lambda horizon: results.values(name, "stream", horizon).mean()) for name in names}
    tops = ", ".join(
        f"{named(name)}: {100 * results.values(name, 'stream', horizon).mean():.1f} % at {horizon}"
        for name, horizon in best.items()
    )
    return (
        f"**Streams.** On joined clips β over the last {short} frames rather than {long} changes frame accuracy, in "
        f"points: {'; '.join(reach)}. One stream with a carried state, against pieces of T frames that begin anew, at "
        f"β over T frames: {'; '.join(carried)}; a piece's first frames have less to look back over, so this is the "
        f"reach of β again as much as what is carried. All by {100 * level:.4g} % intervals, which hold together. Best "
        f"by what was learned on: {tops}, chosen on `val` and so a little high."
    )


def cost_text(results: Results) -> str:
    """What T costs."""
    costs = costs_of(results)
    if not costs:
        return ""
    first, last = list(costs)[0], list(costs)[-1]
    (clip, step), (long_clip, long_step) = ((costs[length]["clip"], costs[length]["step"]) for length in (first, last))
    return (
        f"**Cost.** In clips of {first} frames, a frame takes {clip['milliseconds']:.1f} ms of one core, so an answer "
        f"takes {clip['milliseconds'] * int(first):.0f} ms, and {clip['peak_mib']:.0f} MiB at its peak; in clips of "
        f"{last}, {long_clip['milliseconds']:.1f} ms, {long_clip['milliseconds'] * int(last):.0f} ms and "
        f"{long_clip['peak_mib']:.0f} MiB. In a stream a frame, and with it an answer, takes "
        f"{step['milliseconds']:.1f} ms and {step['peak_mib']:.0f} MiB with β over {first} frames, "
        f"{long_step['milliseconds']:.1f} ms and {long_step['peak_mib']:.0f} MiB with β over {last}; the state it "
        f"carries grows from {step['state_kib']:.0f} to {long_step['state_kib']:.0f} KiB. {trust_text(results)}"
    )


def scope_text(results: Results) -> str:
    """What these figures do not say."""
    learned = learned_in(results)
    seeds = sorted({len(results.measures(name)) for name in learned}) or [0]
    count = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    films_alone = "; with one seed, intervals are over films alone" if seeds[0] == 1 else ""
    looks = ", and JHMDB's clips can be told by looks (see `temporal-module`)" if "JHMDB" in results.data["set"] else ""
    text = (
        f"**Not shown.** The encoder was frozen and sees frames one by one{looks}. {results.data['val_clips']} clips "
        f"of {results.data['val_films']} films and {count} seed(s) a length{films_alone}. They have "
        f"{results.data['val_frames']}: where T is more, frames come twice"
    )
    if _streamed_in(results):
        text += (
            ". Joined clips change scene every second or so, which real streams do not; models of joined clips were "
            "trained otherwise than those of clips, so compare within a row"
        )
    return text + "."


def draw_accuracy(axes: Axes, results: Results) -> None:
    """Top-1 by the processor time of an answer, or by T where costs were not measured."""
    costs = costs_of(results)
    average = float(results.data["val_frames"].rpartition(", ")[2].split()[0])
    for name in clips_in(results):
        frames = average if name == TRUE else float(name)
        place = frames * costs[name if name in costs else "32"]["clip"]["milliseconds"] if costs else frames
        interval, seeds = results.accuracy(name, "hits", "spread"), 100 * results.hits(name, "hits", "spread").mean(1)
        draw_point(axes, place, seeds, interval, named(name), left=name == "32" and bool(costs))
    axes.set(title="Top-1 on clips, %", ylim=(0, None), xlim=(0, 1.2 * axes.get_xlim()[1]))
    axes.set_xlabel("processor time of an answer, ms" if costs else "frames")
    axes.grid(axis="y", color="0.9")


def draw_streams(axes: Axes, results: Results) -> None:
    """Frame accuracy by the horizon of Eq. 5, one line a model."""
    horizons = _horizons(results)
    for name in _streamed_in(results):
        values = [100 * results.values(name, "stream", horizon).mean() for horizon in horizons]
        dashed = "--" if name in STREAMS else "-"
        axes.plot(horizons, values, dashed, marker="o", markersize=4, label=named(name))
    axes.set(title="Frames right on a stream, %", xlabel="frames that β looks back over", ylim=(0, None))
    axes.grid(axis="y", color="0.9")
    axes.legend(frameon=False, fontsize=8, title="learned on", title_fontsize=8)


def draw_costs(axes: Axes, results: Results) -> None:
    """Frames a second, and peak memory on a second axis."""
    costs = costs_of(results)
    lengths = list(costs)
    for form, label, style in (("clip", "clips of T", "-"), ("step", "stream", "--")):
        speed = [costs[length][form]["frames_per_second"] for length in lengths]
        axes.plot(lengths, speed, style, marker="o", markersize=4, color="tab:blue", label=f"{label}: speed")
    memory = axes.twinx()
    memory.spines["top"].set_visible(False)
    for form, label, style in (("clip", "clips of T", "-"), ("step", "stream", "--")):
        peak = [costs[length][form]["peak_mib"] for length in lengths]
        memory.plot(lengths, peak, style, marker="s", markersize=4, color="tab:red", label=f"{label}: memory")
    axes.set(title="Cost on one core", xlabel="T, frames", ylim=(0, 1.5 * axes.get_ylim()[1]))  # room for the legend
    axes.set_ylabel("frames/s", color="tab:blue")
    memory.set_ylabel("peak memory, MiB", color="tab:red")
    memory.set_ylim(0, 1.5 * memory.get_ylim()[1])
    handles = [*axes.get_lines(), *memory.get_lines()]
    axes.legend(handles, [line.get_label() for line in handles], frameon=False, fontsize=7, loc="upper left")
