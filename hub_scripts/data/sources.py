"""From a data root to datasets: who is where on the disk, and which list keeps it out of training.

The layout is that of a MOTChallenge folder (`mot/train/<sequence>/`) beside folders of class folders
(`actions/<set>/train/<class>/<clip>.mp4`), with boxes in sister folders (`train_boxes`, `train_people`).
"""

import configparser
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from .annotations import read_actor_boxes, read_mot_ground_truth, read_people
from .augmentation import ClipForm
from .clips import NO_LABEL, ActionClips, ClipSource, MotClips
from .frames import FrameStore
from .keypoints import read_keypoints
from .splits import GAP_FRAMES, SPLITS_DIR, group_sources, parse_item, read_split, source_key

ACTION_SET = "jhmdb"
FIGHT_SET = "surveillance_fight"
FIGHT_GROUP = {"noFight": 0, "fight": 1}
VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm"}


def read_sequence(
    folder: str | os.PathLike,
    name: str | None = None,
    part: tuple[int, int] | None = None,
    cache: str | os.PathLike | None = None,
    min_visibility: float = 0.15,
    classes: list[str] | None = None,
) -> ClipSource:
    """Reads one MOTChallenge sequence folder.

    Args:
        folder: Holds `video.mp4` or `img1/`, `gt/gt.txt` and, for an image folder, `seqinfo.ini`.
        name: Name of the sequence, which makes its identities unique; the folder's by default.
        part: First and last frame in use, from 1.
        cache: Folder for decoded frames.
        min_visibility: Pedestrians seen less than this are ignored.
        classes: The model's object classes, for a sequence whose `gt/labels.txt` names its own; else all are people.

    Raises:
        ValueError: `part` does not lie in the sequence, or `labels.txt` names a class that is not in `classes`.
        FileNotFoundError: There is neither a video nor a folder of images, or no ground truth.
    """
    folder = Path(folder)
    name = name or folder.name
    video, images = folder / "video.mp4", folder / "img1"
    if not video.is_file() and not images.is_dir():
        raise FileNotFoundError(f"{folder} is no MOT sequence: it holds neither video.mp4 nor img1/.")
    frames = FrameStore(video if video.is_file() else images, _sequence_frame_rate(folder), cache)
    first, last = part or (1, frames.num_frames)
    if not 1 <= first <= last <= frames.num_frames:
        raise ValueError(f"{name}: frames {first}-{last} do not lie within its {frames.num_frames} frames.")
    numbers = _class_numbers(folder, classes) if classes else None
    boxes = read_mot_ground_truth(folder / "gt" / "gt.txt", name, min_visibility, numbers)
    return ClipSource(name, frames, first - 1, last, boxes, stratum=folder.name)


def read_class_names(folder: Path) -> list[str] | None:
    """Classes 1, 2, … of a sequence, from its `gt/labels.txt` as CVAT writes it; None without one."""
    file = folder / "gt" / "labels.txt"
    if not file.is_file():
        return None
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _class_numbers(folder: Path, classes: list[str]) -> dict[int, int] | None:
    """The model's class for each class of a sequence's file."""
    own = read_class_names(folder)
    if own is None:
        return None
    if set(own) - set(classes):
        raise ValueError(f"{folder}: labels.txt names {sorted(set(own) - set(classes))}, the model knows {classes}.")
    return {number: classes.index(name) for number, name in enumerate(own, start=1)}


def read_seqinfo(folder: Path) -> Mapping[str, str]:
    """What a sequence's `seqinfo.ini` says, nothing where there is none; names in any case.

    Raises:
        ValueError: the file is malformed.
    """
    file, parser = folder / "seqinfo.ini", configparser.ConfigParser()
    try:
        return parser["Sequence"] if parser.read(file, encoding="utf-8") else {}
    except (configparser.Error, UnicodeDecodeError, KeyError) as error:
        raise ValueError(
            f"{file} is malformed ({str(error).splitlines()[0]}): expected [Sequence] and below it seqLength, imWidth, "
            "imHeight and frameRate, `name=value` on a line each."
        ) from error


