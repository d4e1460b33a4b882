"""Evaluation of a model in the form people run it: the session, over whole videos, at the shipped settings."""

import configparser
import contextlib
import json
import os
import re
import time as clock
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..processing.decoding_kinetrack import VideoFrame, iter_video_frames, probe_video
from ..processing.session_kinetrack import KineTrackSession
from .data.sources import VIDEO_SUFFIXES
from .data.splits import parse_item, read_split
from .metrics.action_metrics import score_actions
from .metrics.evaluation_report import evaluation_markdown

TASKS = ("tracking", "actions", "both")


@dataclass(frozen=True)
class Sequence:
    """A MOTChallenge sequence, or a part of one.

    Attributes:
        folder: holds `video.mp4` or `img1/`, `gt/gt.txt` and `seqinfo.ini`.
        part: first and last frame to run and score, from 1; None: all.
    """

    folder: Path
    part: tuple[int, int] | None = None


@dataclass(frozen=True)
class LabelledClip:
    """A video and the name of what happens in it."""

    path: Path
    label: str


def evaluate(
    model,
    data,
    task: str = "both",
    output: str | os.PathLike | None = None,
    *,
    split: str | None = None,
    threshold: float | None = None,
    size: tuple[int, int] | None = None,
    tracker: dict | None = None,
    device: str | None = None,
    allow_untrained: bool = False,
    progress: bool = False,
) -> dict:
    """Score a model on tracking sequences, on labelled clips, or on both.

    Sequences run frame by frame through `KineTrackSession` and are scored by TrackEval. A clip's probabilities are the
    mean over
    its attention windows; its class is the name of its folder, looked up in `config.id2label` and then in
    `config.label_groups`.

    Args:
        model: name, folder or Hub id for `load_model`, or a pair `(model, processor)`.
        data: a folder that holds MOTChallenge sequences, folders of clips by class, or both, at any depth; or a list of
            `Sequence` and `LabelledClip`.
        task: "tracking", "actions" or "both".
        output: folder for `evaluation.json`, `evaluation.md` and `tracks/<sequence>.txt`.
        split: "val" or "dev": only what that committed list names below `data` (tracking on "val": `mot/val`).
        threshold: detection score, the model's own by default.
        size: (height, width) of the model input, fitted to each video by default.
        tracker: settings of `KineTracker` other than the model's own.
        device: where `load_model` puts the model.
        allow_untrained: accept a model whose `config.trained` is False.
        progress: show a progress bar.

    Returns:
        `{"model", "data", "task", "tracking": {sequence: scores, "COMBINED": scores}, "actions": {group: scores},
        "speed"}`;
        `actions` has the primary labels under "actions" and further groups under their names.

    Raises:
        ValueError: an unknown task or split, nothing to evaluate, a video that does not fit its ground truth, or a
        class that the
            model does not know.
        FileNotFoundError: if `data` does not exist.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}.")
    items = _listed(data, split)
    sequences = [item for item in items if isinstance(item, Sequence)] if task != "actions" else []
    clips = [item for item in items if isinstance(item, LabelledClip)] if task != "tracking" else []
    if not sequences and not clips:
        raise ValueError(f"Nothing to evaluate for task={task!r} in {data}: {_EXPECTED}")
    for sequence in sequences:
        _check_sequence(sequence)
    name = model if isinstance(model, str | os.PathLike) else type(model[0]).__name__
    if isinstance(model, str | os.PathLike):
        from ..processing.loading import load_model

        model = load_model(model, device, allow_untrained=allow_untrained)
    model, processor = model
    targets = [_target(clip, model.config) for clip in clips]
    options = {"threshold": threshold, "size": size, "tracker": tracker, "allow_untrained": allow_untrained}
    stopwatch = Stopwatch()
    report = {"model": str(name), "data": str(data) if not isinstance(data, list) else "listed items", "task": task}
    with _progress_bar(len(sequences) + len(clips), progress) as advance:
        if sequences:
            rows = {}
            session = KineTrackSession(model, processor, task="tracking", **options)
            person = _person_label(model.config)
            for sequence in sequences:
                rows[sequence.folder.name] = track_sequence(session, sequence, person, stopwatch)
                advance(sequence.folder.name)
            report["tracking"] = _score_sequences(rows, sequences)
        if clips:
            session = KineTrackSession(model, processor, task="actions", **options)
            found = []
            for clip in clips:
                found.append(classify_clip(session, clip.path, stopwatch))
                advance(clip.path.name)
            report["actions"] = _score_clips(found, targets, model.config)
    report["speed"] = stopwatch.summary()
    if output is not None:
        _write_report(Path(output), report, rows if sequences else {})
    return report


class Stopwatch:
    """Adds up where the time of many frames went."""

    def __init__(self):
        self.frames, self.seconds, self.parts = 0, 0.0, {}

    def follow(self, results) -> Iterator:
        """Pass a session's results through, timing them."""
        start = clock.perf_counter()
        for result in results:
            self.frames += 1
            for part, seconds in result.timings.items():
                self.parts[part] = self.parts.get(part, 0.0) + seconds
            self.seconds += clock.perf_counter() - start
            yield result
            start = clock.perf_counter()

    def summary(self) -> dict:
        """Frames, frames a second, and milliseconds a frame by part."""
        frames = max(self.frames, 1)
        return {
            "frames": self.frames,
            "frames_per_second": self.frames / max(self.seconds, 1e-9),
            "milliseconds": {part: 1000 * seconds / frames for part, seconds in self.parts.items()},
        }


