"""Convolutions of an ONNX graph that can be one: exactly, since nothing lies between them."""

import numpy as np


def join_convolutions(content) -> int:
    """Makes one convolution of two where a 1x1 follows and is the only one to read the first, in place.

    The weights are multiplied in double precision; it is done only where that leaves fewer multiplications.

    Args:
        content: an `onnx.ModelProto` whose weights are initializers.

    Returns:
        How many pairs were joined.
    """
    from onnx import numpy_helper

    graph, joined = content.graph, 0
    weights = {tensor.name: tensor for tensor in graph.initializer}
    readers: dict[str, int] = {value.name: 2 for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    makers = {node.output[0]: node for node in graph.node if node.op_type == "Conv"}
    for second in list(makers.values()):
        first = makers.get(second.input[0])
        if first is None or readers[second.input[0]] != 1 or not _is_pointwise(second):
            continue
        if _attributes(first).get("group", 1) != 1 or not weights.keys() >= {*first.input[1:], *second.input[1:]}:
            continue
        inner, inner_bias = _weight_and_bias(first, weights)
        outer, outer_bias = _weight_and_bias(second, weights)
        weight = np.tensordot(outer[:, :, 0, 0], inner, 1)  # (D, C, kh, kw)
        if weight.size >= inner.size + outer.size:
            continue
        bias = outer[:, :, 0, 0] @ inner_bias + outer_bias
        name = second.output[0]
        for suffix, values in (("weight", weight), ("bias", bias)):
            tensor = numpy_helper.from_array(values.astype(np.float32), f"{name}.{suffix}")
            weights[tensor.name] = tensor
            graph.initializer.append(tensor)
        first.input[1:] = [f"{name}.weight", f"{name}.bias"]
        first.output[0], makers[name] = name, first
        graph.node.remove(second)
        joined += 1
    return joined


def _weight_and_bias(node, weights: dict) -> list[np.ndarray]:
    """(D, C, kh, kw) and (D,), float64."""
    from onnx import numpy_helper

    weight, *bias = (numpy_helper.to_array(weights[name]).astype(np.float64) for name in node.input[1:])
    return [weight, *(bias or [np.zeros(len(weight))])]


def _is_pointwise(node) -> bool:
    plain = {"group": 1, "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0] * 4}
    return all(_attributes(node).get(name, wanted) == wanted for name, wanted in plain.items())


def _attributes(node) -> dict:
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
