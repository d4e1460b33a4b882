"""The committed lists of clips that are never trained on, and how they were made.

`val` is for figures only, `dev` for choosing checkpoints, thresholds and temperatures; what neither list names is
training data. An item is a path below the data root, with forward slashes; a part of a sequence is `path:first-last` in
frame numbers from 1, both included. Run `python -m kinetrack.hub_scripts.data.splits ROOT` to write the two files
again: the result depends on nothing but the file names.

JHMDB clips are grouped by the video they were cut from, so that no source is on two sides. Names are compared without
case, digits and punctuation, and merged when one contains the other or when they share a long beginning: a merge too
many only costs a little freedom, one too few would leak. The surveillance clips follow camera changes instead: blocks
of neighbouring numbers, chosen by eye so that every camera, with and without a fight, is on one side.
"""

import argparse
import os
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

from ..atomic_files import write_atomically

SPLITS_DIR = Path(__file__).parent / "splits"
FRACTIONS = {"val": 0.2, "dev": 0.1}
GAP_FRAMES = 30  # on either side of a listed part of a sequence: neither listed nor trained on

# Beginnings too common to say anything about the source.
_GENERIC = ("howto", "howtoplay", "prelinger", "learnto", "perfect", "shooting", "stadium", "basic", "brushing")
# Whole names that say only what is done: many unrelated films contain them.
_BARE = {"pullups", "shooting", "claphands"}
# Sources that the general rules would not join: a franchise, a channel, one evening's recordings.
_SAME_SOURCE = (
    ("erika",),
    ("sfjff",),
    ("boxpush", "pushingbox", "boxpullpush"),
    ("glock",),
    ("parkour",),
    ("litterpickup",),
    ("pullupsbyfemale", "girldoespullups", "girlpullups"),
)
_SUFFIX = re.compile(r"_[a-z]_(?:cm|nm)_np\d.*$")

# (class folder, letters before the number) -> inclusive blocks of clip numbers.
_FIGHT_BLOCKS = {
    "val": {("fight", "fi"): [(19, 30), (68, 72), (113, 120)], ("noFight", "nofi"): [(45, 60), (69, 76)]},
    "dev": {("fight", "fi"): [(5, 12), (51, 55)], ("noFight", "nofi"): [(39, 42), (84, 91)]},
}
_DEV_SEQUENCES = ("mot/train/KITTI-17", "mot/train/MOT17-11-FRCNN:676-900")


def source_key(file_name: str, class_name: str) -> str:
    """The name of the film a JHMDB clip was cut from, letters only; near-identical names give the same key.

    Args:
        file_name: File name of the clip, with or without its ending.
        class_name: The action, which JHMDB repeats inside the name.
    """
    stem = _SUFFIX.sub("", Path(file_name).stem if file_name.endswith((".mp4", ".avi")) else file_name)
    stem = stem.removesuffix("_" + class_name)
    key = re.sub(r"[^a-z]", "", stem.lower())
    key = re.sub(r"(?:challenge|hardcoreversion|part|kb)$", "", key)
    return key or re.sub(r"\W", "", stem.lower())


def is_film_clip(file_name: str) -> bool:
    """Whether a clip is named as those of HMDB-51 and JHMDB are, which begin with the name of their film."""
    return _SUFFIX.search(file_name) is not None


def group_sources(keys: set[str], shared_beginning: int = 9) -> dict[str, str]:
    """Joins source keys that may be one film: one inside the other, a long common beginning, or a known franchise.

    Returns:
        For each key, the key that stands for its group.
    """
    ordered = sorted(keys)
    parent = {key: key for key in ordered}

    def root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    for i, first in enumerate(ordered):
        for second in ordered[i + 1 :]:
            common = os.path.commonprefix((first, second))
            alike = len(common) >= shared_beginning and not any(
                generic.startswith(common) or common.startswith(generic) and len(common) < len(generic) + 5
                for generic in _GENERIC
            )
            short, long = sorted((first, second), key=len)
            inside = len(short) >= 6 and short not in _BARE and short in long
            known = any(any(t in first for t in names) and any(t in second for t in names) for names in _SAME_SOURCE)
            if alike or inside or known:
                low, high = sorted((root(first), root(second)))
                parent[high] = low
    return {key: root(key) for key in ordered}