def track_sequence(session: KineTrackSession, sequence: Sequence, person: int, stopwatch: Stopwatch) -> np.ndarray:
    """Run a session over a sequence.

    Returns:
        MOTChallenge rows `(N, 7)`: frame from 1, identity, left, top, width, height in pixels of the video, score.

    Raises:
        ValueError: if the video has another length or size than `seqinfo.ini` says.
    """
    session.reset()
    info = read_sequence_info(sequence.folder)
    first, last = sequence.part or (1, info["seqLength"])
    rows, seen = [np.zeros((0, 7))], 0
    for result in stopwatch.follow(session.run(_sequence_frames(sequence.folder, info, first, last))):
        seen += 1
        if (result.width, result.height) != (info["imWidth"], info["imHeight"]):
            raise ValueError(
                f"{sequence.folder.name}: the video is {result.width}×{result.height}, but seqinfo.ini says "
                f"{info['imWidth']}×{info['imHeight']}: the boxes would not fit."
            )
        people = result.labels == person
        boxes = result.boxes[people].astype(np.float64)
        ids, scores = result.track_ids[people], result.scores[people]
        frame = np.full(len(ids), first + seen - 1)
        rows.append(np.column_stack([frame, ids, boxes[:, :2], boxes[:, 2:] - boxes[:, :2], scores]))
    if seen != last - first + 1:
        raise ValueError(
            f"{sequence.folder.name}: seqinfo.ini says {info['seqLength']} frames, the video gave {seen} of frames "
            f"{first} to {last}. Is it another cut or frame rate?"
        )
    return np.concatenate(rows)


def classify_clip(session: KineTrackSession, path: Path, stopwatch: Stopwatch) -> dict[str, np.ndarray]:
    """Action probabilities of a whole clip, the mean over its attention windows.

    A window ends every `attention_window` ticks; what is left at the end counts if it is at least half a window, or
    all there is.

    Returns:
        `{"actions": (num_labels,), group: (n,) …}`.
    """
    session.reset()
    window = session.model.config.attention_window
    kept, ticks, last = [], 0, None
    for result in stopwatch.follow(session.run(path)):
        if not result.updated:
            continue
        ticks += 1
        last = {"actions": result.clip_action, **result.group_actions}
        if window and ticks % window == 0:
            kept.append(last)
    rest = ticks % window if window else ticks
    if last is not None and rest and (not kept or rest >= window / 2):
        kept.append(last)
    if not kept:
        raise ValueError(f"{path}: no frame of this clip reached the temporal part.")
    return {name: np.mean([entry[name] for entry in kept], axis=0) for name in kept[0]}


