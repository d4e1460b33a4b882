"""What the KineTrack models return, and the state a stream carries."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class KineTrackState(ModelOutput):
    """All a stream carries from frame to frame; its size does not depend on how many frames were seen.

    Attributes:
        hidden (`tuple` of `num_propagation_layers` tensors `(B, H/16, W/16, D)`): h of every propagation block.
        cache (`tuple` of tensors `(B, k - 1, H/16, W/16, D)`): inputs of every block's temporal convolution.
        scores (`(B, W)`): the temporal attention's memory, see `AttentionMemory`.
        features (`(B, W, config.region_size)`): likewise.
        motion (`(B, M, H/8, W/8)`, *optional*): reduced features of the last frame, see `MotionEncoder`.
    """

    hidden: tuple[torch.Tensor, ...] | None = None
    cache: tuple[torch.Tensor, ...] | None = None
    scores: torch.Tensor | None = None
    features: torch.Tensor | None = None
    motion: torch.Tensor | None = None

    def rows(self, chosen: slice) -> "KineTrackState":
        """The state of some of the B streams, in memory of its own."""
        return self._map(lambda tensors: tensors[0][chosen].clone(), [self])

    @staticmethod
    def join(states: "list[KineTrackState]") -> "KineTrackState":
        """The states of several streams of one input size as one batch, in this order."""
        return states[0] if len(states) == 1 else states[0]._map(torch.cat, states)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Copies of all tensors by name, such as `hidden.0`."""
        return {name: tensor.clone() for name, tensor in self._named()}

    def load_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """Takes over what `tensors` gave, on this state's device.

        Raises:
            ValueError: names or shapes of another model or input size.
        """
        own = dict(self._named())
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
        if given != wanted:
            raise ValueError(f"The temporal state has the tensors {given}, this model and size need {wanted}.")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def _named(self):
        for index, (hidden, cache) in enumerate(zip(self.hidden, self.cache, strict=True)):
            yield f"hidden.{index}", hidden
            yield f"cache.{index}", cache
        yield "scores", self.scores
        yield "features", self.features
        if self.motion is not None:
            yield "motion", self.motion

    @classmethod
    def _map(cls, function, states) -> "KineTrackState":
        """A state whose every tensor is `function` of a list, that of the same tensors of `states`."""
        first = states[0]
        return cls(
            hidden=tuple(function([s.hidden[i] for s in states]) for i in range(len(first.hidden))),
            cache=tuple(function([s.cache[i] for s in states]) for i in range(len(first.cache))),
            scores=function([s.scores for s in states]),
            features=function([s.features for s in states]),
            motion=None if first.motion is None else function([s.motion for s in states]),
        )


@dataclass
class KineTrackModelOutput(ModelOutput):
    """Output of `KineTrackModel`.

    Attributes:
        last_hidden_state (`(B, T, D, H/16, W/16)`): F after propagation.
        pyramid_features (`(B, T, D, H/8, W/8)`, *optional*): P.
        keypoint_logits (`(B, T, K, H/8, W/8)`, *optional*): of the model's `keypoints`.
        cell_features (`(B, T, S, H/32, W/32)`, *optional*): what region statistics are of, the backbone's last map and
            the size of the frame differences.
        pooler_output (`(B, D)`): R, the representation seen from the last valid frame; with keypoints or region
            statistics `(B, config.summary_size)`, movement and statistics behind R.
        spatial_attention (`(B, T, H/16, W/16)`): alpha, summing to one over each frame.
        temporal_attention (`(B, M + T)`): beta over the M remembered frames and this clip's, summing to one.
        state (`KineTrackState`): for the next chunk of the stream.
        hidden_states (`tuple`, *optional*): F before and after every propagation block, each (B, T, D, H/16, W/16).
        attentions (`tuple`, *optional*): `(spatial_attention, temporal_attention)`, for code that expects this name.
    """

    last_hidden_state: torch.Tensor | None = None
    pyramid_features: torch.Tensor | None = None
    keypoint_logits: torch.Tensor | None = None
    cell_features: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    spatial_attention: torch.Tensor | None = None
    temporal_attention: torch.Tensor | None = None
    state: KineTrackState | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class KineTrackOutput(ModelOutput):
    """Output of the models with heads; what a model has no head for is None.

    Attributes:
        loss (scalar, *optional*): the weighted sum of `loss_terms`, where labels were given.
        logits (`(B, num_labels)`): primary action group.
        group_logits (`dict` of `(B, n)`): further label groups.
        region_logits (`(B, num_labels)`): actions within `region_boxes`, where those were given.
        heatmap_logits (`(B, T, C, H/8, W/8)`): object centres by class.
        distances (`(B, T, 4, H/8, W/8)`): pixels of the model input from cell centre to left, top, right, bottom.
        embeddings (`(B, T, E, H/8, W/8)`): identity, of unit length.
        loss_terms (`dict` of scalars): those of action, region, movement, attention, group_<name>, heatmap, box,
            identity and keypoint that had labels.

    The others are as in `KineTrackModelOutput`.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    group_logits: dict[str, torch.Tensor] | None = None
    region_logits: torch.Tensor | None = None
    heatmap_logits: torch.Tensor | None = None
    distances: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None
    keypoint_logits: torch.Tensor | None = None
    cell_features: torch.Tensor | None = None
    spatial_attention: torch.Tensor | None = None
    temporal_attention: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    state: KineTrackState | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    loss_terms: dict[str, torch.Tensor] | None = None
