"""A graph in two parts gives what the whole does, on graphs that are made up for it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import pytest
import torch
from kinetrack.processing.graphs.openvino_engine import OpenVinoEngine
from kinetrack.processing.graphs.openvino_split import cut_model
from openvino import opset13 as operators

GIVEN = {"frame": torch.tensor([[1.0, -2.0, 3.0]]), "size": torch.tensor([[2]])}


def parameter(name, shape, kind=np.float32):
    node = operators.parameter(shape, kind, name=name)
    node.output(0).set_names({name})
    return node


def result(node, name):
    node.output(0).set_names({name})
    return operators.result(node)


def averaging():
    """Of a (B, 3) frame its `positive` part; and `mean` (B, 3) of it and the memory, times a (B, 1) size, plus rows."""
    frame, size, memory = (
        parameter("frame", [-1, 3]),
        parameter("size", [-1, 1], np.int64),
        parameter("memory", [-1, 3]),
    )
    positive = operators.relu(frame)
    mean = operators.multiply(operators.add(positive, memory), operators.constant(np.float32(0.5)))
    scaled = operators.multiply(mean, operators.convert(size, "f32"))
    rows = operators.convert(operators.gather(operators.shape_of(frame), [0], 0), "f32")
    outputs = [result(operators.add(scaled, rows), "mean"), result(positive, "positive")]
    return openvino.Model(outputs, [frame, memory, size], "averaging")


def forgetful():
    frame = parameter("frame", [1, 3])
    return openvino.Model([result(operators.relu(frame), "positive")], [frame], "forgetful")


def inseparable():
    frame, memory = parameter("frame", [1, 3]), parameter("memory", [1, 3])
    return openvino.Model([result(operators.add(frame, memory), "sum")], [frame, memory], "inseparable")


@pytest.fixture
def engine(tmp_path):
    openvino.save_model(averaging(), tmp_path / "averaging.xml", compress_to_fp16=False)
    return OpenVinoEngine(tmp_path / "averaging.xml", threads=2)


def test_cut_is_where_the_past_comes_in():
    model = averaging()
    model.reshape({"frame": [2, 3], "size": [2, 1], "memory": [2, 3]})
    first, second = cut_model(model, ["frame", "size"])
    assert sorted(port.any_name for port in first.inputs) == ["frame", "size"]
    assert [port.any_name for port in second.inputs] == ["memory", "cut.0", "cut.1"]  # the shape is not among them
    assert len(first.outputs) == 3 and "positive" in first.outputs[0].names
    assert [port.any_name for port in second.outputs] == ["mean"]


@pytest.mark.parametrize("batch", [1, 4])
def test_parts_give_what_the_whole_gives(engine, batch):
    given = {name: tensor.repeat(batch, 1) for name, tensor in GIVEN.items()}
    memory = torch.arange(3.0 * batch).view(batch, 3)
    wanted = engine.run(given | {"memory": memory})
    torch.testing.assert_close(wanted["mean"], (given["frame"].relu() + memory) * 0.5 * 2 + batch)
    end = engine.begin(given, {"memory": (batch, 3)})
    for _ in range(2):  # what was begun can be ended again
        found = end({"memory": memory})
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_sizes_that_come_in_turns_are_compiled_once_each(engine, monkeypatch):
    compiled, compile_model = [], OpenVinoEngine._compile
    monkeypatch.setattr(OpenVinoEngine, "_compile", lambda *args: compiled.append(1) or compile_model(*args))
    for batch in [1, 2, 3, 4, 5, 6] * 2:
        given = {name: tensor.repeat(batch, 1) for name, tensor in GIVEN.items()}
        assert engine.run(given | {"memory": torch.zeros(batch, 3)})["positive"].shape == (batch, 3)
    assert len(compiled) == 6


def test_frames_begun_side_by_side_do_not_mix(engine):
    frames = torch.randn(40, 1, 3)

    def begin(frame):
        return engine.begin({"frame": frame, "size": GIVEN["size"]}, {"memory": (1, 3)})

    with ThreadPoolExecutor(3) as threads:
        begun = list(threads.map(begin, frames))
    for frame, end in zip(frames, begun, strict=True):
        torch.testing.assert_close(end({"memory": torch.zeros(1, 3)})["mean"], frame.relu() + 1)


@pytest.mark.parametrize(
    ("make", "message"), [(forgetful, "inputs are frame carries nothing"), (inseparable, "nothing from frame alone")]
)
def test_graph_that_cannot_be_cut_says_why(make, message):
    with pytest.raises(ValueError, match=message):
        cut_model(make(), ["frame"])


@pytest.mark.parametrize("options", [{"threads": 1}, {"fixed_sizes": False}])
def test_only_graphs_of_fixed_sizes_are_begun_by_several_threads(tmp_path, options):
    openvino.save_model(averaging(), tmp_path / "averaging.xml")
    assert OpenVinoEngine(tmp_path / "averaging.xml", **({"threads": 2} | options)).side_by_side == 1