def _sequence_frame_rate(folder: Path) -> float | None:
    rate = read_seqinfo(folder).get("frameRate")
    try:
        return None if rate is None else float(rate)
    except ValueError:
        raise ValueError(f"{folder / 'seqinfo.ini'}: frameRate must be a number, got {rate!r}.") from None


def read_labelled_clip(
    root: str | os.PathLike,
    name: str,
    cache: str | os.PathLike | None = None,
    label: int = NO_LABEL,
    group_labels: dict[str, int] | None = None,
) -> ClipSource:
    """Reads one clip of a class folder with the boxes that lie beside it.

    Args:
        root: Data root.
        name: `<set>/<part>/<class>/<clip>` below it; boxes are looked for in `<set>/<part>_boxes/<class>/<clip>.txt`
            (the actor), `<set>/<part>_people/...` (everybody, machine-made) and `<set>/<part>_keypoints/...` (the
            actor's joints, machine-made).
        cache: Folder for decoded frames.
        label: Index of the action.
        group_labels: Index within each further label group.
    """
    return open_clip(Path(root) / name, name, cache, label, group_labels)


def open_clip(
    path: Path,
    name: str,
    cache: str | os.PathLike | None = None,
    label: int = NO_LABEL,
    group_labels: dict[str, int] | None = None,
) -> ClipSource:
    """Opens one clip and reads the boxes that lie beside it or, by class, beside its part; see `read_labelled_clip`."""
    frames = FrameStore(path, cache=cache)
    actor_file, people_file, keypoints_file = (
        find_actor_boxes(path),
        _beside(path, "people"),
        _beside(path, "keypoints"),
    )
    actor = None if actor_file is None else read_actor_boxes(actor_file, frames.num_frames)
    # Without a look for everybody, a person in the background would be taught as background.
    boxes = read_people(people_file, name, actor) if people_file.is_file() else None
    keypoints = (
        read_keypoints(keypoints_file, frames.num_frames) if actor is not None and keypoints_file.is_file() else None
    )
    return ClipSource(
        name,
        frames,
        0,
        frames.num_frames,
        boxes,
        actor,
        label,
        group_labels or {},
        stratum=path.parent.name,
        keypoints=keypoints,
    )


def find_actor_boxes(clip: Path) -> Path | None:
    """The boxes of a clip's labelled actor: `<clip>.txt` or, by class, beside its part; None where there are none."""
    return next((file for file in (clip.with_suffix(".txt"), _beside(clip, "boxes")) if file.is_file()), None)


def _beside(clip: Path, kind: str) -> Path:
    """`<part>_<kind>/<class>/<clip>.txt` beside `<part>`."""
    part = clip.parent.parent
    return part.with_name(f"{part.name}_{kind}") / clip.parent.name / f"{clip.stem}.txt"


def _held_out(splits: str | os.PathLike) -> dict[str, tuple[int, int] | None]:
    """Every listed path with its frame range, None for all of it."""
    return dict(parse_item(item) for part in ("val", "dev") for item in read_split(part, splits))


def _training_range(source: ClipSource, part: tuple[int, int]) -> tuple[int, int] | None:
    """The longer side of a sequence that is left around a listed part and the gap on either side of it."""
    before = (source.first, max(source.first, part[0] - 1 - GAP_FRAMES))
    after = (min(source.stop, part[1] + GAP_FRAMES), source.stop)
    longer = max(before, after, key=lambda bounds: bounds[1] - bounds[0])
    return longer if longer[1] > longer[0] else None


def mot_sources(
    root: str | os.PathLike,
    part: str = "train",
    cache: str | os.PathLike | None = None,
    splits: str | os.PathLike = SPLITS_DIR,
    min_visibility: float = 0.15,
) -> list[ClipSource]:
    """The MOT sequences of one part, sorted by name.

    Args:
        root: Data root that holds `mot/`.
        part: `"train"` (`mot/train` less what the lists name, and a gap of 30 frames about a listed stretch), `"dev"`
            (what `dev.txt` names) or `"val"` (`mot/val`: for reporting).
        cache: Folder for decoded frames.
        splits: Folder of the lists.
        min_visibility: Pedestrians seen less than this are ignored.

    Raises:
        ValueError: No such part.
    """
    root = Path(root)
    if part == "dev":
        items = [parse_item(item) for item in read_split("dev", splits) if item.startswith("mot/")]
        items = [item for item in items if (root / item[0]).is_dir()]
        return [read_sequence(root / name, name, frames, cache, min_visibility) for name, frames in sorted(items)]
    if part not in ("train", "val"):
        raise ValueError(f"part={part!r}: expected 'train', 'dev' or 'val'.")
    held_out = _held_out(splits) if part == "train" else {}
    sources = []
    for truth in sorted((root / "mot" / part).glob("**/gt/gt.txt")):
        folder = truth.parent.parent
        name = folder.relative_to(root).as_posix()
        if name in held_out and held_out[name] is None:
            continue
        source = read_sequence(folder, name, None, cache, min_visibility)
        if name in held_out:
            bounds = _training_range(source, held_out[name])
            if bounds is None:
                continue
            source.first, source.stop = bounds
        sources.append(source)
    return sources