def find_items(root: Path) -> list[Sequence | LabelledClip]:
    """MOTChallenge sequences and clips in class folders anywhere below a folder.

    Of the detector copies of a MOT17 sequence (`-DPM`, `-FRCNN`, `-SDP`: the same video) only one is taken.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"No such folder: {root}")
    folders = sorted(file.parent.parent for file in root.rglob("gt/gt.txt"))
    if (root / "gt" / "gt.txt").is_file():
        folders = [root]
    once = {re.sub(r"-(DPM|FRCNN|SDP)$", "", str(folder)): folder for folder in reversed(folders)}
    videos = (path for path in sorted(root.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
    clips = [LabelledClip(path, path.parent.name) for path in videos if path.parent not in folders]
    return [*map(Sequence, sorted(once.values())), *clips]


def read_sequence_info(folder: Path) -> dict[str, int | float]:
    """`seqLength`, `imWidth`, `imHeight` and `frameRate` of a sequence.

    Raises:
        ValueError: if `seqinfo.ini` is missing or lacks one of them.
    """
    ini = configparser.ConfigParser()
    if not ini.read(folder / "seqinfo.ini") or "Sequence" not in ini:
        raise ValueError(
            f"{folder} has no seqinfo.ini with a [Sequence] part: write seqLength, imWidth, imHeight, frameRate."
        )
    try:
        info = {key: int(ini["Sequence"][key]) for key in ("seqLength", "imWidth", "imHeight")}
        return info | {"frameRate": float(ini["Sequence"]["frameRate"])}
    except (KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'seqinfo.ini'}: missing or malformed {error}.") from error


_EXPECTED = (
    "expected MOTChallenge sequence folders (video.mp4 or img1/, gt/gt.txt, seqinfo.ini) for tracking and clips in "
    "folders named by class for actions."
)


def _listed(data, split: str | None) -> list[Sequence | LabelledClip]:
    """What is to be evaluated, as a list."""
    if split is not None and split not in ("val", "dev"):
        raise ValueError(f"split must be 'val', 'dev' or None, got {split!r}.")
    if not isinstance(data, str | os.PathLike):
        return list(data)
    root = Path(data)
    if split is None:
        return find_items(root)
    if not root.is_dir():
        raise FileNotFoundError(f"No such folder: {root}")
    items = []
    for name, part in map(parse_item, read_split(split)):
        path = root / name
        if path.exists():
            items.append(Sequence(path, part) if path.is_dir() else LabelledClip(path, path.parent.name))
    if split == "val" and (root / "mot" / "val").is_dir():
        items += [item for item in find_items(root / "mot" / "val") if isinstance(item, Sequence)]
    return items


def _check_sequence(sequence: Sequence) -> None:
    """Fail before hours of work, not after."""
    folder = sequence.folder
    if not (folder / "gt" / "gt.txt").is_file():
        raise FileNotFoundError(f"No such file: {folder / 'gt' / 'gt.txt'}")
    info = read_sequence_info(folder)
    if not (folder / "video.mp4").is_file() and not (folder / "img1").is_dir():
        raise FileNotFoundError(f"{folder} holds neither video.mp4 nor img1/.")
    if sequence.part and not 1 <= sequence.part[0] <= sequence.part[1] <= info["seqLength"]:
        raise ValueError(f"{folder.name} has frames 1 to {info['seqLength']}; part {sequence.part} does not fit.")


def _sequence_frames(folder: Path, info: dict, first: int, last: int) -> Iterator[VideoFrame]:
    """Frames `first` to `last` of a sequence's video or images."""
    if (folder / "video.mp4").is_file():
        count = probe_video(folder / "video.mp4").num_frames
        if count is not None and count != info["seqLength"]:
            raise ValueError(f"{folder.name}: video.mp4 has {count} frames, seqinfo.ini says {info['seqLength']}.")
        for number, frame in enumerate(iter_video_frames(folder / "video.mp4"), start=1):
            if number > last:
                return
            if number >= first:
                yield frame
        return
    from PIL import Image

    images = sorted(path for path in (folder / "img1").iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for number in range(first, min(last, len(images)) + 1):
        with Image.open(images[number - 1]) as image:
            yield VideoFrame(np.asarray(image.convert("RGB")), (number - 1) / info["frameRate"], number - 1)


def _score_sequences(rows: dict[str, np.ndarray], sequences: list[Sequence]) -> dict:
    """Scores by TrackEval; imported here because `datasets` is slow to import and only needed for this."""
    from .metrics.mot_metrics import score_tracks

    return score_tracks(
        rows,
        {sequence.folder.name: sequence.folder for sequence in sequences},
        frames={sequence.folder.name: sequence.part for sequence in sequences if sequence.part},
    )


def _person_label(config) -> int:
    """The object class that MOTChallenge annotates."""
    classes = list(config.object_classes)
    for name in ("person", "pedestrian"):
        if name in classes:
            return classes.index(name)
    raise ValueError(f"MOTChallenge sequences annotate persons; this model detects {classes}.")


def _target(clip: LabelledClip, config) -> tuple[str, int]:
    """Label group and class number of a clip."""
    names = {str(name): int(number) for number, name in config.id2label.items()}
    if clip.label in names:
        return "actions", names[clip.label]
    for group, labels in (config.label_groups or {}).items():
        if clip.label in labels:
            return group, labels.index(clip.label)
    known = [*names, *(label for labels in (config.label_groups or {}).values() for label in labels)]
    raise ValueError(f"{clip.path}: the model has no class {clip.label!r}. It knows {', '.join(known)}.")


def _score_clips(found: list[dict], targets: list[tuple[str, int]], config) -> dict:
    """Scores by label group."""
    names = {"actions": [config.id2label[number] for number in sorted(config.id2label)], **(config.label_groups or {})}
    scores = {}
    for group in dict.fromkeys(group for group, _ in targets):
        rows = [number for number, (name, _) in enumerate(targets) if name == group]
        scores[group] = score_actions(
            np.stack([found[row][group] for row in rows]), np.array([targets[row][1] for row in rows]), names[group]
        )
    return scores


def _write_report(folder: Path, report: dict, rows: dict[str, np.ndarray]) -> None:
    """Write everything, each file whole or not at all."""
    (folder / "tracks").mkdir(parents=True, exist_ok=True) if rows else folder.mkdir(parents=True, exist_ok=True)
    files = {
        folder / "evaluation.json": json.dumps(report, indent=2),
        folder / "evaluation.md": evaluation_markdown(report),
    }
    for name, tracks in rows.items():
        lines = (
            f"{int(r[0])},{int(r[1])},{r[2]:.2f},{r[3]:.2f},{r[4]:.2f},{r[5]:.2f},{r[6]:.4f},-1,-1,-1\n" for r in tracks
        )
        files[folder / "tracks" / f"{name}.txt"] = "".join(lines)
    for path, text in files.items():
        partial = path.with_name(path.name + ".partial")
        partial.write_text(text)
        os.replace(partial, path)


@contextlib.contextmanager
def _progress_bar(total: int, visible: bool):
    """A function to call with the name of each finished video."""
    from tqdm import tqdm

    with tqdm(total=total, disable=not visible, unit="video") as bar:

        def advance(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        yield advance
