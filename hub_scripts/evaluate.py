"""Evaluation of a model in the form people run it: the session, over whole videos, at the shipped settings."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..processing.session_kinetrack import TASKS, KineTrackSession
from .ablation import ablated
from .atomic_files import write_atomically
from .data.sources import read_class_names
from .evaluation_actions import ActorClip, detect_actions, label_stability, read_actor, two_actors
from .evaluation_items import EXPECTED, LabelledClip, Sequence, check_sequences, list_items
from .evaluation_runs import RegionSession, Stopwatch, classify_people, track_sequence
from .metrics.action_metrics import score_actions
from .metrics.evaluation_report import evaluation_markdown

PERSON = {"person", "pedestrian"}
UNCERTAIN = "uncertain"


def evaluate(
    model,
    data,
    task: str = "both",
    output: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    half: str | None = None,
    fold: int = 1,
    detailed: bool = False,
    ablations: tuple[str, ...] = (),
    tracked_actors: bool = False,
    seed: int = 0,
    threshold: float | None = None,
    size: tuple[int, int] | None = None,
    tracker: dict | None = None,
    device: str | None = None,
    backend: str | None = None,
    allow_untrained: bool = False,
    progress: bool = False,
) -> dict:
    """Score a model on tracking sequences, on labelled clips, or on both.

    Sequences run frame by frame through `KineTrackSession` and are scored by TrackEval: pedestrians, or each class of a
    `gt/labels.txt` (as CVAT writes it) by itself, under `<sequence> (<class>)`. A clip's probabilities are the
    mean over its attention windows; its class is the name of its folder, looked up in `config.id2label` and then in
    `config.label_groups`. Where the labelled actor of a clip has boxes (`<clip>.txt` beside it, or by class in
    `<part>_boxes` beside `<part>`), the actor is scored as well, by the rule that tracks follow in a session.

    Args:
        model: name, folder or Hub id for `load_model`, or a pair `(model, processor)`.
        data: a folder that holds MOTChallenge sequences, folders of clips by class, or both, at any depth; or a list of
            `Sequence` and `LabelledClip`.
        task: "tracking", "actions" or "both".
        output: folder for `evaluation.json`, `evaluation.md`, `tracks/<sequence>.txt` and figures, such as
            `failures_<sequence>.jpg`, the frames in which tracking fails worst.
        split: "val" or "dev": only what that committed list names below `data` (tracking on "val": `mot/val`).
            "test": the test clips of UCF-101, HMDB-51, a CSV file or class folders.
        half: "val" for the second half of every sequence, "train" for the first, as MOT17 is usually split.
        fold: which official split of UCF-101 or HMDB-51, for the split "test".
        detailed: also two actors, label stability, action detection and the labels of people in the sequences.
        ablations: any of `ABLATIONS`; each runs the sequences and clips once more.
        tracked_actors: two actors also through the boxes of the session's own tracks.
        seed: of the pairs of two actors.
        threshold: detection score, the model's own by default.
        size: (height, width) of the model input, fitted to each video by default.
        tracker: settings of `KineTracker` other than the model's own.
        device: where `load_model` puts the model.
        backend: what runs it, as for `load_model`; ablations need PyTorch, which is also the default.
        allow_untrained: accept a model whose `config.trained` is False.
        progress: show a progress bar.

    Returns:
        `{"model", "data", "task", "backend", "tracking": {sequence: scores, "COMBINED": scores}, "actions": {group:
        scores}, "speed"}`; `actions` has the primary labels under "actions" and further groups under their names. With
        actors' boxes also `"people"`; with `detailed`, as far as the data and the heads allow, `"two_actors"`,
        `"label_stability"`, `"action_detection"` and `"people_labels"`; with `ablations`, `"ablations": {kind: …}`.

    Raises:
        ValueError: an unknown task, split or ablation, nothing to evaluate, two sequences of one name, a video that
            does not fit its ground truth, or a class that the model does not know.
        FileNotFoundError: if `data` does not exist.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
    items = list_items(data, split, half, fold)
    sequences = [item for item in items if isinstance(item, Sequence)] if task != "actions" else []
    clips = [item for item in items if isinstance(item, LabelledClip)] if task != "tracking" else []
    if not sequences and not clips:
        raise ValueError(f"Nothing to evaluate for task={task!r} in {data}: {EXPECTED}")
    check_sequences(sequences)
    name = model if isinstance(model, str | os.PathLike) else type(model[0]).__name__
    if isinstance(model, str | os.PathLike):
        from ..processing.loading import load_model

        chosen = "torch" if ablations and backend == "auto" else backend
        model = load_model(model, device, allow_untrained=allow_untrained, backend=chosen)
    options = {"threshold": threshold, "size": size, "tracker": tracker, "allow_untrained": allow_untrained}
    evaluation = Evaluation(*model, sequences, clips, options)
    if ablations and getattr(evaluation.model, "backend", "torch") != "torch":
        raise ValueError(f"Ablations need backend='torch', not {backend!r}: they reach into the model.")
    for kind in ablations:
        with ablated(evaluation.model, kind):  # an unknown one is refused before hours of work
            pass
    report = {"model": str(name), "data": str(data) if not isinstance(data, list) else "listed items", "task": task}
    report["backend"] = getattr(evaluation.model, "backend", "torch")
    stopwatch = Stopwatch()
    with _progress_bar((len(sequences) + len(clips)) * (1 + len(ablations)), progress) as advance:
        rows = evaluation.run(report, stopwatch, advance, with_labels=detailed)
        report["speed"] = stopwatch.summary()
        for kind in ablations:
            with ablated(evaluation.model, kind):
                without: dict = {}
                evaluation.run(without, Stopwatch(), advance)
            report.setdefault("ablations", {})[kind] = _headlines(without)
    if detailed:
        report |= evaluation.details(seed, tracked_actors)
    if output is not None:
        _write_report(Path(output), report, rows, evaluation.scored)
    return report


