"""Teaches a captioner from videos whose tokens are known, with the epoch chosen by the loss on other videos."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..train_config import CaptionSettings
from ..train_optimizer import warmup_cosine
from .captioner import VideoCaptioner, encode_texts
from .video_tokens import VideoTokens


@dataclass(frozen=True)
class CaptionedVideo:
    """A video and what is said of it.

    Attributes:
        tokens: what the decoder sees.
        said: questions with answers; with the question "", a sentence that describes the video.
    """

    tokens: VideoTokens
    said: tuple[tuple[str, str], ...]


def train_captioner(
    model: VideoCaptioner,
    tokenizer,
    train: Sequence[CaptionedVideo],
    dev: Sequence[CaptionedVideo],
    settings: CaptionSettings,
    seed: int,
    on_epoch: Callable[[dict], None] | None = None,
) -> dict:
    """Trains in place and leaves the weights of the epoch with the lowest loss on the dev videos.

    Args:
        model: made with the same seed.
        tokenizer: the model's.
        train: videos to learn from.
        dev: videos to choose the epoch by.
        settings: see `CaptionSettings`.
        seed: of order, texts and dropout.
        on_epoch: called with `{"epoch", "loss", "dev_loss"}` after each.

    Returns:
        `{"epoch", "dev_loss"}` of the chosen epoch; losses are nats a word.

    Raises:
        FloatingPointError: a loss that is not finite.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    steps = math.ceil(len(train) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, steps, settings.epochs * steps)
    )
    best, kept = {"dev_loss": math.inf}, None
    for epoch in range(1, settings.epochs + 1):
        model.train()
        losses = []
        for order in np.array_split(rng.permutation(len(train)), steps):
            videos, said = _draw_texts([train[number] for number in order], settings.texts, rng)
            loss = model(videos, **_placed(encode_texts(tokenizer, said), model.device)).loss
            if not torch.isfinite(loss):
                raise FloatingPointError(f"Epoch {epoch}: the loss is not finite. Lower the learning rate.")
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        dev_loss = mean_loss(model, tokenizer, dev)
        if on_epoch is not None:
            on_epoch({"epoch": epoch, "loss": float(np.mean(losses)), "dev_loss": dev_loss})
        if dev_loss < best["dev_loss"]:
            best, kept = {"epoch": epoch, "dev_loss": dev_loss}, copy.deepcopy(model.state_dict())
    if kept is None:
        raise FloatingPointError("The loss on the dev videos was never finite.")
    model.load_state_dict(kept)
    return best


def _draw_texts(chosen: Sequence[CaptionedVideo], count: int, rng: np.random.Generator) -> tuple[list, list]:
    videos, said = [], []
    for video in chosen:
        drawn = rng.permutation(len(video.said))[:count]
        videos += [video.tokens] * len(drawn)
        said += [video.said[number] for number in drawn]
    return videos, said


def _placed(batch: dict, device) -> dict:
    return {name: tensor.to(device) for name, tensor in batch.items()}


@torch.inference_mode()
def mean_loss(model: VideoCaptioner, tokenizer, videos: Sequence[CaptionedVideo], batch_size: int = 64) -> float:
    """Nats a word over everything that is said of some videos."""
    model.eval()
    pairs = [(video.tokens, text) for video in videos for text in video.said]
    total, words = 0.0, 0
    for start in range(0, len(pairs), batch_size):
        tokens, said = zip(*pairs[start : start + batch_size], strict=True)
        batch = _placed(encode_texts(tokenizer, said), model.device)
        count = int((batch["labels"][:, 1:] != -100).sum())
        total += model(tokens, **batch).loss.item() * count
        words += count
    return total / words