def action_names(root: str | os.PathLike) -> list[str]:
    """The actions of the primary label group, in the order of their indices: class folders sorted by name."""
    folder = Path(root) / "actions" / ACTION_SET / "train"
    if not folder.is_dir():
        raise FileNotFoundError(f"No labelled clips at {folder}. Expected one folder a class, with clips in it.")
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


def film_names(sources: Sequence[ClipSource]) -> dict[str, str]:
    """By clip, which film it was cut from, as far as file names tell."""
    keys = {source.name: source_key(Path(source.name).name, source.stratum) for source in sources}
    group = group_sources(set(keys.values()))
    return {name: group[key] for name, key in keys.items()}


def has_keypoints(root: str | os.PathLike) -> bool:
    """Whether somebody looked for the actors' joints, see `hub_scripts.data.keypoints`."""
    return (Path(root) / "actions" / ACTION_SET / "train_keypoints").is_dir()


def action_sources(
    root: str | os.PathLike,
    part: str = "train",
    cache: str | os.PathLike | None = None,
    splits: str | os.PathLike = SPLITS_DIR,
    sets: Sequence[str] = (ACTION_SET, FIGHT_SET),
) -> list[ClipSource]:
    """The labelled clips of one part, sorted by name.

    A JHMDB clip has the index of its class in `labels` and -100 in the group `fight`; a surveillance clip the reverse.

    Args:
        root: Data root that holds `actions/`.
        part: `"train"` (what no list names), `"dev"` or `"val"` (what the list names).
        cache: Folder for decoded frames.
        splits: Folder of the lists.
        sets: Which sets of clips.

    Raises:
        ValueError: No such part.
    """
    root = Path(root)
    if part not in ("train", "dev", "val"):
        raise ValueError(f"part={part!r}: expected 'train', 'dev' or 'val'.")
    listed = _held_out(splits) if part == "train" else set(read_split(part, splits))
    index = {name: number for number, name in enumerate(action_names(root))} if ACTION_SET in sets else {}
    sources = []
    for name in sets:
        for path in sorted((root / "actions" / name / "train").glob("*/*")):
            item = path.relative_to(root).as_posix()
            if path.suffix.lower() not in VIDEO_SUFFIXES or (item in listed) == (part == "train"):
                continue
            label = index[path.parent.name] if name == ACTION_SET else NO_LABEL
            fight = FIGHT_GROUP[path.parent.name] if name == FIGHT_SET else NO_LABEL
            sources.append(read_labelled_clip(root, item, cache, label, {"fight": fight}))
    return sources


def mot_train(
    root: str | os.PathLike,
    cache: str | os.PathLike | None = None,
    form: ClipForm | None = None,
    seed: int = 0,
    splits: str | os.PathLike = SPLITS_DIR,
) -> MotClips:
    """The training clips of the MOT sequences, varied."""
    return MotClips(mot_sources(root, "train", cache, splits), form, seed=seed)


def action_train(
    root: str | os.PathLike,
    cache: str | os.PathLike | None = None,
    form: ClipForm | None = None,
    seed: int = 0,
    splits: str | os.PathLike = SPLITS_DIR,
    sets: Sequence[str] = (ACTION_SET, FIGHT_SET),
) -> ActionClips:
    """The training clips with action labels, varied."""
    return ActionClips(action_sources(root, "train", cache, splits, sets), form, seed=seed)