class Evaluation:
    """One model and what it is to be measured on.

    Args:
        model: a KineTrack model with heads.
        processor: its video processor.
        sequences: for tracking.
        clips: for actions.
        options: of `KineTrackSession`, without `task`.
    """

    def __init__(self, model, processor, sequences: list[Sequence], clips: list[LabelledClip], options: dict):
        self.model, self.processor, self.options = model, processor, options
        self.sequences, self.clips = sequences, clips
        self.names = {
            "actions": [model.config.id2label[number] for number in sorted(model.config.id2label)],
            **(model.config.label_groups or {}),
        }
        self.targets = [self._target(clip) for clip in clips]
        self.scored = [item for sequence in sequences for item in scored_objects(model.config, sequence)]
        self._actors = {}

    def run(self, report: dict, stopwatch: Stopwatch, advance, with_labels: bool = False) -> dict[str, np.ndarray]:
        """Every sequence and every clip once; fills the report, returns the tracks as `track_sequence` gives them."""
        rows = {}
        if self.sequences:
            task = "both" if with_labels and getattr(self.model, "action_head", None) is not None else "tracking"
            session = KineTrackSession(self.model, self.processor, task=task, **self.options)
            for sequence in self.sequences:
                scored = [item for item in self.scored if item.sequence is sequence]
                tracks, people = track_sequence(session, sequence, [item.label for item in scored], stopwatch)
                rows |= {item.name: found for item, found in zip(scored, tracks, strict=True)}
                if task == "both":
                    report.setdefault("people_labels", {})[scored[0].name] = self._count_labels(people)
                advance(sequence.folder.name)
            report["tracking"] = _score_tracks(rows, self.scored)
        if self.clips:
            self._run_clips(report, stopwatch, advance)
        return rows

    def details(self, seed: int, tracked: bool) -> dict:
        """Two actors, label stability and action detection, as far as there are clips and heads for them."""
        primary = [
            (clip.path, label)
            for clip, (group, label) in zip(self.clips, self.targets, strict=True)
            if group == "actions"
        ]
        actors = [actor for actor in map(self._actor, range(len(self.clips))) if actor is not None]
        tracks = getattr(self.model, "tracking_head", None) is not None
        found = {}
        if len({actor.label for actor in actors}) > 1:
            found["two_actors"] = two_actors(
                self.model, self.processor, actors, seed, tracked and tracks, **self.options
            )
        if primary:
            found["label_stability"] = label_stability(self.model, self.processor, primary, **self.options)
        if actors and tracks and PERSON & set(self.model.config.object_classes):
            person = person_label(self.model.config)
            found["action_detection"] = detect_actions(
                self.model, self.processor, actors, person, self.names["actions"], **self.options
            )
        return found

    def _run_clips(self, report: dict, stopwatch: Stopwatch, advance) -> None:
        session = RegionSession(self.model, self.processor, **self.options)
        found, people = [], []
        for number, clip in enumerate(self.clips):
            actor = self._actor(number)
            boxes = None if actor is None else actor.boxes[:, None]
            probabilities, persons = classify_people(session, clip.path, boxes, stopwatch)
            found.append(probabilities)
            if actor is not None and persons[0] is not None:
                people.append((persons[0], probabilities["actions"], actor.label))
            advance(clip.path.name)
        report["actions"] = {}
        for group in dict.fromkeys(group for group, _ in self.targets):
            rows = [number for number, (name, _) in enumerate(self.targets) if name == group]
            report["actions"][group] = score_actions(
                np.stack([found[row][group] for row in rows]),
                np.array([self.targets[row][1] for row in rows]),
                self.names[group],
            )
        if people:
            persons, clips, labels = (np.stack(column) for column in zip(*people, strict=True))
            report["people"] = score_actions(persons, labels, self.names["actions"])
            report["people"]["clip_top1"] = 100 * float((clips.argmax(1) == labels).mean())
            report["people"]["relative_to_clip"] = report["people"]["top1"] - report["people"]["clip_top1"]

    def _target(self, clip: LabelledClip) -> tuple[str, int]:
        """Label group and class number of a clip."""
        for group, labels in self.names.items():
            if clip.label in labels:
                return group, list(labels).index(clip.label)
        known = [label for labels in self.names.values() for label in labels]
        raise ValueError(f"{clip.path}: the model has no class {clip.label!r}. It knows {', '.join(known)}.")

    def _actor(self, number: int) -> ActorClip | None:
        """The clip's labelled actor; only the primary group says what a person does."""
        group, label = self.targets[number]
        if number not in self._actors:
            self._actors[number] = read_actor(self.clips[number], label) if group == "actions" else None
        return self._actors[number]

    def _count_labels(self, people: dict[int, np.ndarray]) -> dict:
        """How many identities have which label, as `analyze` names them: "uncertain" below the action threshold."""
        counts: dict[str, int] = {}
        likeliest: dict[str, int] = {}
        for probabilities in people.values():
            best = self.names["actions"][int(probabilities.argmax())]
            likeliest[best] = likeliest.get(best, 0) + 1
            label = best if probabilities.max() >= self.model.config.action_threshold else UNCERTAIN
            counts[label] = counts.get(label, 0) + 1
        ordered = [dict(sorted(table.items(), key=lambda entry: -entry[1])) for table in (counts, likeliest)]
        return {"identities": len(people), "labels": ordered[0], "likeliest": ordered[1]}


