"""What `captioning` found, from its measures alone: tables, sentences by rule, a picture."""

from collections.abc import Sequence
from pathlib import Path

from .caption_corpus import CAPTION, DOES, GOES, HOW_MANY, MOST
from .experiment import Plot, Results, Summary, Table, spread
from .plots import draw_intervals, new_figure, save_figure
from .statistics import Interval, bootstrap_difference, bootstrap_mean, simultaneous_level

FULL, BLIND, MAJORITY, RULES = "both", "blind", "majority", "rules"
ASKED = {
    "verb": "what a person does",
    "way": "which way a person goes",
    "count": "how many people there are",
    "most": "which way most people go",
}
TOLD = {"verb": "what they do", "way": "which way they go", "count": "how many there are", "sentence": "all of it"}


def _slots(results: Results, names: dict[str, str]) -> list[str]:
    """Those that the data have: without MOT sequences there are no streets."""
    return [slot for slot in names if slot in results.data["films"]]


def _share(results: Results, variant: str, kind: str, slot: str) -> Interval:
    return bootstrap_mean(results.hits(variant, kind, slot), results.data["films"][slot])


def _gap(results: Results, other: str, kind: str, slot: str, level: float) -> Interval:
    """Points by which the decoder with all tokens is better."""
    mine, others = results.hits(FULL, kind, slot), results.hits(other, kind, slot)
    return bootstrap_difference(mine, others, results.data["films"][slot], level)


def figures(results: Results, variants: Sequence[str]) -> list[Table]:
    """Tables of the report."""
    asked, told = _slots(results, ASKED), _slots(results, TOLD)
    names = [name for name in variants if name in results.variants()]
    tables = []
    for kind, slots, caption in (
        ("answers", {slot: ASKED[slot] for slot in asked}, "Answers to questions"),
        ("sentences", {slot: TOLD[slot] for slot in told}, "What descriptions say, read by their form"),
    ):
        rows = []
        for name in names:
            row = [name]
            for slot in slots:
                interval = _share(results, name, kind, slot)
                seeds = spread(100 * results.hits(name, kind, slot).mean(1))
                row.append(f"{seeds} ({interval.low:.0f} to {interval.high:.0f})")
            rows.append(row)
        counts = ", ".join(f"{len(results.data['films'][slot])} of {slot}" for slot in slots)
        tables.append(
            Table(
                f"{caption} on `val`, per cent exactly right: mean ± standard deviation over seeds, and in brackets "
                f"95 % intervals over films and seeds ({counts}).",
                ["", *slots.values()],
                rows,
            )
        )
    rows = [
        [
            name,
            f"{results.values(name, 'parameters')[0]:.0f}",
            spread(results.values(name, "step"), 0),
            spread(results.values(name, "dev_loss"), 3),
            spread(results.values(name, "val_loss"), 3),
        ]
        for name in names
        if "val_loss" in results.measures(name)[0]
    ]
    header = ["", "parameters", "step", "nats a word on dev", "on val"]
    return [*tables, Table("The decoders.", header, rows)] if rows else tables


def findings(results: Results) -> list[str]:
    """Paragraphs of the report."""
    if FULL not in results.variants():
        return ["The decoder with all tokens was not run, so there is nothing to compare."]
    parts = (_questions(results), _sentences(results), _tokens(results), _rules(results), _scope(results))
    return [text for text in parts if text]


def _better(results: Results, kind: str, slots: Sequence[str], others: Sequence[str]) -> dict[str, list[Interval]]:
    """By slot the gaps to each of some variants, with intervals that hold together."""
    level = simultaneous_level(len(slots) * len(others))
    return {slot: [_gap(results, other, kind, slot, level) for other in others] for slot in slots}


