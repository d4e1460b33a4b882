"""`torch.compile` runs the step; nothing has to be installed but a C++ compiler."""

import threading

import torch

from .graph_modules import Graph

_MOST_SIZES = 256  # PyTorch refuses the ninth by default
_LOCK = threading.Lock()  # its limit is the process's


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
        """Outputs by name for inputs by name. Threads wait for each other."""
        # The limit's newer name, `recompile_limit`, is not known to PyTorch 2.6.
        with _LOCK, torch._dynamo.config.patch(cache_size_limit=_MOST_SIZES):
            return dict(zip(self.outputs, self._module(*(feeds[name] for name in self.inputs)), strict=True))
