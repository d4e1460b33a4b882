"""A small text decoder that attends to a video's tokens: describes it, or answers a question that its text begins with.

The decoder is Transformers' own `GPT2LMHeadModel` with cross-attention (`add_cross_attention=True`), of random weights
and a few hundred thousand parameters. Prefix tokens before a decoder without cross-attention would do as well, but each
of them costs as much as a word in every layer; here they are keys and values alone, computed once a video.

A text is `<bos> question <sep> answer <eos>`; without a question, the answer is a sentence that describes the video.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers import initialization as init

from .video_tokens import PLACES, VideoTokens

SEES = ("both", "frames", "tracks", "nothing")
_NULL, _FRAME, _TRACK = range(3)
_SPECIAL = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "bos_token": "<bos>",
    "sep_token": "<sep>",
    "eos_token": "<eos>",
}


def make_tokenizer(texts: Iterable[str], max_words: int = 64) -> PreTrainedTokenizerFast:
    """A word-level tokenizer, without case, of the words of some texts.

    Args:
        texts: all of them; words that occur once are kept.
        max_words: longest text of a decoder.
    """
    tokenizer = Tokenizer(models.WordLevel(unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=list(_SPECIAL.values()), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_words, **_SPECIAL)


@strict
class VideoCaptionerConfig(PreTrainedConfig):
    r"""
    Configuration of `VideoCaptioner`.

    Args:
        text_config (`dict` or `GPT2Config`, *optional*):
            The decoder; made by `for_data` as a rule.
        video_size (`int`, *optional*, defaults to 128):
            Features D of a video's tokens.
        sees (`str`, *optional*, defaults to `"both"`):
            Which tokens it attends to: those of `"frames"`, of `"tracks"`, `"both"`, or `"nothing"`.
        token_dropout (`float`, *optional*, defaults to 0.3):
            Of the tokens' features, in training.
        place_mean (`list[float]`, *optional*):
            Of tracks' places, see `PLACES`; zeros by default.
        place_std (`list[float]`, *optional*):
            Their standard deviations; ones by default.
        kinetrack_model (`str`, *optional*, defaults to `"kinetrack-nano"`):
            The model whose tokens it was trained on.
    """

    model_type = "kinetrack_captioner"
    sub_configs = {"text_config": GPT2Config}
    text_config: dict | PreTrainedConfig | None = None
    video_size: int = 128
    sees: str = "both"
    token_dropout: float = 0.3
    place_mean: list[float] | None = None
    place_std: list[float] | None = None
    kinetrack_model: str = "kinetrack-nano"

    def __post_init__(self, **kwargs):
        self.place_mean = self.place_mean or [0.0] * len(PLACES)
        self.place_std = self.place_std or [1.0] * len(PLACES)
        if not isinstance(self.text_config, GPT2Config):
            self.text_config = GPT2Config(**(self.text_config or {}))
        if self.sees not in SEES:
            raise ValueError(f"`sees` must be one of {SEES}, got {self.sees!r}.")
        super().__post_init__(**kwargs)

    @classmethod
    def for_data(
        cls, tokenizer, videos: Sequence[VideoTokens], hidden_size: int = 96, layers: int = 2, **options
    ) -> "VideoCaptionerConfig":
        """A decoder for the words of a tokenizer and tokens like those of some videos.

        Args:
            tokenizer: from `make_tokenizer`.
            videos: to learn from.
            hidden_size: of the decoder, a multiple of 4 (its heads).
            layers: of the decoder.
            **options: of the configuration.
        """
        places = np.concatenate([video.places for video in videos])
        places = places if len(places) > 1 else np.zeros((1, len(PLACES)), np.float32)
        std = places.std(0)
        text = GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=tokenizer.model_max_length,
            n_embd=hidden_size,
            n_layer=layers,
            n_head=4,
            add_cross_attention=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return cls(
            text_config=text,
            video_size=videos[0].frames.shape[1],
            place_mean=places.mean(0).tolist(),
            place_std=np.where(std > 1e-3, std, 1.0).tolist(),
            **options,
        )


class VideoCaptioner(PreTrainedModel):
    """A decoder with cross-attention, and a projection of a video's tokens to its width.

    Args:
        config: `VideoCaptionerConfig`.
    """

    config_class = VideoCaptionerConfig
    base_model_prefix = "captioner"
    main_input_name = "input_ids"

    def __init__(self, config: VideoCaptionerConfig):
        super().__init__(config)
        size = config.text_config.n_embd
        self.norm = nn.LayerNorm(config.video_size)
        self.features = nn.Linear(config.video_size, size)
        self.places = nn.Sequential(nn.Linear(len(PLACES), size), nn.GELU(), nn.Linear(size, size))
        self.kinds = nn.Embedding(3, size)
        self.dropout = nn.Dropout(config.token_dropout)
        self.token_norm = nn.LayerNorm(size)
        self.decoder = GPT2LMHeadModel(config.text_config)
        self.decoder.loss_type = "ForCausalLM"  # which Transformers finds by the name of most classes, not of this one
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        """Of what is not the decoder's: features, places and kinds begin with an equal say."""
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=1.0)
        else:
            super()._init_weights(module)

    def memory(self, videos: Sequence[VideoTokens]) -> dict[str, torch.Tensor]:
        """What the decoder attends to in each video, and what of it is padding.

        A token of nothing comes first, so that there is something to attend to in every video.

        Args:
            videos: B of them.

        Returns:
            `encoder_hidden_states` (B, 1 + N, n_embd) and `encoder_attention_mask` (B, 1 + N).
        """
        shown = [_rows(video, self.config) for video in videos]
        longest = max(len(kinds) for *_, kinds in shown)
        mask = torch.zeros(len(shown), longest, dtype=torch.long)
        features = torch.zeros(len(shown), longest, self.config.video_size)
        places = torch.zeros(len(shown), longest, len(PLACES))
        kinds = torch.zeros(len(shown), longest, dtype=torch.long)
        for row, (feature, place, kind) in enumerate(shown):
            features[row, : len(kind)], places[row, : len(kind)] = torch.from_numpy(feature), torch.from_numpy(place)
            kinds[row, : len(kind)], mask[row, : len(kind)] = torch.from_numpy(kind), 1
        features, places, kinds, mask = (part.to(self.device) for part in (features, places, kinds, mask))
        tokens = self.features(self.dropout(self.norm(features))) + self.places(places)  # (B, 1 + N, n_embd)
        tokens = tokens * (kinds != _NULL).unsqueeze(-1) + self.kinds(kinds)
        return {"encoder_hidden_states": self.token_norm(tokens), "encoder_attention_mask": mask}

    def forward(
        self,
        videos: Sequence[VideoTokens],
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ):
        """The decoder's output, with the mean loss of the words that have labels.

        Args:
            videos: B of them.
            input_ids: (B, L), from `encode_texts`, like the others.
            attention_mask: (B, L).
            labels: (B, L), -100 for words that are not to be predicted.
        """
        return self.decoder(input_ids, attention_mask=attention_mask, labels=labels, **self.memory(videos))


