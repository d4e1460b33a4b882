"""What the models refuse: inputs of other shapes, masks that make no sense, values that are not finite."""

import torch

from ..modeling.outputs_kinetrack import KineTrackState


def check_inputs(
    config,
    videos: torch.Tensor,
    frame_mask: torch.Tensor | None,
    pixel_mask: torch.Tensor | None,
    state: KineTrackState | None,
) -> None:
    """Checks what `KineTrackModel.forward` is given, whose arguments these are.

    Raises:
        ValueError: shapes that do not belong together or to the state, masks or values that cannot be.
    """
    if videos.dim() != 5 or videos.shape[2] != 3 or videos.shape[1] < 1:
        raise ValueError(f"`pixel_values_videos` must be (batch, frames, 3, height, width), got {tuple(videos.shape)}.")
    if state is not None and config.bidirectional:
        raise ValueError("A model with `bidirectional=True` needs the whole clip and cannot continue a stream.")
    batch, length, _, height, width = videos.shape
    if frame_mask is not None and frame_mask.shape != (batch, length):
        raise ValueError(f"`frame_mask` must be {(batch, length)}, got {tuple(frame_mask.shape)}.")
    if pixel_mask is not None and pixel_mask.shape != (batch, height, width):
        raise ValueError(f"`pixel_mask` must be {(batch, height, width)}, got {tuple(pixel_mask.shape)}.")
    if state is not None:
        stride = config.feature_stride
        grid = (batch, height // stride, width // stride, config.hidden_size)
        memory = (batch, config.attention_window or 1)
        carried = [*((hidden, grid) for hidden in state.hidden), (state.scores, memory)]
        if config.motion_channels:
            carried.append((state.motion, (batch, config.motion_channels, height // 8, width // 8)))
        for tensor, wanted in carried:
            shape = None if tensor is None else tuple(tensor.shape)
            if shape != wanted:
                raise ValueError(
                    f"The state belongs to a stream of shape {shape}, this input needs {wanted}. "
                    "Start a new stream (state=None) when the batch, the frame size or the model changes."
                )
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or videos.is_meta:
        return
    # One sum is cheaper than a mask of everything, and any NaN or infinity shows in it.
    if not torch.isfinite(videos.sum()) and not torch.isfinite(videos).all():
        raise ValueError("`pixel_values_videos` has NaN or infinite values; drop the broken frames.")
    if frame_mask is not None and not bool((frame_mask[:, :-1] >= frame_mask[:, 1:]).all() & frame_mask[:, 0].all()):
        raise ValueError("`frame_mask` must have the valid frames first and at least one of them.")
