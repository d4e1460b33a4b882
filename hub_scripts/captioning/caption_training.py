"""Teaches a captioner from videos whose tokens are known, with the step chosen by the loss on other videos."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.nn.functional as F

from ..train_config import CaptionSettings
from ..train_optimizer import warmup_cosine
from .caption_checkpoint import CaptionCheckpoint, CaptionProgress
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
    on_evaluation: Callable[[dict], None] | None = None,
    checkpoint: CaptionCheckpoint | None = None,
) -> dict:
    """Trains in place and leaves the weights that had the lowest loss on the dev videos.

    Args:
        model: made with the same seed.
        tokenizer: the model's.
        train: videos to learn from.
        dev: videos to choose the step by.
        settings: see `CaptionSettings`.
        seed: of order, texts and dropout.
        on_evaluation: called with `{"step", "loss", "dev_loss"}` after each look at the dev videos.
        checkpoint: gone on from, and written after each look at the dev videos.

    Returns:
        `{"step", "dev_loss"}` of the chosen step; losses are nats a word.

    Raises:
        FloatingPointError: a loss that is not finite.
        ValueError: a checkpoint of another training.
    """
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, settings.evaluate_every, settings.steps)
    )
    progress, losses = CaptionProgress(model, optimizer, schedule), []
    if checkpoint is not None:
        checkpoint.load(progress)
    batches = islice(_batches(train, settings, np.random.default_rng(seed)), progress.step, None)
    for step, (videos, said) in zip(range(progress.step + 1, settings.steps + 1), batches, strict=False):
        model.train()
        texts = _placed(encode_texts(tokenizer, said), model.device)
        labels = texts.pop("labels")[:, 1:]  # (B, L - 1)
        logits = model(videos, **texts).logits[:, :-1]  # (B, L - 1, words)
        loss = F.cross_entropy(logits.transpose(1, 2), labels, label_smoothing=settings.label_smoothing)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"Step {step}: the loss is not finite. Lower captions.learning_rate.")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % settings.evaluate_every and step < settings.steps:
            continue
        dev_loss = mean_loss(model, tokenizer, dev)
        if on_evaluation is not None:
            on_evaluation({"step": step, "loss": float(np.mean(losses)), "dev_loss": dev_loss})
        losses, progress.step = [], step
        if progress.best is None or dev_loss < progress.best["dev_loss"]:
            progress.best = {"step": step, "dev_loss": dev_loss}
            progress.weights = copy.deepcopy(model.state_dict())
        if checkpoint is not None:
            checkpoint.save(progress)
    model.load_state_dict(progress.weights)
    return progress.best


def _batches(
    videos: Sequence[CaptionedVideo], settings: CaptionSettings, rng: np.random.Generator
) -> Iterator[tuple[list, list]]:
    """Without end: all videos in another order each time, with some of what is said of each."""
    steps = math.ceil(len(videos) / settings.batch_size)
    while True:
        for order in np.array_split(rng.permutation(len(videos)), steps):
            yield _draw_texts([videos[number] for number in order], settings.texts, rng)


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
