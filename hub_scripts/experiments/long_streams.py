"""Playing streams of an hour through the temporal part of a model, with every frame encoded only once.

The encoder sees each frame by itself, so a stream that shows the same frames again needs it no second time. All else is
the model's own forward pass with its own state, in chunks, which gives what single steps give.
"""

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torchvision.transforms.v2 import functional as transforms

from ..data.clips import ClipSource
from ..process_memory import resident_mib


class EncodedFrames(nn.Module):
    """Stands in for a model's encoder, with the maps of frames it has seen.

    Args:
        encoder: of the model.
        frames: `(N, h, w, 3)` uint8 RGB.
        size: (height, width) of the model input, multiples of 32.
        mean, std: normalisation of the model's processor.
    """

    gradient_checkpointing = False

    @torch.inference_mode()
    def __init__(self, encoder: nn.Module, frames: np.ndarray, size: tuple[int, int], mean, std):
        super().__init__()
        self.size, self.wanted = size, np.zeros(0, int)
        mean, std = (torch.tensor(values)[:, None, None] * 255 for values in (mean, std))
        maps = []
        for start in range(0, len(frames), 4):
            images = torch.from_numpy(frames[start : start + 4]).permute(0, 3, 1, 2)  # (n, 3, h, w)
            images = transforms.resize(images, list(size), antialias=True).float().sub_(mean).div_(std)
            features, _, fine, *_ = encoder(images)
            maps.append((features, fine))
        self.features, self.fine = (torch.cat(parts) for parts in zip(*maps, strict=True))

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor, None]:
        """The maps of the frames named by `wanted`, whatever is given; none for the heads and statistics left out."""
        return self.features[self.wanted], None, self.fine[self.wanted], None


def read_spans(
    clips: Sequence[ClipSource], rate: float, size: tuple[int, int]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The frames of clips at a rate.

    Args:
        clips: to be read.
        rate: Hz; a clip of a lower one is taken as it is.
        size: (height, width) to resize to.

    Returns:
        `(N, h, w, 3)` uint8 RGB of all clips, and of each its first frame among them and its length.
    """
    frames, spans = [], []
    for clip in clips:
        chosen = np.arange(clip.first, clip.stop, max(clip.frames.frame_rate / rate, 1.0)).astype(int)
        spans.append((sum(map(len, frames)), len(chosen)))
        images = torch.from_numpy(clip.frames.read(chosen)).permute(0, 3, 1, 2)  # (T, 3, h, w)
        frames.append(transforms.resize(images, list(size), antialias=True).permute(0, 2, 3, 1).contiguous().numpy())
    return np.concatenate(frames), spans


def shuffled_passes(spans: Sequence[tuple[int, int]], count: int, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Clips one after the other, again and again in new orders, in whole passes: every clip comes equally often.

    Args:
        spans: first frame and length of each clip.
        count: frames at least.
        seed: of the orders.

    Returns:
        Numbers of frames; where in them each appearance of a clip ends; and which clip it was.
    """
    rng, order, ends, clips = np.random.default_rng(seed), [], [], []
    while len(order) < count:
        for clip in rng.permutation(len(spans)).tolist():
            first, length = spans[clip]
            order += range(first, first + length)
            ends.append(len(order))
            clips.append(clip)
    return order, ends, clips


def without_poses(model: nn.Module) -> nn.Module:
    """The same model reading R alone: what these experiments ask about, without keypoints and region statistics."""
    config = deepcopy(model.config)
    config.keypoints, config.statistics_channels = [], 0
    plain = type(model)(config)
    own = plain.state_dict()
    plain.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in own})
    return plain.eval()


@dataclass
class StreamTrace:
    """What a stream leaves behind. T frames, C chunks, L layers.

    Attributes:
        scores: `(T,)`, w_tau . f of Eq. 5.
        pooled: `(T, D)`, f of Eq. 4.
        state_rms: `(C, L)` root mean square of the recurrent state after each chunk.
        state_peak: `(C, L)` its largest magnitude.
        memory_mib: `(C,)` memory of the process that is in use after each chunk.
        milliseconds: `(C,)` processor time a frame, the encoder left out.
    """

    scores: torch.Tensor
    pooled: torch.Tensor
    state_rms: np.ndarray
    state_peak: np.ndarray
    memory_mib: np.ndarray
    milliseconds: np.ndarray