def _headlines(report: dict) -> dict:
    """What an ablation is compared by."""
    kept = {}
    if "tracking" in report:
        kept["tracking"] = {
            name: {key: scores[key] for key in ("HOTA", "IDF1", "MOTA")} for name, scores in report["tracking"].items()
        }
    if "actions" in report:
        kept["actions"] = {group: {"top1": scores["top1"]} for group, scores in report["actions"].items()}
    if "people" in report:
        kept["people"] = {"top1": report["people"]["top1"]}
    return kept


@dataclass(frozen=True)
class ScoredObjects:
    """The objects of one class in a sequence.

    Attributes:
        name: of the sequence, and of the class where there are several.
        sequence: where they are.
        label: the model's number of the class.
        number: that of the ground truth; None for the pedestrians of MOTChallenge.
    """

    name: str
    sequence: Sequence
    label: int
    number: int | None = None


def scored_objects(config, sequence: Sequence) -> list[ScoredObjects]:
    """What of a sequence is scored: pedestrians, or every class of its `gt/labels.txt` that the model knows.

    Raises:
        ValueError: the model knows none of them.
    """
    folder, known = sequence.folder, list(config.object_classes)
    own = read_class_names(folder)
    if own is None:
        return [ScoredObjects(folder.name, sequence, person_label(config))]
    shared = [name for name in known if name in own]
    if not shared:
        raise ValueError(f"{folder}: labels.txt names {', '.join(own)}; this model detects {', '.join(known)}.")
    return [
        # The name becomes that of a file.
        ScoredObjects(f"{folder.name} ({name.replace('/', '-')})", sequence, known.index(name), own.index(name) + 1)
        for name in shared
    ]


