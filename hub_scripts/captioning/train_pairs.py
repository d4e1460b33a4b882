"""`kinetrack train model=MODEL captions=PAIRS.csv`: a captioner on one's own videos, and how it is used."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from ...processing.loading import load_model
from ..atomic_files import write_json_atomically
from ..train_checkpoint import write_folder
from ..train_config import TrainConfig
from .caption_checkpoint import CaptionCheckpoint, training_key
from .caption_training import CaptionedVideo, train_captioner
from .captioner import VideoCaptioner, VideoCaptionerConfig, answer, make_tokenizer
from .pairs import read_pairs, split_pairs
from .video_tokens import TokenCache, TokenSession


def train_on_pairs(settings: TrainConfig, resume: bool = True) -> Path:
    """Trains a captioner; tokens of videos that were watched before are read from the cache.

    Args:
        settings: with `captions.pairs` and `model.checkpoint`.
        resume: whether to go on from the checkpoint in `settings.output`, which is written at every look at the dev
            videos.

    Returns:
        Folder of the captioner, for `load_captioner`.

    Raises:
        FileNotFoundError: no such file or model.
        ValueError: no model to watch with, pairs that cannot be used, or a checkpoint of another training.
    """
    if settings.model.checkpoint is None:
        raise ValueError("A captioner needs a trained model to watch with: add model=kinetrack-nano.")
    captions, output = settings.captions, Path(settings.output)
    parts = split_pairs(read_pairs(captions.pairs), settings.data.dev_fraction)
    model, processor = load_model(settings.model.checkpoint, backend="auto")
    cache = TokenCache(TokenSession(model, processor), Path(settings.data.cache or output / "cache"))
    train, dev = (
        [
            CaptionedVideo(cache.read_file(video.path), video.said)
            for video in tqdm(videos, desc=f"watching {name}", unit="video", disable=None, leave=False)
        ]
        for name, videos in zip(("train", "dev"), parts, strict=True)
    )
    tokenizer = make_tokenizer(text for video in train for pair in video.said for text in pair)
    torch.manual_seed(settings.seed)
    config = VideoCaptionerConfig.for_data(
        tokenizer,
        [video.tokens for video in train],
        captions.hidden_size,
        captions.layers,
        token_dropout=captions.token_dropout,
        sees=captions.sees,
        kinetrack_model=_stable_name(settings.model.checkpoint),
    )
    captioner = VideoCaptioner(config)
    output.mkdir(parents=True, exist_ok=True)
    key = training_key(captions, settings.seed, (train, dev))
    checkpoint = CaptionCheckpoint(output / "captions.pt", key, resume)
    with tqdm(total=captions.steps, desc="training", unit="step", disable=None) as bar:

        def on_evaluation(record: dict) -> None:
            bar.set_postfix_str(f"loss {record['loss']:.3f}, dev {record['dev_loss']:.3f}")
            bar.update(record["step"] - bar.n)

        chosen = train_captioner(captioner, tokenizer, train, dev, captions, settings.seed, on_evaluation, checkpoint)
    write_json_atomically(output / "settings.json", settings.to_dict() | {"chosen": chosen}, default=str)

    def write(folder: Path) -> None:
        captioner.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    write_folder(output / "model", write)
    return output / "model"


def _stable_name(model: str) -> str:
    """A folder's absolute path; names and Hub ids as they are."""
    return str(Path(model).resolve()) if os.path.isdir(model) else model


def load_captioner(folder: str | os.PathLike) -> tuple[VideoCaptioner, PreTrainedTokenizerFast]:
    """A captioner that `train_on_pairs` wrote, and its tokenizer.

    Raises:
        FileNotFoundError: no captioner lies there.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"There is no captioner at {folder}. `kinetrack train model=kinetrack-nano captions=PAIRS.csv` makes one."
        )
    return VideoCaptioner.from_pretrained(folder).eval(), PreTrainedTokenizerFast.from_pretrained(folder)


def caption_videos(
    folder: str | os.PathLike, videos: Sequence[str | os.PathLike], questions: Sequence[str] = ()
) -> list[list[str]]:
    """What a captioner says of videos.

    Args:
        folder: of the captioner.
        videos: files.
        questions: to each of them; none asks for a description.

    Returns:
        Answers by video and question.

    Raises:
        FileNotFoundError: no captioner or no video there.
        ValueError: a video that cannot be read.
    """
    captioner, tokenizer = load_captioner(folder)
    session = TokenSession(*load_model(captioner.config.kinetrack_model, backend="auto"))
    asked = list(questions) or [""]
    return [answer(captioner, tokenizer, [session.watch(str(video))] * len(asked), asked) for video in videos]
