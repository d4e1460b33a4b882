"""Graphs in the user's cache folder, by a hash of what they are made from: built once, whole or not at all."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

# Raised when graphs of the same weights have to be made anew.
GRAPH_VERSION = 4


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/kinetrack/graphs`, by default in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kinetrack" / "graphs"


def weight_hash(model) -> str:
    """32 hexadecimal digits that change with the weights, the configuration, PyTorch and `GRAPH_VERSION`."""
    config = {name: value for name, value in model.config.to_dict().items() if name != "_name_or_path"}
    digest = hashlib.sha256(
        json.dumps([GRAPH_VERSION, torch.__version__, config], sort_keys=True, default=str).encode()
    )
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def cached_step(model) -> Path:
    """The ONNX file of a model's step, made on first use. Processes that ask at once wait for the one that makes it.

    Args:
        model: a KineTrack model with heads.

    Raises:
        OSError: the cache folder cannot be written.
        ModuleNotFoundError: the package onnx is missing.
    """
    from filelock import FileLock

    folder = cache_folder() / weight_hash(model)
    path = folder / "step.onnx"
    if path.is_file():
        return path
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not path.is_file():
            started = time.perf_counter()
            _build(model, folder)
            spent = time.perf_counter() - started
            logger.warning("Made the graph of this model in %.1f s; it is kept in %s.", spent, folder.parent)
    return path


def _build(model, folder: Path) -> None:
    from .exportable import exportable_copy
    from .graph_modules import step_graph
    from .onnx_files import write_onnx

    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    try:
        write_onnx(step_graph(exportable_copy(model)), partial / "step.onnx")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
