"""`torch.compile` runs the step; nothing has to be installed but a C++ compiler."""

import torch

from .graph_modules import Graph


class CompiledEngine:
    """A graph compiled by PyTorch, anew for every size of input.

    Args:
        graph: what to run.
        compiler: PyTorch's name of the compiler.
    """

    def __init__(self, graph: Graph, compiler: str = "inductor"):
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._module = torch.compile(graph.module, fullgraph=True, dynamic=False, backend=compiler)

    @torch.inference_mode()
    def run(self, feeds: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Outputs by name for inputs by name."""
        return dict(zip(self.outputs, self._module(*(feeds[name] for name in self.inputs)), strict=True))