@torch.inference_mode()
def play(model, encoded: EncodedFrames, order: Sequence[int]) -> StreamTrace:
    """Plays frames in an order, from a fresh state.

    Args:
        model: a `KineTrackModel` with a window for its temporal attention.
        encoded: of the same model.
        order: numbers of frames.

    Raises:
        ValueError: the model attends without a window, or reads keypoints.
    """
    window = model.config.attention_window
    if window is None or model.keypoint_head is not None:
        raise ValueError("Long streams are played with an `attention_window` and without `keypoints`.")
    order = np.asarray(order)
    # Written in place: thousands of small tensors kept between the large ones of every chunk would fragment the heap.
    scores, pooled = torch.zeros(len(order)), torch.zeros(len(order), model.config.hidden_size)
    encoder, model.encoder = model.encoder, encoded
    try:
        parts = list(_chunks(model, encoded, order, window, scores, pooled))
    finally:
        model.encoder = encoder
    return StreamTrace(scores, pooled, *map(np.array, zip(*parts, strict=True)))


def _chunks(
    model, encoded: EncodedFrames, order: np.ndarray, window: int, scores: torch.Tensor, pooled: torch.Tensor
) -> Iterator[tuple]:
    """Fills `scores` and `pooled`; yields what else `StreamTrace` has, chunk by chunk."""
    state = None
    for start in range(0, len(order), window):
        encoded.wanted = order[start : start + window]
        count = len(encoded.wanted)
        blank = torch.zeros(1, count, 3, *encoded.size)  # the stand-in does not look at it
        begin = time.process_time()
        state = model(blank, state=state).state
        spent = 1000 * (time.process_time() - begin) / count
        hidden = [layer.square().mean().sqrt().item() for layer in state.hidden]
        largest = [layer.abs().max().item() for layer in state.hidden]
        memory = resident_mib()
        scores[start : start + count] = state.scores[0, -count:]
        pooled[start : start + count] = state.features[0, -count:]
        yield hidden, largest, memory, spent


def attend(trace: StreamTrace, end: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Eq. 5 over the last `window` frames before frame `end`: beta `(W,)` and R `(D,)`."""
    first = max(end - window, 0)
    beta = trace.scores[first:end].softmax(0)
    return beta, beta @ trace.pooled[first:end]


def sharpness(trace: StreamTrace, window: int, samples: int = 40) -> dict[str, float]:
    """How sharp beta is over windows of a length, averaged over ends spread evenly through the stream.

    Returns:
        `effective`, the exponential of its entropy: over how many frames it spreads; and `largest`, its largest weight
        times the length of the window: 1 when uniform.
    """
    ends = np.linspace(min(window, len(trace.scores)), len(trace.scores), samples).round().astype(int)
    found = []
    for end in dict.fromkeys(ends.tolist()):
        beta = attend(trace, end, window)[0].double()
        found.append((float((-torch.special.xlogy(beta, beta).sum()).exp()), float(beta.max() * len(beta))))
    effective, largest = np.mean(found, axis=0)
    return {"effective": float(effective), "largest": float(largest)}


def shapes_loop(length: int, size: tuple[int, int] = (96, 128), scene: int = 125, seed: int = 0) -> np.ndarray:
    """Frames `(length, h, w, 3)` of coloured boxes that move over noise; every `scene` frames all is new."""
    rng = np.random.default_rng(seed)
    height, width = size
    frames = np.empty((length, height, width, 3), np.uint8)
    for begin in range(0, length, scene):
        ground = rng.integers(40, 200, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
        boxes = [(rng.uniform(0, 1, 2), rng.uniform(-0.01, 0.01, 2), rng.integers(0, 256, 3)) for _ in range(4)]
        for step in range(min(scene, length - begin)):
            image = ground.copy()
            for place, speed, color in boxes:
                top, left = ((place + step * speed) % 1 * (height * 0.8, width * 0.8)).astype(int)
                image[top : top + height // 4, left : left + width // 8] = color
            frames[begin + step] = image
    return frames