def _rows(video: VideoTokens, config: VideoCaptionerConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    features, places, tracks = video.rows()
    places = (places - np.array(config.place_mean, np.float32)) / np.array(config.place_std, np.float32)
    kinds = np.where(tracks, _TRACK, _FRAME)
    chosen = {"both": kinds > _NULL, "frames": kinds == _FRAME, "tracks": kinds == _TRACK, "nothing": kinds < _NULL}[
        config.sees
    ]
    empty = np.zeros((1, features.shape[1]), np.float32), np.zeros((1, len(PLACES)), np.float32), np.array([_NULL])
    parts = (features[chosen], places[chosen], kinds[chosen])
    return tuple(np.concatenate(pair) for pair in zip(empty, parts, strict=True))


def encode_texts(tokenizer, said: Sequence[tuple[str, str]]) -> dict[str, torch.Tensor]:
    """Questions with their answers for the decoder, which is taught the answers alone.

    Args:
        tokenizer: from `make_tokenizer`.
        said: B pairs; no question is "".

    Returns:
        `input_ids`, `attention_mask` and `labels`, (B, L) each, padded on the right.

    Raises:
        ValueError: a text that is longer than the decoder's positions.
    """
    ids, starts = [], []
    for question, answer in said:
        prefix = _prefix(tokenizer, question)
        ids.append([*prefix, *tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id])
        starts.append(len(prefix))
        if len(ids[-1]) > tokenizer.model_max_length:
            raise ValueError(
                f"A question with its answer has {len(ids[-1])} words, more than {tokenizer.model_max_length}: "
                f"{answer[:60]!r}."
            )
    batch = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt")
    places = torch.arange(batch["input_ids"].shape[1])
    taught = (places >= torch.tensor(starts)[:, None]) & batch["attention_mask"].bool()
    return dict(batch) | {"labels": batch["input_ids"].where(taught, -100)}


def _prefix(tokenizer, question: str) -> list[int]:
    return [
        tokenizer.bos_token_id,
        *tokenizer.encode(question, add_special_tokens=False),
        tokenizer.sep_token_id,
    ]


@torch.inference_mode()
def answer(
    model: VideoCaptioner, tokenizer, videos: Sequence[VideoTokens], questions: Sequence[str], batch_size: int = 64
) -> list[str]:
    """The likeliest words one by one, until the decoder ends.

    Args:
        model: trained.
        tokenizer: the model's.
        videos: N of them.
        questions: one for each; "" for a description.
        batch_size: videos at once.
    """
    model.eval()
    found = []
    for start in range(0, len(videos), batch_size):
        ids = [_prefix(tokenizer, question) for question in questions[start : start + batch_size]]
        texts = tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt").to(model.device)
        words = model.decoder.generate(
            **{key: texts[key] for key in ("input_ids", "attention_mask")},
            **model.memory(videos[start : start + batch_size]),
            max_length=tokenizer.model_max_length,
            do_sample=False,
        )
        found += tokenizer.batch_decode(words[:, texts["input_ids"].shape[1] :], skip_special_tokens=True)
    return found
