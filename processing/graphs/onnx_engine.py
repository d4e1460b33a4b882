"""ONNX Runtime runs a graph on PyTorch tensors, without copying them."""

from pathlib import Path

import numpy as np
import torch

from .graph_state import evaluate_shape

_NUMPY = {torch.float32: np.float32, torch.int64: np.int64}


class OnnxEngine:
    """A session of ONNX Runtime on the CPU.

    Args:
        path: an ONNX file from `write_onnx`.
        threads: PyTorch's number when None.

    Raises:
        ModuleNotFoundError: the package onnxruntime is missing.
    """

    def __init__(self, path: Path, threads: int | None = None):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        # Threads that spin between two frames would take the cores from decoding and association.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: tuple(value.shape) for value in self.session.get_inputs()}
        self.outputs = {value.name: tuple(value.shape) for value in self.session.get_outputs()}

    def run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name for inputs by name; every output has memory of its own."""
        binding, results = self.session.io_binding(), {}
        sizes = input_sizes(self.inputs, feeds)
        kept = {name: tensor.contiguous() for name, tensor in feeds.items()}
        for name, tensor in kept.items():
            binding.bind_input(name, "cpu", 0, _NUMPY[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
        for name, shape in self.outputs.items():
            results[name] = torch.empty(evaluate_shape(shape, sizes))
            binding.bind_output(name, "cpu", 0, np.float32, tuple(results[name].shape), results[name].data_ptr())
        self.session.run_with_iobinding(binding)
        return results


def input_sizes(shapes: dict[str, tuple[int | str, ...]], feeds: dict[str, torch.Tensor]) -> dict[str, int]:
    """Values of the symbols in a graph's input shapes.

    Raises:
        ValueError: a tensor that is missing or has the wrong shape.
    """
    sizes = {}
    for name, shape in shapes.items():
        if name not in feeds or feeds[name].dim() != len(shape):
            given = tuple(feeds[name].shape) if name in feeds else "nothing"
            raise ValueError(f"The graph's input {name} must have the shape {shape}, got {given}.")
        for symbol, size in zip(shape, feeds[name].shape, strict=True):
            if isinstance(symbol, str):
                symbol, _, divisor = symbol.partition("/")
                sizes.setdefault(symbol, size * int(divisor or 1))
    for name, shape in shapes.items():
        wanted = evaluate_shape(shape, sizes)
        if tuple(feeds[name].shape) != wanted:
            raise ValueError(f"The graph's input {name} must be {wanted} here, got {tuple(feeds[name].shape)}.")
    return sizes
