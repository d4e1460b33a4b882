"""Long clips, a few frames at a time, where frames do not depend on each other."""

from collections.abc import Callable

import torch

# On a CPU the maps of a few frames stay in its caches; those of a long clip at once take twice the time a frame.
_FRAMES_AT_ONCE = 4


def in_pieces(compute: Callable[..., tuple], *frames: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Outputs of a function that treats every frame alone; in inference on a CPU it gets a few frames at a time.

    Args:
        compute: takes tensors (N, ...) and gives a tuple of tensors (N, ...), or None where it has nothing.
        frames: its inputs.
    """
    first = frames[0]
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if first.device.type != "cpu" or torch.is_grad_enabled() or tracing or len(first) <= _FRAMES_AT_ONCE:
        return compute(*frames)
    pieces = zip(*(tensor.split(_FRAMES_AT_ONCE) for tensor in frames), strict=True)
    found = zip(*(compute(*piece) for piece in pieces), strict=True)
    return tuple(None if maps[0] is None else torch.cat(maps) for maps in found)
