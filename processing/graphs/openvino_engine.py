"""OpenVINO runs a graph on PyTorch tensors, without copying them; compiled once for every size of input."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

from .onnx_engine import input_sizes
from .openvino_split import Request, StepInParts, output_name

# Sizes of input that stay compiled; each of a step's takes about 100 MiB. Cameras of several come in turns, and so do
# numbers of regions; files, whose frames are begun ahead, come one after another.
_KEPT_WHOLE, _KEPT_PARTS = 8, 4
_STREAMS = 2  # frames of which the first part is computed at a time
_BEGUN = _STREAMS + 1  # one more waits, so that no stream has nothing to do while Python is busy


class OpenVinoEngine:
    """A graph compiled by OpenVINO for the CPU.

    Args:
        path: an ONNX file from `write_onnx`, or OpenVINO's own `.xml`.
        threads: PyTorch's number when None.
        fixed_sizes: compiles anew for every size, which is faster where sizes seldom change.

    Attributes:
        inputs: shapes by name.
        outputs: names.
        side_by_side: for how many frames `begin` is best called at a time; 1 where `run` alone is of use.

    Raises:
        ModuleNotFoundError: the package openvino is missing.
    """

    def __init__(self, path: Path, threads: int | None = None, fixed_sizes: bool = True):
        import openvino

        self._openvino, self._core = openvino, shared_core()
        threads = threads or torch.get_num_threads()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Threads that are tied to a core wait for whatever else runs there: decoding, association, other programs.
            "ENABLE_CPU_PINNING": False,
            # OpenVINO would take bfloat16 where the processor has it.
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._model = self._core.read_model(str(path))
        self.inputs = {port.any_name: _symbolic(port) for port in self._model.inputs}
        self.outputs = [output_name(port) for port in self._model.outputs]
        self.side_by_side = _BEGUN if fixed_sizes and threads >= _STREAMS else 1
        self._fixed_sizes, self._requests, self._parts = fixed_sizes, OrderedDict(), OrderedDict()
        self._lock = threading.Lock()

    def run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name for inputs by name; every output has memory of its own. Threads wait for each other."""
        input_sizes(self.inputs, feeds)
        with self._lock:
            return self._run(feeds)

    def begin(self, feeds: dict[str, torch.Tensor], carried: dict[str, tuple[int, ...]]) -> Callable:
        """The first part of a `run`, with inputs that are known before the others. Threads do not wait for each other.

        Args:
            feeds: some of the inputs by name.
            carried: shapes of all others.

        Returns:
            The second part: a function of the other inputs by name that gives what `run` would.

        Raises:
            ValueError: a graph that `cut_model` cannot cut.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in feeds.items()} | carried
        with self._lock:
            key = (tuple(feeds), *shapes.items())
            parts = _kept(self._parts, _KEPT_PARTS, key, lambda: self._cut(feeds, shapes))
        return functools.partial(parts.end, parts.begin(feeds))

    def _run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self._fixed_sizes:
            shapes = {name: tuple(feeds[name].shape) for name in self.inputs}
            return _kept(self._requests, _KEPT_WHOLE, tuple(shapes.items()), lambda: self._request(shapes))(feeds)
        request = _kept(self._requests, 1, (), lambda: self._compile(self._model).create_infer_request())
        kept = {name: tensor.contiguous() for name, tensor in feeds.items()}
        for name in self.inputs:
            request.set_tensor(name, self._openvino.Tensor(kept[name].numpy(), shared_memory=True))
        request.infer(share_outputs=True)
        values = [request.get_output_tensor(index).data for index in range(len(self.outputs))]
        return {name: torch.from_numpy(value.copy()) for name, value in zip(self.outputs, values, strict=True)}

    def _request(self, shapes: dict[str, tuple[int, ...]]) -> Request:
        return Request(self._compile(self._sized(shapes)), self.inputs, self.outputs)

    def _cut(self, feeds: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]) -> StepInParts:
        return StepInParts(self._sized(shapes), list(feeds), self._compile, _STREAMS)

    def _sized(self, shapes: dict[str, tuple[int, ...]]):
        model = self._model.clone()
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return model

    def _compile(self, model, **settings):
        return self._core.compile_model(model, "CPU", self._settings | settings)


def _kept(made: OrderedDict, most: int, key: tuple, make: Callable):
    """What is made for a key; so many of them are kept, the last ones."""
    if key not in made:
        made[key] = make()
    made.move_to_end(key)
    if len(made) > most:
        made.popitem(last=False)
    return made[key]


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
