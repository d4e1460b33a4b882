"""Labelled clips as people keep them, listed as one table of paths (`datasets.Dataset`); no video is opened for it.

| layout    | what lies there                                                                                        |
|-----------|--------------------------------------------------------------------------------------------------------|
| `ucf101`  | class folders of `v_<Class>_gNN_cNN.avi` and `ucfTrainTestlist/`: the official three splits            |
| `hmdb51`  | class folders and `<class>_test_split<N>.txt` files: the official three splits                         |
| `csv`     | a CSV file with `label` and either a path or Kinetics' `youtube_id,time_start,time_end`; `split` if any |
| `folders` | a folder for every class, perhaps below `train/`, `val/` and `test/`                                   |
| `hub`     | a data set of the Hugging Face Hub, or one saved by `datasets`, with a `Video` column                  |

Any video format will do in all of them. A file `<clip>.txt` beside a clip, or `<part>_boxes/<class>/<clip>.txt` beside
`<part>`, has the box of whoever acts, a line a frame: `frame,1,left,top,width,height,1,1,1` (JHMDB).
"""

import csv
import os
import re
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from .sources import VIDEO_SUFFIXES

LAYOUTS = ("ucf101", "hmdb51", "csv", "folders", "hub")
PARTS = {"train": "train", "training": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev"}
PARTS |= {"validate": "dev", "test": "test", "testing": "test"}
_MIN_GROUPS = 5  # of a class of which some are set aside
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PATH_COLUMNS = ("path", "video", "video_path", "file", "file_name", "filename", "clip")
_LABEL_COLUMNS = ("label", "labels", "action", "class", "category")
_CSV_COLUMNS = (*_PATH_COLUMNS, *_LABEL_COLUMNS, "youtube_id", "time_start", "time_end", "split")


def recognise_layout(path: str | os.PathLike) -> str | None:
    """Which layout lies at a path, or None where none does.

    Args:
        path: a folder, a CSV file, or the id of a data set on the Hub.
    """
    folder = Path(path)
    if folder.is_file():
        return "csv" if folder.suffix.lower() in (".csv", ".tsv") else None
    if not folder.is_dir():
        return "hub" if _HUB_ID.fullmatch(str(path)) else None
    if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
        return "hub"
    if _split_lists(folder, "trainlist*.txt"):
        return "ucf101"
    if _split_lists(folder, "*_test_split*.txt"):
        return "hmdb51"
    if any(folder.glob("*.csv")):
        return "csv"
    return "folders" if next(_class_folder_clips(folder), None) else None


def list_clips(path: str | os.PathLike, layout: str = "auto", fold: int = 1):
    """Lists the clips of a data set.

    Args:
        path: as for `recognise_layout`.
        layout: one of `LAYOUTS`, or "auto" to look.
        fold: which of the three official splits of `ucf101` and `hmdb51`.

    Returns:
        A `datasets.Dataset` with the columns `video` (`Video(decode=False)`: a dictionary of `path` and `bytes`),
        `label` (`ClassLabel`), `name` (for messages), `group` (clips cut from one film share it) and `part` ("train",
        "dev", "test").

    Raises:
        FileNotFoundError: nothing lies there.
        ValueError: no such layout or fold, no clips, files that do not fit each other or are not there, or a line of a
            CSV file that lacks a field or has an unknown split; the message names them.

    Warns:
        UserWarning: some videos that a CSV file of Kinetics names are not there; they are left out.
    """
    if layout == "auto":
        layout = recognise_layout(path)
        if layout is None:
            raise FileNotFoundError(
                f"No labelled clips at {path}: expected class folders with videos in them, UCF-101, HMDB-51, a CSV "
                "file, or a data set of the Hugging Face Hub."
            )
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be auto or one of {', '.join(LAYOUTS)}, got {layout!r}.")
    if fold not in (1, 2, 3):
        raise ValueError(f"fold must be 1, 2 or 3, got {fold}.")
    if layout == "hub":
        return _hub_table(path)
    reader = {"ucf101": _read_ucf101, "hmdb51": _read_hmdb51, "csv": _read_csv, "folders": _read_folders}[layout]
    rows = reader(Path(path), fold) if layout in ("ucf101", "hmdb51") else reader(Path(path))
    if not rows:
        raise ValueError(f"There are no clips in {path} (layout {layout}).")
    return _table(rows)


def choose_part(table, part: str, dev_fraction: float = 0.1):
    """The rows of one part; "dev" is cut from "train" where the data set has none.

    Whole groups are set aside, class by class, chosen by their names: the result depends on nothing else. Classes of
    fewer than five groups give none.

    Args:
        table: from `list_clips`.
        part: "train", "dev" or "test".
        dev_fraction: share of a class's groups that is set aside.
    """
    parts = table["part"][:]
    if part == "test" or "dev" in parts:
        return table.select([row for row, value in enumerate(parts) if value == part])
    held_out = _held_out_groups(table, dev_fraction)
    wanted = [
        row
        for row, (value, key) in enumerate(zip(parts, _group_keys(table), strict=True))
        if value == "train" and (key in held_out) == (part == "dev")
    ]
    return table.select(wanted)


def class_names(table) -> list[str]:
    """Names of the classes, in the order of their numbers."""
    return list(table.features["label"].names)


def _held_out_groups(table, dev_fraction: float) -> set[str]:
    groups: dict[int, set[str]] = defaultdict(set)
    for label, key, part in zip(table["label"][:], _group_keys(table), table["part"][:], strict=True):
        if part == "train":
            groups[label].add(key)
    chosen: set[str] = set()
    for keys in groups.values():
        count = max(1, round(dev_fraction * len(keys))) if len(keys) >= _MIN_GROUPS and dev_fraction > 0 else 0
        chosen |= set(sorted(keys, key=lambda key: (zlib.crc32(key.encode()), key))[:count])
    return chosen


def _group_keys(table) -> list[str]:
    return table["group"][:]


def _table(rows: list[dict]):
    """Rows of `video` (a path), `label` (a name), `name`, `group`, `part` -> `datasets.Dataset`."""
    from datasets import ClassLabel, Dataset, Features, Value, Video

    names = list(dict.fromkeys(sorted(row["label"] for row in rows)))
    features = Features(
        {"video": Video(decode=False), "label": ClassLabel(names=names)}
        | {name: Value("string") for name in ("name", "group", "part")}
    )
    return Dataset.from_list(rows, features=features)


def _row(path: Path, label: str, root: Path, part: str, group: str | None = None) -> dict:
    name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
    return {"video": str(path), "label": label, "name": name, "group": group or f"{label}/{path.stem}", "part": part}


def _split_lists(folder: Path, pattern: str) -> list[Path]:
    """Files of the official splits, in the folder or one below it."""
    return sorted(folder.glob(pattern)) or sorted(folder.glob(f"*/{pattern}"))


def _videos_by_stem(folder: Path) -> dict[tuple[str, str], Path]:
    """`(class folder, file name without ending)` of all videos below a folder: they may have been encoded anew."""
    files = (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES)
    return {(path.parent.name, path.stem): path for path in files}


def _check_listed(named: list[tuple[str, str]], videos: dict, listed_in: Path) -> None:
    """All of the `(class, file name)` that a list names have to be there."""
    missing = ["/".join(item) for item in named if (item[0], Path(item[1]).stem) not in videos]
    if missing:
        raise ValueError(
            f"{listed_in} names {missing[0]}, which is nowhere below {listed_in.parent.parent}. Of its {len(named)} "
            f"videos {len(missing)} are missing."
        )


def _read_ucf101(folder: Path, fold: int) -> list[dict]:
    videos, rows = _videos_by_stem(folder), []
    for part in ("train", "test"):
        lists = _split_lists(folder, f"{part}list{fold:02d}.txt")
        if not lists:
            raise ValueError(f"{folder} has no {part}list{fold:02d}.txt: the split {fold} of UCF-101 is incomplete.")
        # The training lists have the class number behind the name.
        items = [line.split()[0] for line in lists[0].read_text(encoding="utf-8").splitlines() if line.strip()]
        named = [(label, name) for label, _, name in (item.partition("/") for item in items)]
        _check_listed(named, videos, lists[0])
        for label, name in named:
            path = videos[label, Path(name).stem]
            found = re.search(r"_(g\d+)_c\d+$", path.stem)
            rows.append(_row(path, label, folder, part, f"{label}/{found[1]}" if found else None))
    return rows


def _read_hmdb51(folder: Path, fold: int) -> list[dict]:
    videos, rows = _videos_by_stem(folder), []
    lists = _split_lists(folder, f"*_test_split{fold}.txt")
    if not lists:
        raise ValueError(f"{folder} has no <class>_test_split{fold}.txt files: split {fold} of HMDB-51 is not there.")
    for file in lists:
        label = file.name.removesuffix(f"_test_split{fold}.txt")
        marked = (line.strip().rpartition(" ") for line in file.read_text(encoding="utf-8").splitlines())
        # 0: neither training nor test in this split
        part_of = {name.strip(): {"1": "train", "2": "test"}[mark] for name, _, mark in marked if mark in ("1", "2")}
        _check_listed([(label, name) for name in part_of], videos, file)
        for name, part in part_of.items():
            path = videos[label, Path(name).stem]
            rows.append(_row(path, label, folder, part, path.stem.partition(f"_{label}_")[0]))
    return rows


def _read_csv(path: Path) -> list[dict]:
    """One CSV file with a `split` column, or `train.csv`, `val.csv`, `test.csv` in a folder."""
    files = [path] if path.is_file() else sorted(path.glob("*.csv"))
    rows, missing = [], []
    for file in files:
        part = next((PARTS[word] for word in re.split(r"[\W_]+", file.stem.lower()) if word in PARTS), "train")
        with open(file, newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, delimiter="\t" if file.suffix.lower() == ".tsv" else ",")
            columns = {name.strip().lower(): name for name in reader.fieldnames or []}
            label = next((name for name in _LABEL_COLUMNS if name in columns), None)
            if label is None or not (columns.keys() & {*_PATH_COLUMNS, "youtube_id"}):
                raise ValueError(
                    f"{file}: expected a header with `label` and `path`, or with Kinetics' `label,youtube_id,"
                    f"time_start,time_end`; got {', '.join(columns) or 'nothing'}."
                )
            for row in reader:
                where = f"{file}, line {reader.line_num}"
                fields = _csv_fields(row, columns, where)
                own = _csv_part(fields.get("split", ""), where) or part
                try:
                    video = _csv_video(fields, fields[label], file, where)
                except FileNotFoundError as error:
                    missing.append((str(error), fields.get("youtube_id")))
                    continue
                rows.append(_row(video, fields[label], file.parent, own, fields.get("youtube_id")))
    if missing:
        _tell_missing(missing, len(rows))
    return rows


def _tell_missing(missing: list[tuple[str, str | None]], found: int) -> None:
    """Videos of Kinetics vanish from YouTube, so what is left is taken; anything else that is not there is a mistake.

    Args:
        missing: what is to be said of each, and its id on YouTube.
        found: how many are there.
    """
    counted = f"{missing[0][0]} Of {found + len(missing)} videos {len(missing)} are missing"
    if not found or not all(youtube for _, youtube in missing):
        raise ValueError(f"{counted}.")
    warnings.warn(f"{counted}; they are left out.", stacklevel=4)


def _csv_fields(row: dict, columns: dict, where: str) -> dict[str, str]:
    """What a line says in the columns that are read, by their names in lower case."""
    read = [name for name in columns if name in _CSV_COLUMNS]
    missing = [name for name in read if row[columns[name]] is None]
    if missing:
        raise ValueError(
            f"{where}: it has nothing for {', '.join(missing)}: expected as many fields as the header has, "
            f"{len(columns)}. Add what is missing, or leave the line out."
        )
    return {name: row[columns[name]].strip() for name in read}


def _csv_part(split: str, where: str) -> str | None:
    """The part that a `split` column says, None where it is empty."""
    if split and split.lower() not in PARTS:
        raise ValueError(
            f"{where}: the split {split!r} is not known: expected one of {', '.join(PARTS)}, or nothing. Rename it, or "
            "leave the line out."
        )
    return PARTS.get(split.lower())


def _csv_video(fields: dict[str, str], label: str, file: Path, where: str) -> Path:
    """The file that a line of a CSV names; of Kinetics, `<id>_<start>_<end>` somewhere below the CSV's folder."""
    column = next((name for name in _PATH_COLUMNS if name in fields), None)
    if column is not None:
        path = file.parent / fields[column]
        if path.is_file():
            return path
        raise FileNotFoundError(f"{where}: there is no file {path}.")
    start, end = (_csv_seconds(fields, name, where) for name in ("time_start", "time_end"))
    clip = f"{fields['youtube_id']}_{start:06d}_{end:06d}"
    part = fields.get("split", file.stem)
    folders = [Path(), Path(label), Path(label.replace(" ", "_")), Path(part), Path(part) / label]
    for folder in (file.parent / place / inner for place in (".", "videos") for inner in folders):
        for suffix in sorted(VIDEO_SUFFIXES):
            if (folder / f"{clip}{suffix}").is_file():
                return folder / f"{clip}{suffix}"
    raise FileNotFoundError(f"{where}: there is no video {clip}.mp4 below {file.parent}, nor in {label}/.")


def _csv_seconds(fields: dict[str, str], name: str, where: str) -> int:
    try:
        return int(float(fields[name]))
    except (KeyError, ValueError):
        raise ValueError(
            f"{where}: {name} must be a number of seconds, got {fields.get(name)!r}. With `youtube_id`, `time_start` "
            "and `time_end` say which part of the video it is; or give a column `path`."
        ) from None


def _class_folder_clips(folder: Path) -> Iterator[tuple[Path, str]]:
    """Clips in class folders and their part: `<part>/<class>/<clip>` or `<class>/<clip>`."""
    inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    parts = [(entry, PARTS[entry.name.lower()]) for entry in inner if entry.name.lower() in PARTS]
    for root, part in parts or [(folder, "train")]:
        for label in sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            for path in sorted(label.iterdir()):
                # A sequence with its own ground truth is for tracking.
                if path.suffix.lower() in VIDEO_SUFFIXES and not (label / "gt").is_dir():
                    yield path, part


def _read_folders(folder: Path) -> list[dict]:
    """Clips whose names differ in digits alone are taken for one film, in classes of five such films or more.

    In other classes (`clip_001.mp4`, `clip_002.mp4` …) names say nothing, and every clip is on its own, unless it is
    named as those of HMDB-51 and JHMDB are.
    """
    from .splits import is_film_clip, source_key

    clips = list(_class_folder_clips(folder))
    films: dict[str, set[str]] = defaultdict(set)
    for path, _ in clips:
        films[path.parent.name].add(source_key(path.name, path.parent.name))
    rows = []
    for path, part in clips:
        label = path.parent.name
        known = len(films[label]) >= _MIN_GROUPS or is_film_clip(path.name)
        film = source_key(path.name, label) if known else path.relative_to(folder).as_posix()
        rows.append(_row(path, label, folder, part, f"{label}/{film}"))
    return rows


def _hub_table(path: str | os.PathLike):
    """A data set of the Hub, or saved by `datasets`, with the columns of `list_clips`."""
    from datasets import DatasetDict, load_dataset, load_from_disk

    loaded = load_from_disk(str(path)) if Path(path).is_dir() else load_dataset(str(path))
    splits = loaded if isinstance(loaded, DatasetDict) else DatasetDict({"train": loaded})
    parts = [
        _hub_part(table, PARTS[split.lower()], str(path)) for split, table in splits.items() if split.lower() in PARTS
    ]
    if not parts:
        raise ValueError(f"{path} has the splits {', '.join(splits)}; expected train, validation or test.")
    return _joined(parts)


def _hub_part(table, part: str, name: str):
    """The videos of one part, the class of every row by name, its name for messages, and the part."""
    from datasets import ClassLabel, Video

    videos = [column for column, feature in table.features.items() if isinstance(feature, Video)]
    labels = [column for column in _LABEL_COLUMNS if column in table.features]
    if not videos or not labels:
        raise ValueError(
            f"{name} needs a column of type Video and one named {', '.join(_LABEL_COLUMNS[:3])} or so; it has "
            f"{', '.join(f'{key} ({type(feature).__name__})' for key, feature in table.features.items())}."
        )
    feature, values = table.features[labels[0]], table[labels[0]][:]
    if isinstance(feature, ClassLabel) and min(values, default=0) < 0:  # the Hub's mark of a label that is kept secret
        known = [row for row, value in enumerate(values) if value >= 0]
        unknown = f"{len(values) - len(known)} of {len(values)} clips of {part} have no label"
        warnings.warn(f"{name}: {unknown}; they are left out.", stacklevel=5)
        table, values = table.select(known), [values[row] for row in known]
    names = [feature.int2str(value) for value in values] if isinstance(feature, ClassLabel) else list(map(str, values))
    only = table.select_columns([videos[0]])
    if videos[0] != "video":  # `datasets` refuses to give a column the name it has
        only = only.rename_column(videos[0], "video")
    only = only.cast_column("video", Video(decode=False))
    return only, names, [f"{part}/{number:06d}" for number in range(len(table))], part


def _joined(parts: list[tuple]):
    """Parts as one table with the columns of `list_clips`; the videos themselves are not read."""
    from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets

    classes = sorted({name for _, names, _, _ in parts for name in names})
    features = Features(
        {"label": ClassLabel(names=classes)} | {name: Value("string") for name in ("name", "group", "part")}
    )
    tables = []
    for videos, labels, names, part in parts:
        columns = {"label": labels, "name": names, "group": names, "part": [part] * len(names)}
        tables.append(concatenate_datasets([videos, Dataset.from_dict(columns, features=features)], axis=1))
    return concatenate_datasets(tables)