def _questions(results: Results) -> str:
    others = [name for name in (MAJORITY, BLIND) if name in results.variants()]
    slots, said = _slots(results, ASKED), []
    gaps = _better(results, "answers", slots, others)
    for slot in slots:
        own = _share(results, FULL, "answers", slot)
        rivals = ", ".join(
            f"{other} {_share(results, other, 'answers', slot).mean:.1f} %, {_verdict(gap)} {gap.brief()}"
            for other, gap in zip(others, gaps[slot], strict=True)
        )
        said.append(f"{ASKED[slot]}, {own.mean:.1f} % ({own.low:.1f} to {own.high:.1f}; {rivals})")
    return (
        f"**Questions.** With the tokens of frames and tracks the decoder is right about {'; '.join(said)}. "
        "Differences are points, with intervals that hold together for all of them."
    )


def _verdict(gap: Interval) -> str:
    return "a difference of" if gap.excludes_zero else "no difference shown,"


def _sentences(results: Results) -> str:
    slots = _slots(results, TOLD)
    others = [name for name in (MAJORITY, BLIND) if name in results.variants()]
    said = []
    gaps = _better(results, "sentences", slots, others)
    for slot in slots:
        rivals = ", ".join(
            f"{other} {_share(results, other, 'sentences', slot).mean:.1f} %"
            + ("" if gap.excludes_zero else ", no difference shown")
            for other, gap in zip(others, gaps[slot], strict=True)
        )
        said.append(f"{TOLD[slot]} {_share(results, FULL, 'sentences', slot).mean:.1f} % ({rivals})")
    return (
        f"**Sentences.** Asked for a description, its sentence is right about {'; '.join(said)}. "
        f"{results.data['val_sentences_not_in_training']} of the sentences of `val` do not occur in training. The "
        "majority is told whether it describes a pair or a street, the blind decoder is not."
    )


def _tokens(results: Results) -> str:
    others = [name for name in ("frames", "tracks") if name in results.variants()]
    if not others:
        return ""
    slots, said = _slots(results, ASKED), []
    gaps = _better(results, "answers", slots, others)
    for number, other in enumerate(others):
        without = "tracks" if other == "frames" else "frames"
        shown = [f"{ASKED[slot]} {gaps[slot][number].brief()}" for slot in slots if gaps[slot][number].excludes_zero]
        open_ = [ASKED[slot] for slot in slots if not gaps[slot][number].excludes_zero]
        text = f"Tokens of {without} beside those of {other} change answers about {', '.join(shown)}" if shown else ""
        rest = f"not shown to change those about {', '.join(open_)}" if open_ else ""
        said.append(
            f"{text}; {rest}." if shown and open_ else f"{text}." if shown else f"Tokens of {without} are {rest}."
        )
    return "**Which tokens.** " + " ".join(said)


def _rules(results: Results) -> str:
    if RULES not in results.variants():
        return ""
    slots, said = _slots(results, ASKED), []
    gaps = _better(results, "answers", slots, [RULES])
    for slot in slots:
        share, [gap] = _share(results, RULES, "answers", slot), gaps[slot]
        said.append(f"{ASKED[slot]} {share.mean:.1f} % (the decoder: {_verdict(gap)} {gap.brief()})")
    return (
        "**Without a decoder.** The same tokens read by rule, the action head on the surest track of a side and where "
        f"tracks went, are right about {'; '.join(said)}. Rules are a yardstick, not a bound: where they are better, "
        "the tokens hold more than the decoder learned to say."
    )


def _scope(results: Results) -> str:
    data = results.data
    parameters = results.values(FULL, "parameters")[0]
    counts = {len(results.measures(name)) for name in results.variants()}
    seeds = f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
    seeds = "One seed was" if seeds == "1" else f"{seeds} seeds a variant were"
    return (
        f"**Not shown.** This is small: {parameters:.0f} parameters, {data['words']} words, "
        f"{data['train_pairs'] + data['train_streets']} videos to learn from, and sentences made by template, so that "
        "nothing is said about how people describe videos. The pairs are clips put side by side. The model behind the "
        "tokens was trained with the labels and tracks of the very training videos (not of dev and val): there its "
        f"action head alone is right about {data['verbs_right_by_rule_in_training']} of what people do, so the decoder "
        f"learns from surer tokens than it is asked about. Streets of `val` are {data['val_stretches_of_streets']} "
        "stretches of two sequences, so few that their intervals come out too narrow, and those of dev, by which steps "
        f"are chosen, of two others. {seeds} run. "
        "Rate, steps and smoothing were set by a few looks at dev, not by a search, and serve all decoders alike. "
        "One seed had been scored on val with others before, and its weak answers about streets were why they were "
        "looked at again."
    )