def _score_tracks(rows: dict[str, np.ndarray], scored: list[ScoredObjects]) -> dict:
    """Scores by TrackEval; imported here because `datasets` is slow to import and only needed for this."""
    from .metrics.mot_metrics import score_tracks

    return score_tracks(
        rows,
        {item.name: item.sequence.folder for item in scored},
        frames={item.name: item.sequence.part for item in scored if item.sequence.part},
        classes={item.name: item.number for item in scored if item.number is not None},
    )


def person_label(config) -> int:
    """The object class that MOTChallenge annotates."""
    classes = list(config.object_classes)
    for number, name in enumerate(classes):
        if name in PERSON:
            return number
    raise ValueError(f"MOTChallenge sequences annotate persons; this model detects {classes}.")


def _write_report(folder: Path, report: dict, rows: dict[str, np.ndarray], scored: list[ScoredObjects]) -> None:
    """Write everything, each file whole or not at all."""
    from .evaluation_failures import draw_failures
    from .metrics.evaluation_figures import evaluation_figures

    (folder / "tracks").mkdir(parents=True, exist_ok=True) if rows else folder.mkdir(parents=True, exist_ok=True)
    files = {
        folder / "evaluation.json": json.dumps(_without_curves(report), indent=2),
        folder / "evaluation.md": evaluation_markdown(report),
        **{folder / name: content for name, content in evaluation_figures(report).items()},
    }
    for name, tracks in rows.items():
        lines = (
            f"{int(r[0])},{int(r[1])},{r[2]:.2f},{r[3]:.2f},{r[4]:.2f},{r[5]:.2f},{r[6]:.4f},-1,-1,-1\n" for r in tracks
        )
        files[folder / "tracks" / f"{name}.txt"] = "".join(lines)
    for item in scored:
        picture = draw_failures(item.sequence, rows[item.name], item.number)
        if picture is not None:
            files[folder / f"failures_{item.name}.jpg"] = picture
    for path, content in files.items():
        write_atomically(path, content)


def _without_curves(report: dict) -> dict:
    """The report without the thousands of points that only the figure shows."""
    if "action_detection" not in report:
        return report
    detection = {key: value for key, value in report["action_detection"].items() if key != "curves"}
    return report | {"action_detection": detection}


@contextlib.contextmanager
def _progress_bar(total: int, visible: bool):
    """A function to call with the name of each finished video."""
    from tqdm import tqdm

    with tqdm(total=total, disable=not visible, unit="video") as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        yield advance
