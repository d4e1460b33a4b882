"""Long clips, a few frames at a time: where frames do not depend on each other, and where a state is carried on."""

from collections.abc import Callable

import torch

# On a CPU the maps of a few frames stay in its caches; those of a long clip at once take twice the time a frame.
_FRAMES_AT_ONCE = 4
_STEPS_AT_ONCE = 16  # of a recurrence, whose maps are smaller


def in_pieces(compute: Callable[..., tuple], *frames: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    """Outputs of a function that treats every frame alone; in inference on a CPU it gets a few frames at a time.

    Args:
        compute: takes tensors (N, ...) and gives a tuple of tensors (N, ...), or None where it has nothing.
        frames: its inputs.
    """
    if not _has_caches_to_keep(frames[0]) or len(frames[0]) <= _FRAMES_AT_ONCE:
        return compute(*frames)
    pieces = zip(*(tensor.split(_FRAMES_AT_ONCE) for tensor in frames), strict=True)
    found = zip(*(compute(*piece) for piece in pieces), strict=True)
    return tuple(None if maps[0] is None else torch.cat(maps) for maps in found)


def carried_in_pieces(
    compute: Callable[..., tuple], features: torch.Tensor, frame_mask: torch.Tensor | None, state: tuple | None
) -> tuple[torch.Tensor, tuple]:
    """Output and new state of a recurrence; in inference on a CPU it goes through a few frames at a time.

    Args:
        compute: takes features (B, T, ...), a mask of frames (B, T) or None and a state or None, and gives features of
            the same shape and the new state.
        features: (B, T, ...).
        frame_mask: (B, T) or None.
        state: of what came before, or None.
    """
    if not _has_caches_to_keep(features) or features.shape[1] <= _STEPS_AT_ONCE:
        return compute(features, frame_mask, state)
    found = []
    for begin in range(0, features.shape[1], _STEPS_AT_ONCE):
        piece = slice(begin, begin + _STEPS_AT_ONCE)
        mask = None if frame_mask is None else frame_mask[:, piece]
        part, state = compute(features[:, piece], mask, state)
        found.append(part)
    return torch.cat(found, dim=1), state


def _has_caches_to_keep(features: torch.Tensor) -> bool:
    """Whether pieces are worth it; to be asked before lengths are, which exporters would take for constants."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return features.device.type == "cpu" and not torch.is_grad_enabled() and not tracing
