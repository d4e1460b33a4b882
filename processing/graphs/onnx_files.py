"""Graphs as ONNX files."""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch

from .graph_modules import Graph
from .onnx_folding import join_convolutions

OPSET = 18  # OpenVINO reads the reductions of 17 wrongly


def write_onnx(graph: Graph, path: Path) -> None:
    """Writes one file, weights included; batch and sizes stay free, under the names of the graph's shapes.

    PyTorch's exporter by tracing is used: the one through `torch.export` takes minutes for the same nodes, because it
    proves things about every symbolic size.

    Args:
        graph: what to write.
        path: the file.

    Raises:
        ModuleNotFoundError: the package onnx is missing.
    """
    import onnx

    example = graph.example()
    everything = graph.inputs | graph.outputs
    axes = {
        name: {axis: str(size) for axis, size in enumerate(shape) if isinstance(size, str)}
        for name, shape in everything.items()
    }
    # The tracer warns of every check of shapes in the model; those hold for all sizes, as parity tests show.
    with warnings.catch_warnings(), torch.inference_mode(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            graph.module,
            tuple(example.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes=axes,
        )
    content = onnx.load(str(path))
    join_convolutions(content)
    for value in (*content.graph.input, *content.graph.output):
        for size, wanted in zip(value.type.tensor_type.shape.dim, everything[value.name], strict=True):
            if isinstance(wanted, str):
                size.dim_param = wanted
            else:
                size.dim_value = wanted
    onnx.checker.check_model(content)
    onnx.save(content, str(path))