def in_a_line(results: Results) -> Summary:
    """The row of the README."""
    others = [name for name in (MAJORITY, BLIND) if name in results.variants()]
    slots = _slots(results, ASKED)
    if FULL not in results.variants() or not others:
        return Summary("the decoder with all tokens or what it is compared with was not run", "open")
    gaps = _better(results, "answers", slots, others)
    shown = [slot for slot in slots if all(gap.low > 0 for gap in gaps[slot])]
    listed = [*others, RULES] if RULES in results.variants() else others
    said = []
    for slot in slots:
        own = _share(results, FULL, "answers", slot)
        rivals = ", ".join(f"{_share(results, other, 'answers', slot).mean:.0f}" for other in listed)
        said.append(f"{ASKED[slot]} {own.mean:.0f} % ({own.low:.0f} to {own.high:.0f}; {rivals})")
    measured = (
        f"a made-up corpus of {results.data['train_pairs'] + results.data['train_streets']} videos, answers on `val` "
        f"(in brackets its interval; {', '.join(listed)}): {', '.join(said)}"
    )
    if not shown:
        return Summary(measured, "not shown that the decoder says more than it would without video")
    rest = [ASKED[slot] for slot in slots if slot not in shown]
    verdict = f"in templates, it can put into words {', '.join(ASKED[slot] for slot in shown)}"
    verdict += f"; not shown for {', '.join(rest)}" if rest else ""
    ruled = _better(results, "answers", slots, [RULES]) if RULES in results.variants() else {}
    behind = [ASKED[slot] for slot, [gap] in ruled.items() if gap.high < 0]
    return Summary(
        measured, verdict + (f"; rules on the same tokens are better at {', '.join(behind)}" if behind else "")
    )


def draw_accuracy(results: Results, folder: Path) -> list[Plot]:
    """Answers by slot and variant."""
    slots, names = _slots(results, ASKED), results.variants()
    figure, axes = new_figure(2.1 + 2.3 * len(slots), 0.36 * len(names) + 1.2, columns=len(slots), sharey=True)
    for axis, slot in zip(axes[0], slots, strict=True):
        seeds = [100 * results.hits(name, "answers", slot).mean(1) for name in names]
        draw_intervals(axis, names, seeds, [_share(results, name, "answers", slot) for name in names])
        axis.set_title(ASKED[slot], fontsize=10)
        axis.set_xlim(0, 100)
    figure.supxlabel("answers on val that are right, % (dots: seeds; bars: 95 % intervals)", fontsize=10)
    save_figure(figure, folder / "answers.png")
    return [Plot("answers.png", "Answers to questions about `val`, by what the decoder sees and without a decoder.")]


def scene_table(results: Results) -> list[Table]:
    """A few scenes in words: their frames may not be passed on."""
    scenes = (results.measures(FULL)[0] if FULL in results.variants() else {}).get("shown", [])
    rows = [[scene["truth"][CAPTION], *_marked(scene)] for scene in scenes]
    caption = (
        "Scenes of `val`, evenly spaced and not picked, as the decoder with all tokens and seed 0 tells them "
        "(✓: right, ✗: wrong)."
    )
    return [Table(caption, ["what is true", "its sentence", "two of its answers"], rows)] if rows else []


def _marked(scene: dict) -> list[str]:
    """The sentence and two answers, each with whether it is right."""
    truth, said = scene["truth"], scene["said"]
    questions = (HOW_MANY, MOST) if HOW_MANY in truth else (DOES.format("left"), GOES.format("right"))
    marks = {question: "✓" if said[question] == truth[question] else "✗" for question in (CAPTION, *questions)}
    answers = [f"{question} – {said[question]} {marks[question]}" for question in questions]
    return [f"{said[CAPTION]} {marks[CAPTION]}", "; ".join(answers)]
