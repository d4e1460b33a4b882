"""Clips of a list, opened when they are asked for: a data set of thousands of files is there at once."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from ..atomic_files import atomic_path
from .clips import ClipSource
from .layouts import choose_part, class_names, list_clips
from .sources import open_clip


class ListedClips(Sequence):
    """The rows of a table of clips as sources, for `ActionClips`.

    Args:
        table: From `list_clips`.
        cache: Folder for decoded frames and for videos that the table itself holds; needed for the latter.

    Attributes:
        id2label: Names of the classes by their numbers.
        strata: The class of each row, by name.
    """

    def __init__(self, table, cache: str | os.PathLike | None = None):
        self.table, self.cache = table, cache
        self.id2label = dict(enumerate(class_names(table)))
        self.strata = [self.id2label[label] for label in table["label"][:]]

    @classmethod
    def read(cls, path: str | os.PathLike, part: str = "train", cache: str | os.PathLike | None = None, **options):
        """Lists and opens one part of a data set.

        Args:
            path: As for `list_clips`, like `layout` and `fold` among the options.
            part: "train", "dev" or "test"; see `choose_part`, whose `dev_fraction` is an option too.
            cache: See above.
            options: Of these two functions.
        """
        cut = {name: options.pop(name) for name in ("dev_fraction",) if name in options}
        return cls(choose_part(list_clips(path, **options), part, **cut), cache)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> ClipSource:
        row = self.table[int(index)]
        source = open_clip(self.file(index), row["name"], self.cache, row["label"])
        source.stratum = self.strata[index]
        return source

    @property
    def names(self) -> list[str]:
        """Of all rows, without opening them."""
        return list(self.table["name"][:])

    def file(self, index: int) -> Path:
        """Where a row's video lies; bytes of a table are written into the cache once."""
        row = self.table[int(index)]
        path, content = row["video"]["path"], row["video"]["bytes"]
        if content is None:
            return Path(path)
        if self.cache is None:
            raise ValueError(f"{row['name']} lies within the table; `cache` names a folder to write such videos into.")
        suffix = Path(path or "").suffix or ".mp4"
        file = Path(self.cache) / "videos" / f"{hashlib.sha1(content).hexdigest()[:16]}{suffix}"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(file) as partial:
                Path(partial).write_bytes(content)
        return file
