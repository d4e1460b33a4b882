"""Convolutions that become one in an ONNX file."""

import onnx
import pytest
import torch
from kinetrack.processing.graphs.graph_modules import Graph
from kinetrack.processing.graphs.onnx_engine import OnnxEngine
from kinetrack.processing.graphs.onnx_files import write_onnx
from torch import nn


class ReadTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(16, 24, 1), nn.Conv2d(24, 4, 1)

    def forward(self, maps):
        between = self.first(maps)
        return self.second(between) + between.mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("module", "convolutions"),
    [
        (nn.Sequential(nn.Conv2d(16, 24, 3, padding=1, bias=False), nn.Conv2d(24, 4, 1)), 1),
        (nn.Sequential(nn.Conv2d(16, 24, 1), nn.BatchNorm2d(24), nn.Conv2d(24, 4, 1, bias=False)), 1),
        (nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 12, 1), nn.Conv2d(12, 4, 1)), 1),
        (nn.Sequential(nn.Conv2d(16, 2, 1), nn.Conv2d(2, 4, 1)), 2),  # one would be more to compute
        (nn.Sequential(nn.Conv2d(16, 24, 1), nn.ReLU(), nn.Conv2d(24, 4, 1)), 2),
        (nn.Sequential(nn.Conv2d(16, 24, 1), nn.Conv2d(24, 4, 3, padding=1)), 2),
        (nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 4, 1)), 2),
        (ReadTwice(), 2),
    ],
)
def test_convolutions_are_joined_where_nothing_is_between_and_it_is_less_work(tmp_path, module, convolutions):
    torch.manual_seed(0)
    graph = Graph("maps", module, {"maps": ("batch", 16, "height", "width")}, {"out": ("batch", 4, "height", "width")})
    write_onnx(graph, tmp_path / "maps.onnx")
    nodes = onnx.load(str(tmp_path / "maps.onnx")).graph.node
    assert sum(node.op_type == "Conv" for node in nodes) == convolutions
    maps = torch.randn(3, 16, 7, 9)
    with torch.inference_mode():
        wanted = module(maps)
    torch.testing.assert_close(OnnxEngine(tmp_path / "maps.onnx", threads=1).run({"maps": maps})["out"], wanted)
