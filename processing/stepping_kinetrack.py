"""One step of one or several streams: their newest frames go through the model in as few batches as can be."""

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class PendingFrame:
    """A frame of a stream that is ready for the model.

    Attributes:
        result: what is known of it so far.
        ticks: whether the temporal part moves on with it.
        pixels: (1, 1, 3, H, W) model input; None when there is nothing to compute.
        pixel_mask: (1, H, W) bool, pixels that show the frame.
        state: the stream's `KineTrackState`, a batch of one.
        spent: seconds by stage.
    """

    result: Any
    ticks: bool
    pixels: torch.Tensor | None = None
    pixel_mask: torch.Tensor | None = None
    state: Any = None
    spent: dict[str, float] = field(default_factory=dict)


@torch.inference_mode()
def step_sessions(sessions: Sequence, frames: Sequence, times: Sequence[float | None] | None = None) -> list:
    """Looks at one frame of each of several streams; those with model inputs of one size are one batch.

    Frames of a batch do not mix, so every stream gets what it would get alone (to the rounding of its sums).

    Args:
        sessions: `KineTrackSession`s of one model, all different.
        frames: a frame for each, as `KineTrackSession.step` takes it.
        times: seconds for each; as `KineTrackSession.step` when None.

    Returns:
        A `KineTrackFrameResult` for each.

    Raises:
        ValueError: as `KineTrackSession.step`, of the first frame that cannot be used; no session has changed then.
    """
    times = [None] * len(sessions) if times is None else times
    pending = [session.prepare(*given) for session, *given in zip(sessions, frames, times, strict=True)]
    results, batches = [None] * len(sessions), {}
    for index, frame in enumerate(pending):
        if frame.pixels is None:
            results[index] = sessions[index].finish(frame, None)
        else:
            key = (id(sessions[index].model), *frame.pixels.shape)
            batches.setdefault(key, []).append(index)
    for rows in batches.values():
        outputs = _look(sessions[rows[0]].model, [pending[index] for index in rows])
        for index, output in zip(rows, outputs, strict=True):
            results[index] = sessions[index].finish(pending[index], output)
    return results


def look_together(sessions: Sequence, frames: Sequence) -> list:
    """`step_sessions` for `VideoFrame`s of sources, with their numbers and the gaps before them."""
    for session, frame in zip(sessions, frames, strict=True):
        session.start_at(frame)
    results = step_sessions(sessions, [frame.image for frame in frames], [frame.time for frame in frames])
    for frame, result in zip(frames, results, strict=True):
        result.timings["decode"] = frame.decode_seconds
    return results


def _look(model, pending: list[PendingFrame]) -> list:
    """The model's output for each of some frames, computed as one batch."""
    started = clock.perf_counter()
    if len(pending) == 1:
        frame = pending[0]
        outputs = [model(frame.pixels, pixel_mask=frame.pixel_mask, state=frame.state)]
    else:
        output = model(
            torch.cat([frame.pixels for frame in pending]),  # (B, 1, 3, H, W)
            pixel_mask=torch.cat([frame.pixel_mask for frame in pending]),
            state=pending[0].state.join([frame.state for frame in pending]),
        )
        outputs = [_row(output, slice(index, index + 1)) for index in range(len(pending))]
    share = (clock.perf_counter() - started) / len(pending)
    for frame in pending:
        frame.spent["model"] = share
    return outputs


def _row(output, row: slice):
    """The part of a batch's output that belongs to one stream, still with a batch axis."""

    def part(value):
        if isinstance(value, torch.Tensor):
            return value[row]
        if hasattr(value, "rows"):
            return value.rows(row)
        return {name: part(item) for name, item in value.items()} if isinstance(value, dict) else value

    return type(output)(**{name: part(value) for name, value in vars(output).items()})
