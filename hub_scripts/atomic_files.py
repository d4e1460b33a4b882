"""Files that are there whole or not at all: written beside their place under another name, then renamed."""

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Where to write a file that takes its place at the end of the `with` block.

    If the block ends by an exception, what was written is removed and an older file stays as it was. Several processes
    may write the same file; the last to end wins.

    Args:
        path: the file; its folder exists. The path to write to ends in the same suffix.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
    """Writes text (as UTF-8) or bytes."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json_atomically(path: str | os.PathLike, content: dict, **options) -> None:
    """Writes a dictionary as indented JSON; options are those of `json.dumps`."""
    write_atomically(path, json.dumps(content, indent=2, **options) + "\n")


def update_json_atomically(path: str | os.PathLike, values: dict) -> None:
    """Changes or adds values of a JSON file such as `config.json`; keys are sorted, as Transformers writes them."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    write_json_atomically(path, content | values, sort_keys=True)
