"""The tracking stack that people would otherwise assemble: RF-DETR of Transformers, then ByteTrack of `trackers`."""

import numpy as np
import torch

from .benchmark_clock import time_in_turns

# Boxes a frame that the tracker is given; random weights detect nothing.
_BOXES = 20
# Side of RF-DETR-base's input as it was released; its configuration's default of 518 is no multiple of its windows.
_SIDE = 560


def measure_stack(network, name: str, seconds: float = 10.0) -> dict:
    """One frame through a detector and ByteTrack, beside one step of a model, which also knows actions.

    The detector's weights are random; both trackers get the same boxes, since what is detected does not change a
    detector's cost.

    Args:
        network: the model, on its device.
        name: of the model.
        seconds: to spend.

    Returns:
        `ms` (a `Timing`) and `model_input` by name.
    """
    import supervision
    from trackers import ByteTrackTracker
    from transformers import RfDetrConfig, RfDetrForObjectDetection

    from ..processing.tracking_kinetrack import Detections, KineTracker

    device = str(network.device)
    detector = RfDetrForObjectDetection(RfDetrConfig()).eval().to(device)
    frame, picture = torch.randn(1, 1, 3, 352, 640, device=device), torch.randn(1, 3, _SIDE, _SIDE, device=device)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (_BOXES, 2))
    boxes, scores = np.concatenate([corners, corners + (40, 90)], 1), np.full(_BOXES, 0.9)
    trackers = KineTracker(), ByteTrackTracker()
    with torch.inference_mode():
        state = network(frame).state

    def ours():
        with torch.inference_mode():
            network(frame, state=state)
        trackers[0].update(Detections(boxes, scores))

    def theirs():
        with torch.inference_mode():
            detector(picture)
        trackers[1].update(supervision.Detections(xyxy=boxes, confidence=scores))

    times = time_in_turns({name: ours, "RF-DETR + ByteTrack": theirs}, seconds, device)
    sizes = {name: [352, 640], "RF-DETR + ByteTrack": [_SIDE, _SIDE]}
    return {row: {"model_input": sizes[row], "ms": timing.as_dict()} for row, timing in times.items()}
