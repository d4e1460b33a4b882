"""OpenVINO runs a graph on PyTorch tensors, without copying them; compiled once for every size of input."""

import functools
import threading
from collections import OrderedDict
from pathlib import Path

import torch

from .onnx_engine import input_sizes

_KEPT_SIZES = 4


class OpenVinoEngine:
    """A graph compiled by OpenVINO for the CPU.

    Args:
        path: an ONNX file from `write_onnx`, or OpenVINO's own `.xml`.
        threads: PyTorch's number when None.
        fixed_sizes: compiles anew for every size, which is faster where sizes seldom change.
        cache: folder for compiled graphs, which makes the next start quicker.
        exact: float32 throughout; else what is not in 8 bits is in bfloat16 where the processor has it.

    Raises:
        ModuleNotFoundError: the package openvino is missing.
    """

    def __init__(
        self,
        path: Path,
        threads: int | None = None,
        fixed_sizes: bool = True,
        cache: Path | None = None,
        exact: bool = True,
    ):
        import openvino

        self._openvino, self._core = openvino, shared_core()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            # Threads that are tied to a core wait for whatever else runs there: decoding, association, other programs.
            "ENABLE_CPU_PINNING": False,
        }
        if exact:
            self._settings["INFERENCE_PRECISION_HINT"] = "f32"
        if cache is not None:
            self._settings["CACHE_DIR"] = str(cache)
        self._model = self._core.read_model(str(path))
        self.inputs = {port.any_name: _symbolic(port) for port in self._model.inputs}
        self.outputs = [_output_name(port) for port in self._model.outputs]
        self._fixed_sizes, self._requests = fixed_sizes, OrderedDict()
        self._lock = threading.Lock()

    def run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name for inputs by name; every output has memory of its own. Threads wait for each other."""
        input_sizes(self.inputs, feeds)
        with self._lock:
            return self._run(feeds)

    def _run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        request = self._request({name: tuple(feeds[name].shape) for name in self.inputs})
        kept = {name: tensor.contiguous() for name, tensor in feeds.items()}
        for name in self.inputs:
            request.set_tensor(name, self._shared(kept[name]))
        if not self._fixed_sizes:
            request.infer()
            values = [request.get_output_tensor(index).data for index in range(len(self.outputs))]
            return {name: torch.from_numpy(value.copy()) for name, value in zip(self.outputs, values, strict=True)}
        results = {}
        for index, (name, port) in enumerate(zip(self.outputs, request.model_outputs, strict=True)):
            results[name] = torch.empty(tuple(port.shape))
            request.set_output_tensor(index, self._shared(results[name]))
        request.infer()
        return results

    def _shared(self, tensor: torch.Tensor):
        return self._openvino.Tensor(tensor.numpy(), shared_memory=True)

    def _request(self, shapes: dict[str, tuple[int, ...]]):
        """The request for inputs of these shapes; the graphs of the last few sizes are kept."""
        key = tuple(shapes.items()) if self._fixed_sizes else ()
        if key in self._requests:
            self._requests.move_to_end(key)
            return self._requests[key]
        model = self._model
        if self._fixed_sizes:
            model = model.clone()
            model.reshape({name: list(shape) for name, shape in shapes.items()})
        request = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        self._requests[key] = request
        if len(self._requests) > _KEPT_SIZES:
            self._requests.popitem(last=False)
        return request


@functools.cache
def shared_core():
    """The process's only OpenVINO.

    One that ends gives its thread back the signal stack that it found when it began. With several, that may be the
    stack of one that is gone, and the next signal (Ctrl-C, or a child process that ends) would crash the process.
    """
    import openvino

    return openvino.Core()


def _symbolic(port) -> tuple[int | str, ...]:
    """Shape of an input with the symbols that the ONNX file has; they are lost in OpenVINO's own format."""
    sizes = []
    for axis, dimension in enumerate(port.partial_shape):
        sizes.append(dimension.get_length() if dimension.is_static else f"{port.any_name}:{axis}")
    return tuple(sizes)


def _output_name(port) -> str:
    """The name that the file gives an output; OpenVINO adds those of the nodes that it comes from, which are paths."""
    return min(port.names, key=lambda name: ("/" in name, name))
