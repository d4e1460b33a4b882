"""States of sessions in a file: numbers as safetensors, the rest as JSON in its header; nothing that runs code."""

import errno
import json
import os
import tempfile
import time
import uuid
from pathlib import Path

import numpy as np
import torch

_FORMAT, _VERSION = "kinetrack.session", "1"
_ARRAY, _TENSOR = "array", "tensor"


def check_place(path: str | os.PathLike) -> None:
    """Sees that `write_states` will be able to write there, and makes the folder.

    Raises:
        OSError: it will not.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise type(error)(f"The state cannot be kept in {path}: {error.strerror}. Choose another file.") from error


def write_states(path: str | os.PathLike, states: dict[str, dict]) -> None:
    """Saves the states of one or several streams in one file, which is there whole or not at all.

    Args:
        path: the file, `.safetensors` by custom.
        states: `KineTrackSession.state_dict()` by name of the stream.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path, tensors = Path(path), {}
    plain = {name: _split(state, name, tensors) for name, state in states.items()}
    header = {"format": _FORMAT, "version": _VERSION, "saved_at": repr(time.time()), "states": json.dumps(plain)}
    partial = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}.partial{path.suffix}")
    try:
        save_file(tensors, partial, header)
        os.replace(partial, path)
    except SafetensorError as error:
        raise OSError(f"The state cannot be written to {path} ({error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def read_states(path: str | os.PathLike) -> tuple[dict[str, dict], float]:
    """Reads what `write_states` saved.

    Returns:
        The states by name of the stream, and when they were saved (seconds of `time.time()`).

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is something else, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no saved state at {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != _FORMAT or header.get("version") != _VERSION:
                raise ValueError(f"{path} does not hold states of KineTrack sessions that this version can read.")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        plain = json.loads(header["states"])
        return {name: _join(state, name, tensors) for name, state in plain.items()}, float(header["saved_at"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a saved state, or it is damaged ({error}).") from error


def _split(value, name: str, tensors: dict):
    """The plain part of a value; tensors and arrays in it move to `tensors` and leave a mark."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach().cpu().contiguous().clone()  # one state may be saved under two names
        return {_TENSOR: True}
    if isinstance(value, np.ndarray):
        tensors[name] = torch.from_numpy(np.array(value, order="C"))
        return {_ARRAY: True}
    if isinstance(value, dict):
        return {key: _split(item, f"{name}/{key}", tensors) for key, item in value.items()}
    return value


def _join(value, name: str, tensors: dict):
    """The inverse of `_split`."""
    if not isinstance(value, dict):
        return value
    if value == {_TENSOR: True}:
        return tensors[name]
    if value == {_ARRAY: True}:
        return tensors[name].numpy()
    return {key: _join(item, f"{name}/{key}", tensors) for key, item in value.items()}
