"""`kinetrack export`: a folder that runs without this package, checked against the model before it is there."""

import inspect
import json
import logging
import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from ..processing.graphs.backends import DESCRIPTION, is_exported, open_engine
from ..processing.graphs.exportable import exportable_copy
from ..processing.graphs.graph_cache import GRAPH_VERSION, weight_hash
from ..processing.graphs.graph_modules import Graph, clip_graph, region_graphs, step_graph
from ..processing.graphs.onnx_files import OPSET, write_onnx
from ..processing.loading import load_model
from .atomic_files import write_json_atomically
from .export_readme import write_readme

logger = logging.getLogger(__name__)

FORMATS, MODES = ("torch", "onnx", "openvino"), ("clip", "step")
TOLERANCE = 1e-3
# Sizes that every export is checked at: batch, height, width.
_CHECKED = ((1, 96, 64), (4, 64, 128))
_CHECKED_STEPS = 5


def export(
    model: str | os.PathLike,
    output: str | os.PathLike,
    format: str = "onnx",
    mode: str = "step",
    *,
    calibration: Sequence[str | os.PathLike] = (),
    num_frames: int | None = None,
    allow_untrained: bool = False,
) -> Path:
    """Writes a model as graphs that other runtimes run.

    Every graph is compared with the model before it is there. 8 bits cannot be equal to it: there, the step in float32
    that they are made from is compared.

    Args:
        model: name, folder or Hub id.
        output: folder to make; one that is there is replaced, if it is an export or empty.
        format: one of `FORMATS`.
        mode: `"step"`, one frame of each of B streams with the state in and out, or `"clip"`, T frames at once.
        calibration: videos, or folders of videos, of which frames are shown to the quantiser; makes an 8-bit step.
        num_frames: T of a clip; the configuration's when None.
        allow_untrained: accepts a model whose `config.trained` is False.

    Returns:
        `output`.

    Raises:
        ValueError: an unknown format or mode, 8 bits of what is not the step for onnx or openvino, an `output` that
            holds something else or the current folder, or a model that cannot be exported.
        RuntimeError: an exported graph differs from the model by more than `TOLERANCE`.
        ModuleNotFoundError: a package of the extra `export` is missing.
    """
    output = Path(output)
    _check(output, format, mode, calibration)
    network, processor = load_model(model, "cpu", allow_untrained=allow_untrained)
    if not isinstance(network, torch.nn.Module):
        raise ValueError(f"{model} is an export already. Give the model that it was made from.")
    prepared = exportable_copy(network)
    graphs = _graphs(prepared, mode, num_frames)
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = output.with_name(f".{output.name}-{uuid.uuid4().hex[:8]}.partial")
    staging.mkdir()
    try:
        network.config.save_pretrained(staging)
        processor.save_pretrained(staging)
        files = {graph.name: _write(graph, format, staging) for graph in graphs}
        for graph in _graphs(network, mode, num_frames):
            check_parity(graph, staging / files[graph.name], format)
        if calibration:
            from .quantise import quantise_step

            quantise_step(prepared, processor, staging / files["step"], format, calibration)
        description = _describe(network, graphs, files, format, mode, bool(calibration), os.fspath(model))
        write_json_atomically(staging / DESCRIPTION, description)
        write_readme(staging, description, network.config, processor)
        if output.exists():
            shutil.rmtree(output)
        os.replace(staging, output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return output


def _check(output: Path, format: str, mode: str, calibration) -> None:
    if format not in FORMATS or mode not in MODES:
        raise ValueError(f"`format` is one of {FORMATS} and `mode` of {MODES}; got {format!r} and {mode!r}.")
    if calibration and (format == "torch" or mode != "step"):
        raise ValueError("8 bits are for --mode step with --format onnx or openvino.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file. Give a folder.")
    if Path.cwd().is_relative_to(output.resolve()):
        raise ValueError(f"{output} is or holds the folder that this runs in, which is not replaced. Name a new one.")
    if output.exists() and any(output.iterdir()) and not is_exported(output):
        raise ValueError(f"{output} holds something that is not an export. Choose another --output, or empty it.")


def _graphs(model, mode: str, num_frames: int | None) -> list[Graph]:
    """What is exported of a model."""
    if mode == "clip":
        return [clip_graph(model, num_frames or model.config.num_frames)]
    return [step_graph(model)] + (region_graphs(model) if model.action_head is not None else [])


def _write(graph: Graph, format: str, folder: Path) -> str:
    """Writes one graph; the name of its file."""
    if format == "torch":
        torch.export.save(export_program(graph), folder / f"{graph.name}.pt2")
        return f"{graph.name}.pt2"
    path = folder / f"{graph.name}.onnx"
    write_onnx(graph, path)
    if format == "onnx":
        return path.name
    import openvino

    from ..processing.graphs.openvino_engine import shared_core

    openvino.save_model(_with_plain_names(shared_core().read_model(str(path)), graph), path.with_suffix(".xml"), False)
    path.unlink()
    return path.with_suffix(".xml").name


def _with_plain_names(model, graph: Graph):
    """An OpenVINO model whose outputs have the graph's names and no others."""
    for port, name in zip(model.outputs, graph.outputs, strict=True):
        port.get_tensor().set_names({name})
    return model


def export_program(graph: Graph) -> torch.export.ExportedProgram:
    """The graph by `torch.export`; batch and sizes stay free (heights and widths in steps of 32)."""
    units = {
        "height": torch.export.Dim("height_in_32", min=1, max=256),
        "width": torch.export.Dim("width_in_32", max=256),
    }
    free = {name: torch.export.Dim(name, min=1, max=1024) for name in ("batch", "regions", "tracks")}

    def dimension(size):
        symbol, _, divisor = size.partition("/")
        return free[symbol] if symbol in free else (32 // int(divisor or 1)) * units[symbol]

    shapes = tuple(
        {axis: dimension(size) for axis, size in enumerate(shape) if isinstance(size, str)}
        for shape in graph.inputs.values()
    )
    kinds = [parameter.kind for parameter in inspect.signature(graph.module.forward).parameters.values()]
    named = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if named < len(shapes):  # the others are one argument, such as *state
        shapes = (*shapes[:named], shapes[named:])
    with torch.no_grad():
        return torch.export.export(graph.module, tuple(graph.example().values()), dynamic_shapes=shapes)


def check_parity(graph: Graph, path: Path, format: str, tolerance: float = TOLERANCE) -> float:
    """Runs a written graph beside the model it was made from, of several sizes and over a few carried steps.

    Args:
        graph: of the model itself, not of its `exportable_copy`.
        path: the written one.
        format: one of `FORMATS`.
        tolerance: largest difference allowed.

    Returns:
        The largest difference of any output. Of those that tell of objects it is the median over frames: rounding may
        decide which of two neighbouring cells is an object.

    Raises:
        RuntimeError: it is above `tolerance`.
    """
    run, worst = _runner(graph, path, format), 0.0
    for batch, height, width in _CHECKED:
        feeds = graph.example(batch=batch, height=height, width=width, regions=batch + 1, tracks=batch)
        wanted_feeds, objects = dict(feeds), defaultdict(list)
        for _ in range(_CHECKED_STEPS if graph.name == "step" else 1):
            with torch.inference_mode():
                wanted = dict(zip(graph.outputs, graph.module(*wanted_feeds.values()), strict=True))
                found = run(feeds)
            for name, value in wanted.items():
                rows = [_difference(*pair) for pair in zip(value, found[name], strict=True)]
                if name.startswith("object_"):
                    objects[name] += rows
                else:
                    worst = max(worst, *rows)
            feeds |= {name[4:]: tensor for name, tensor in found.items() if name.startswith("new.")}
            wanted_feeds |= {name[4:]: tensor for name, tensor in wanted.items() if name.startswith("new.")}
        worst = max([worst, *map(median, objects.values())])
        if not worst <= tolerance:
            raise RuntimeError(f"The exported {graph.name} differs from PyTorch by {worst:.1e} (most: {tolerance}).")
    return worst


def _runner(graph: Graph, path: Path, format: str) -> Callable[[dict], dict]:
    """What runs a written graph: a function of inputs by name, in the graph's order, that gives outputs by name."""
    if format != "torch":
        return open_engine(path, format).run
    program = torch.export.load(path).module()
    return lambda feeds: dict(zip(graph.outputs, program(*feeds.values()), strict=True))


def _difference(wanted: torch.Tensor, found: torch.Tensor) -> float:
    """Largest difference; infinite where only one is not finite, or they are so in different ways."""
    if wanted.shape != found.shape:
        return float("inf")
    same = (wanted == found) | (wanted.isnan() & found.isnan())
    differences = (wanted - found).abs().masked_fill(same, 0.0).nan_to_num(float("inf"), float("inf"))
    return float(differences.max()) if wanted.numel() else 0.0


def _describe(network, graphs, files, format, mode, int8, name) -> dict:
    """What `graph.json` says."""
    first = graphs[0]
    state = [
        {"name": given, "shape": list(shape), "initial": "-inf" if given == "scores" else 0.0}
        for given, shape in first.inputs.items()
        if f"new.{given}" in first.outputs
    ]
    return {
        "model": Path(name).name,
        "weights": weight_hash(network),
        "version": GRAPH_VERSION,
        "format": format,
        "opset": OPSET if format != "torch" else None,
        "mode": mode,
        "int8": int8,
        "graphs": files,
        "inputs": {graph.name: {name: list(shape) for name, shape in graph.inputs.items()} for graph in graphs},
        "outputs": {graph.name: {name: list(shape) for name, shape in graph.outputs.items()} for graph in graphs},
        "state": state,
    }


def read_description(folder: Path) -> dict:
    """The content of an export's `graph.json`."""
    return json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