def split_clips(clips: dict[str, list[str]], seed: int = 0) -> dict[str, set[str]]:
    """Draws whole sources for `val` and `dev` so that each class comes close to its share.

    Args:
        clips: File names by class.
        seed: Another seed, another draw.

    Returns:
        `{"val": {...}, "dev": {...}}` of `class/file name`.
    """
    films = _Films(clips, seed)
    val = films.draw(FRACTIONS["val"])
    return {"val": films.clips(val), "dev": films.clips(films.draw(FRACTIONS["dev"], without=val))}


def fold_clips(clips: dict[str, list[str]], folds: int, seed: int = 0) -> list[dict[str, set[str]]]:
    """Draws whole sources into folds, each of them `val` once, with a `dev` from the other folds.

    The first fold is what `split_clips` draws, so that with five folds a model that is trained already serves as well.

    Args:
        clips: File names by class.
        folds: How many.
        seed: Another seed, another draw.

    Returns:
        For each fold what `split_clips` gives.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # not needed where lists are only read

    first = split_clips(clips, seed)
    names = [f"{label}/{name}" for label in sorted(clips) for name in sorted(clips[label])]
    rest = [name for name in names if name not in first["val"]]
    films = _Films(clips, seed)
    parted = StratifiedGroupKFold(folds - 1, shuffle=True, random_state=seed).split(
        rest, [name.partition("/")[0] for name in rest], [films.film(*name.split("/")) for name in rest]
    )
    drawn = [first]
    for _, places in parted:
        val = {rest[place] for place in places}
        held = {films.film(*name.split("/")) for name in val}
        drawn.append({"val": val, "dev": films.clips(films.draw(FRACTIONS["dev"], without=held))})
    return drawn


class _Films:
    """Clips by the film they were cut from, in an order of drawing that only names and the seed decide."""

    def __init__(self, clips: dict[str, list[str]], seed: int):
        self._group_of = group_sources({source_key(name, label) for label, names in clips.items() for name in names})
        self._members: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for label, names in clips.items():
            for name in names:
                self._members[self.film(label, name)].append((label, name))
        self._totals = {label: len(names) for label, names in clips.items()}
        self._order = sorted(self._members, key=lambda film: zlib.crc32(f"{seed}/{film}".encode()))

    def film(self, label: str, name: str) -> str:
        """What a clip was cut from."""
        return self._group_of[source_key(name, label)]

    def draw(self, fraction: float, without: Collection[str] = ()) -> list[str]:
        """Films, in their order, that bring every class close to its fraction."""
        target = {label: fraction * total for label, total in self._totals.items()}
        count: Counter[str] = Counter()
        drawn = []
        for film in self._order:
            size = Counter(label for label, _ in self._members[film])
            # Squared distance from the target, relative to the class: accept what brings it down.
            change = sum(
                ((count[c] + n - target[c]) ** 2 - (count[c] - target[c]) ** 2) / target[c] for c, n in size.items()
            )
            if change < 0 and film not in without:
                count += size
                drawn.append(film)
        return drawn

    def clips(self, films: Iterable[str]) -> set[str]:
        """`class/file name` of all clips of these films."""
        return {f"{label}/{name}" for film in films for label, name in self._members[film]}


def make_splits(root: str | os.PathLike, fold: int | None = None, folds: int = 5) -> dict[str, list[str]]:
    """Makes both lists for a data root with `actions/jhmdb`, `actions/surveillance_fight` and `mot`.

    Folders that are not there are left out.

    Args:
        root: Data root.
        fold: From 1: the JHMDB clips of this fold as `val` instead, see `fold_clips`; the rest stays as it is.
        folds: How many there are.

    Returns:
        `{"val": [...], "dev": [...]}` of sorted items.

    Raises:
        ValueError: No such fold.
    """
    if fold is not None and not 1 <= fold <= folds:
        raise ValueError(f"fold={fold}: expected 1 to {folds}.")
    root = Path(root)
    lists: dict[str, list[str]] = {"val": [], "dev": []}
    jhmdb = root / "actions/jhmdb/train"
    if jhmdb.is_dir():
        clips = {
            folder.name: sorted(file.name for file in folder.iterdir() if file.suffix == ".mp4")
            for folder in sorted(jhmdb.iterdir())
            if folder.is_dir()
        }
        drawn = split_clips(clips) if fold is None else fold_clips(clips, folds)[fold - 1]
        for part, names in drawn.items():
            lists[part] += [f"actions/jhmdb/train/{name}" for name in names]
    for part, blocks in _FIGHT_BLOCKS.items():
        for (label, letters), ranges in blocks.items():
            for first, last in ranges:
                names = (
                    f"actions/surveillance_fight/train/{label}/{letters}{n:03d}.mp4" for n in range(first, last + 1)
                )
                lists[part] += [name for name in names if (root / name).is_file()]
    lists["dev"] += [item for item in _DEV_SEQUENCES if (root / item.partition(":")[0]).is_dir()]
    return {part: sorted(items) for part, items in lists.items()}


def read_split(part: str, folder: str | os.PathLike = SPLITS_DIR) -> list[str]:
    """Reads a committed list.

    Args:
        part: `"val"` or `"dev"`.
        folder: Where `<part>.txt` lies; one's own lists work too.

    Raises:
        FileNotFoundError: There is no list of that name.
    """
    path = Path(folder) / f"{part}.txt"
    if not path.is_file():
        raise FileNotFoundError(f"No split list {path}. Lists that come with KineTrack: val, dev.")
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def parse_item(item: str) -> tuple[str, tuple[int, int] | None]:
    """Takes `path:first-last` apart into the path and its frame range (numbers from 1, inclusive), or None for all."""
    match = re.fullmatch(r"(.+):(\d+)-(\d+)", item)
    return (match[1], (int(match[2]), int(match[3]))) if match else (item, None)


def write_splits(
    root: str | os.PathLike, folder: str | os.PathLike = SPLITS_DIR, fold: int | None = None, folds: int = 5
) -> dict[str, list[str]]:
    """Makes both lists as `make_splits` does and writes them as `val.txt` and `dev.txt`, replacing what is there."""
    lists = make_splits(root, fold, folds)
    purpose = {"val": "for figures only, never trained on", "dev": "for choosing checkpoints, thresholds, temperatures"}
    for part, items in lists.items():
        header = (
            f"# {part}: {purpose[part]}. One item a line, a path below the data root; `:first-last` = frames from 1.\n"
            "# Made by `python -m kinetrack.hub_scripts.data.splits ROOT`: JHMDB by whole source video, stratified by\n"
            "# class; surveillance clips in blocks along camera changes, both classes of a camera on one side.\n"
        )
        write_atomically(Path(folder) / f"{part}.txt", header + "".join(f"{item}\n" for item in items))
    return lists


def main() -> None:
    """Writes the lists for the data root named on the command line and prints their sizes."""
    parser = argparse.ArgumentParser(description="Write the val and dev lists again.")
    parser.add_argument("root", help="data folder with actions/ and mot/")
    parser.add_argument("--folder", default=SPLITS_DIR, help="where to write val.txt and dev.txt")
    parser.add_argument("--fold", type=int, help="number of a fold, from 1, that is val instead; needs a --folder")
    parser.add_argument("--folds", type=int, default=5, help="how many folds there are")
    arguments = parser.parse_args()
    if arguments.fold and arguments.folder == SPLITS_DIR:
        parser.error("--fold writes other lists than those that come with KineTrack: give a --folder for them.")
    for part, items in write_splits(arguments.root, arguments.folder, arguments.fold, arguments.folds).items():
        print(part, len(items))


if __name__ == "__main__":
    main()
