"""A step's graph in two parts: what a frame alone decides, and what also needs the past.

The first part, the encoder above all, can be computed for several frames side by side, each by threads of its own.
These wait for each other less than all threads do that share one frame.
"""

import threading
from collections.abc import Callable, Collection

import numpy as np
import torch

_CUT = "cut."
# Maps of so many channels and more are handed over as convolutions have them, channels last, and need not be turned.
_CHANNELS_LAST = 64


class StepInParts:
    """A step's graph, cut and compiled for one size of its inputs.

    Args:
        model: `openvino.Model` with static shapes; it is taken apart.
        given: names of the inputs that are a frame's own. All others carry the past.
        compile_model: `compile_model(model, **settings)` gives an `openvino.CompiledModel`.
        streams: frames that the first part is computed for at a time.

    Raises:
        ValueError: as `cut_model`.
    """

    def __init__(self, model, given: Collection[str], compile_model: Callable, streams: int):
        first, second = cut_model(model, given)
        self._given = [port.any_name for port in first.inputs]
        self._carried = [port.any_name for port in second.inputs]
        cuts = [name for name in self._carried if name.startswith(_CUT)]
        self._begun = [*map(output_name, first.outputs[: -len(cuts)]), *cuts]
        ended = [output_name(port) for port in second.outputs]
        self._first = compile_model(first, NUM_STREAMS=streams)
        # Little is left to be shared among threads, and the next frames' first part has use for the others.
        self._second = Request(compile_model(second, INFERENCE_NUM_THREADS=1), self._carried, ended)
        self._idle, self._lock = [], threading.Lock()

    def begin(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What a frame's own inputs decide, for `end`. Several threads can be here at a time."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = Request(self._first, self._given, self._begun)
        try:
            return request(feeds)
        finally:
            self._idle.append(request)

    def end(self, begun: dict[str, torch.Tensor], feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The whole graph's outputs by name.

        Args:
            begun: from `begin`.
            feeds: the inputs that carry the past.
        """
        with self._lock:
            found = self._second(feeds | begun)
        return found | {name: value for name, value in begun.items() if not name.startswith(_CUT)}


class Request:
    """What runs a model whose shapes are static, on PyTorch tensors that are not copied. For one thread at a time.

    Args:
        compiled: `openvino.CompiledModel`.
        inputs: names for its inputs, in their order.
        outputs: names for its outputs, in their order.
    """

    def __init__(self, compiled, inputs: Collection[str], outputs: Collection[str]):
        self._request, self._inputs = compiled.create_infer_request(), list(inputs)
        # Asking a port takes longer than to make a tensor.
        ports = zip(outputs, compiled.outputs, strict=True)
        self._outputs = [(name, tuple(port.shape), _torch_type(port)) for name, port in ports]

    def __call__(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name, each with memory of its own, from tensors for at least the inputs."""
        given = [feeds[name].contiguous() for name in self._inputs]
        for index, tensor in enumerate(given):
            self._request.set_input_tensor(index, _shared(tensor))
        results = {}
        for index, (name, shape, kind) in enumerate(self._outputs):
            results[name] = torch.empty(shape, dtype=kind)
            self._request.set_output_tensor(index, _shared(results[name]))
        self._request.infer(share_outputs=True)  # else every output would be copied once more
        return results


def cut_model(model, given: Collection[str]) -> tuple:
    """Cuts a model where the past comes in.

    Args:
        model: `openvino.Model` with static shapes; it is taken apart.
        given: names of inputs.

    Returns:
        Two `openvino.Model`s. The first has the inputs `given`; its outputs are those of `model` that depend on nothing
        else, then what the second needs of it. This has the other inputs, then `cut.0`, `cut.1` … for that, and the
        other outputs.

    Raises:
        ValueError: a model without inputs but `given`, or one in which nothing is computed from `given` alone.
    """
    from openvino import Model
    from openvino import opset13 as operators

    _settle_shapes(model, operators)
    past, edges = _depending_on_the_past(model, given)
    results = {kind: [node for node in model.get_results() if (_name(node) in past) == kind] for kind in (False, True)}
    parameters = {
        kind: [node for node in model.get_parameters() if (_name(node) in past) == kind] for kind in (False, True)
    }
    if not parameters[True]:
        raise ValueError(f"A graph whose inputs are {_listed(model)} carries nothing from frame to frame to be cut at.")
    if all(source.get_node().get_type_name() == "Parameter" for source, _ in edges):
        raise ValueError(f"There is nothing to cut off: this graph computes nothing from {', '.join(given)} alone.")
    ends, starts = [], []
    for index, (source, targets) in enumerate(edges):
        shape, told = source.get_shape(), source
        turned = len(shape) == 4 and shape[1] >= _CHANNELS_LAST
        if turned:
            told = operators.transpose(source, np.array([0, 2, 3, 1])).output(0)
        start = operators.parameter(told.get_shape(), told.get_element_type())
        start.output(0).set_names({f"{_CUT}{index}"})
        starts.append(start)
        taken = operators.transpose(start, np.array([0, 3, 1, 2])) if turned else start
        for target in targets:
            target.replace_source_output(taken.output(0))
        ends.append(operators.result(told))
    first = Model([*results[False], *ends], parameters[False], "first")
    return first, Model(results[True], [*parameters[True], *starts], "second")


def _settle_shapes(model, operators) -> None:
    """Shapes that are known become constants: else they would be among what one part tells the other."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "ShapeOf" and node.get_input_partial_shape(0).is_static:
            shape = np.array(list(node.get_input_shape(0)), node.get_output_element_type(0).to_dtype())
            constant = operators.constant(shape)
            for target in node.output(0).get_target_inputs():
                target.replace_source_output(constant.output(0))


def _depending_on_the_past(model, given: Collection[str]) -> tuple[set[str], list]:
    """Names of the nodes that depend on other inputs than `given`; and what goes into them from nodes that do not.

    Returns:
        The names, and pairs of an output and the inputs that it goes to. Constants are left out: each part has its own.
    """
    past, varying, edges = set(), set(), {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Parameter":
            varying.add(_name(node))
            if node.output(0).any_name not in given:
                past.add(_name(node))
            continue
        sources = [port.get_source_output() for port in node.inputs()]
        names = {_name(source.get_node()) for source in sources}
        if names & varying:
            varying.add(_name(node))
        if not names & past:
            continue
        past.add(_name(node))
        for port, source in zip(node.inputs(), sources, strict=True):
            name = _name(source.get_node())
            if name in varying and name not in past:
                edges.setdefault((name, source.get_index()), (source, []))[1].append(port)
    return past, list(edges.values())


def _name(node) -> str:
    """A node's name that no other has."""
    return node.get_name()


def _listed(model) -> str:
    return ", ".join(port.any_name for port in model.inputs)


def output_name(port) -> str:
    """The name that the file gives an output; OpenVINO adds those of the nodes that it comes from, which are paths."""
    return min(port.names, key=lambda name: ("/" in name, name))


def _shared(tensor: torch.Tensor):
    from openvino import Tensor

    return Tensor(tensor.numpy(), shared_memory=True)


def _torch_type(port) -> torch.dtype:
    return torch.from_numpy(np.empty(0, port.element_type.to_dtype())).dtype
