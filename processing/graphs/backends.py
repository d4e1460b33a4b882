"""Which runtime runs a model's step, and how an exported folder becomes a model again."""

import json
import logging
import os
from importlib.util import find_spec
from pathlib import Path

from .graph_cache import GRAPH_VERSION, cached_step
from .graph_model import AcceleratedModel, ExportedParts

logger = logging.getLogger(__name__)

BACKENDS = ("auto", "torch", "compile", "onnx", "openvino")
# Of the exact ones the fastest first, by `kinetrack benchmark`; both need onnx to make the graph.
_PREFERRED = {"openvino": "openvino", "onnx": "onnxruntime"}
_INSTALL = "pip install -e '.[export]' in KineTrack's folder"
DESCRIPTION = "graph.json"


def accelerate(model, backend: str = "auto"):
    """A model that gives the same to 1e-3, run by another runtime.

    Args:
        model: a KineTrack model with heads, causal.
        backend: one of `BACKENDS`. "auto" is the fastest that is installed on a CPU, and PyTorch on other devices; the
            environment variable KINETRACK_BACKEND says what it means instead.

    Returns:
        `model` itself for "torch", else an `AcceleratedModel` for `KineTrackSession`.

    Raises:
        ValueError: an unknown backend, or a model that it cannot run.
        ModuleNotFoundError: the backend's package is missing.
    """
    check_backend(backend)
    if isinstance(model, AcceleratedModel):
        return model
    if backend == "auto":
        backend = check_backend(os.environ.get("KINETRACK_BACKEND") or "auto")
    if backend == "auto":
        return _fastest(model)
    if backend == "torch":
        return model
    if model.device.type != "cpu":
        raise ValueError(f"The backend {backend!r} runs on the CPU; the model is on {model.device}. Use --device cpu.")
    if backend == "compile":
        from .compiled_engine import CompiledEngine
        from .exportable import exportable_copy
        from .graph_modules import step_graph

        return AcceleratedModel(model, CompiledEngine(step_graph(exportable_copy(model))), backend)
    return AcceleratedModel(model, open_engine(cached_step(model), backend), backend)


def check_backend(backend: str) -> str:
    """The name of a backend.

    Raises:
        ValueError: there is none of that name.
    """
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(BACKENDS)}; got {backend!r}.")
    return backend


def open_engine(path: Path, backend: str, fixed_sizes: bool = True, threads: int | None = None):
    """An engine for a graph file; for the arguments see `OpenVinoEngine`."""
    if backend == "openvino":
        from .openvino_engine import OpenVinoEngine

        return OpenVinoEngine(path, threads, fixed_sizes=fixed_sizes)
    from .onnx_engine import OnnxEngine

    return OnnxEngine(path, threads)


def _fastest(model):
    if model.device.type != "cpu" or model.config.bidirectional:
        return model
    installed = [name for name, package in _PREFERRED.items() if find_spec(package)] if find_spec("onnx") else []
    if not installed:
        logger.warning("Running on PyTorch; two to three times faster on a CPU after: %s", _INSTALL)
        return model
    try:
        return accelerate(model, installed[0])
    except Exception as error:  # whatever an exporter cannot do, PyTorch can
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.warning("Running on PyTorch, because no graph could be made of this model: %s", first)
        return model


def is_exported(folder: Path) -> bool:
    """Whether `kinetrack export` made a folder."""
    return (folder / DESCRIPTION).is_file()


def load_exported(folder: Path, config, backend: str = "auto") -> AcceleratedModel:
    """The model in a folder that `kinetrack export` made.

    Args:
        folder: its path.
        config: its `KineTrackConfig`.
        backend: "onnx" or "openvino"; "auto" takes the one that the folder was made for.

    Raises:
        ValueError: a folder without a step for these runtimes, or one made by another version of this package.
        ModuleNotFoundError: the runtime is missing.
    """
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    kind = description["format"]
    if description["mode"] != "step" or kind not in _PREFERRED:
        raise ValueError(
            f"{folder} holds the {description['mode']} form as {kind}, which `kinetrack` does not run. "
            "Export it with --mode step and --format onnx or openvino; the README in it says how to run it as it is."
        )
    if description["version"] != GRAPH_VERSION:
        raise ValueError(f"{folder} was made by another version of KineTrack. Make it again with `kinetrack export`.")
    if backend == "auto":
        backend = kind
    if backend not in _PREFERRED or (kind == "openvino" and backend != "openvino"):
        raise ValueError(f"{folder} was exported for {kind} and cannot run with --backend {backend}.")
    files = {name: folder / file for name, file in description["graphs"].items()}
    engines = {
        # The small graphs leave the step's threads alone.
        name: open_engine(path, backend, fixed_sizes=name in ("step", "regions"), threads=None if name == "step" else 1)
        for name, path in files.items()
    }
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in description["state"]}
    return AcceleratedModel(ExportedParts(config, shapes, engines), engines["step"], backend)
