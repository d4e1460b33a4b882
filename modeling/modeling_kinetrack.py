"""The KineTrack models: frames in, actions, detections and a streaming state out (arXiv 2507.22421, Section 3)."""

import torch
from torch import nn

from ..configuration.configuration_kinetrack import KineTrackConfig
from ..modeling.attention_kinetrack import AttentionMemory, HierarchicalAttention, cell_overlap
from ..modeling.difference_kinetrack import MotionEncoder
from ..modeling.encoder_kinetrack import SpatialEncoder
from ..modeling.heads_kinetrack import ActionHead, TrackingHead
from ..modeling.initialisation_kinetrack import KineTrackPreTrainedModel
from ..modeling.inputs_kinetrack import check_inputs
from ..modeling.keypoints_kinetrack import KeypointHead, keypoint_loss, locate_keypoints, widened
from ..modeling.loss_kinetrack import classification_loss, tracking_losses
from ..modeling.outputs_kinetrack import KineTrackModelOutput, KineTrackOutput, KineTrackState
from ..modeling.pieces_kinetrack import in_pieces
from ..modeling.processes_kinetrack import mean_over_processes
from ..modeling.propagation_kinetrack import TemporalPropagation
from ..modeling.statistics_kinetrack import region_statistics


class KineTrackModel(KineTrackPreTrainedModel):
    """Encoder, parallel temporal propagation and hierarchical attention, without heads.

    Args:
        config: `KineTrackConfig`.
        with_pyramid: whether P is made even if the model has no keypoints to find in it.
    """

    _keys_to_ignore_on_load_unexpected = [r"^action_head\.", r"^tracking_head\."]  # of checkpoints with heads

    def __init__(self, config: KineTrackConfig, with_pyramid: bool = True):
        super().__init__(config)
        self.encoder = SpatialEncoder(config, with_pyramid or bool(config.keypoints))
        if config.statistics_channels not in (0, self.encoder.channels[2]):
            raise ValueError(
                f"`statistics_channels` must be 0 or those of the backbone's last map, {self.encoder.channels[2]}, got "
                f"{config.statistics_channels}."
            )
        self.keypoint_head = KeypointHead(config) if config.keypoints else None
        self.motion = MotionEncoder(config, self.encoder.channels[0]) if config.motion_channels else None
        self.propagation = nn.ModuleList([TemporalPropagation(config) for _ in range(config.num_propagation_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = HierarchicalAttention(config)
        self.post_init()

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        state: KineTrackState | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> KineTrackModelOutput | tuple:
        """Runs a clip, or continues a stream.

        Args:
            pixel_values_videos: (B, T, 3, H, W), normalised by the video processor; H and W multiples of 32.
            frame_mask: (B, T), True for valid frames, which come first. None: all.
            pixel_mask: (B, H, W), True for pixels of the frame, which are top left. None: all.
            state: of the earlier part of the same stream.
            output_hidden_states: whether `hidden_states` are wanted.
            output_attentions: whether alpha and beta, which always are in the output, are wanted as `attentions` too.
            return_dict: False for a tuple.

        Raises:
            ValueError: wrong shapes, a mask with valid frames behind masked ones, values that are not finite (nothing
                is changed then), a state of another batch or size, or a state with a bidirectional model.
        """
        frame_mask, pixel_mask = _as_bool(frame_mask), _as_bool(pixel_mask)
        check_inputs(self.config, pixel_values_videos, frame_mask, pixel_mask, state)
        batch, length, _, height, width = pixel_values_videos.shape
        frames = pixel_values_videos.to(self.dtype)
        if pixel_mask is not None:
            frames = frames * pixel_mask[:, None, None].to(frames.dtype)
        if frame_mask is not None:
            frames = frames * frame_mask[:, :, None, None, None].to(frames.dtype)
        if self.encoder.gradient_checkpointing and self.training and not frames.requires_grad:
            frames = frames.detach().requires_grad_()  # reentrant checkpoints pass gradients only to such inputs
        features, pyramid, fine, cells = self.encoder(frames.flatten(0, 1))
        keypoint_logits = None
        if self.keypoint_head is not None:
            (keypoint_logits,) = in_pieces(lambda maps: (self.keypoint_head(maps),), pyramid)  # (BT, K, H8, W8)
        motion_memory = None
        if self.motion is not None:
            past = (None, None) if state is None else (state.motion, state.scores[:, -1] > float("-inf"))
            change, motion_memory, difference = self.motion(fine, batch, frame_mask, *past)
            features = features + change
            cells = cells if difference is None else torch.cat([cells, difference], dim=1)
            motion_memory = motion_memory if length == 1 else motion_memory.clone()  # as below
        features = features.unflatten(0, (batch, length)).permute(0, 1, 3, 4, 2)  # (B, T, H16, W16, D)

        overlap = self.valid_overlap(pixel_mask, batch, height, width, features.device).to(features.dtype)
        cell_mask = (overlap > 0).to(features.dtype).unsqueeze(-1)  # (B, 1, H16, W16, 1)
        hidden, cache, hidden_states = [], [], []
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_hidden_states:
            features = _keep(features, hidden_states)
        for index, block in enumerate(self.propagation):
            past = None if state is None else (state.hidden[index], state.cache[index])
            features, (new_hidden, new_cache) = block(features, cell_mask, frame_mask, past)
            # Both are views; kept as such, they would keep the whole clip's features in memory.
            hidden.append(new_hidden if length == 1 else new_hidden.clone())
            cache.append(new_cache if length == 1 else new_cache.clone())
            if output_hidden_states:
                features = _keep(features, hidden_states)
        features = self.norm(features)

        alpha, pooled, scores = self.attention.attend_space(
            features.flatten(0, 1), overlap.repeat_interleave(length, dim=0)
        )  # (BT, 1, H16, W16), (BT, 1, D), (BT, 1)
        if keypoint_logits is not None:
            area = (pixel_mask, None, batch, height, width, features.device, self.config.output_stride)
            whole = self.region_overlap(*area).repeat_interleave(length, dim=0)  # (BT, 1, H8, W8)
            pooled = self._with_poses(pooled, keypoint_logits, whole)
        if self.config.statistics_channels:
            area = (pixel_mask, None, batch, height, width, features.device, self.config.statistics_stride)
            shares = self.region_overlap(*area).to(features.dtype)  # (B, 1, H32, W32)
            statistics = region_statistics(cells, shares.repeat_interleave(length, dim=0))
            pooled = torch.cat([pooled, statistics], dim=-1)
        beta, summary, memory = self.attention.attend_time(
            scores.view(batch, length),
            pooled.view(batch, length, -1),
            frame_mask,
            None if state is None else AttentionMemory(state.scores, state.features),
        )
        output = KineTrackModelOutput(
            last_hidden_state=features.flatten(0, 1).permute(0, 3, 1, 2).unflatten(0, (batch, length)),
            pyramid_features=None if pyramid is None else pyramid.unflatten(0, (batch, length)),
            keypoint_logits=None if keypoint_logits is None else keypoint_logits.unflatten(0, (batch, length)),
            cell_features=cells.unflatten(0, (batch, length)) if self.config.statistics_channels else None,
            pooler_output=summary,
            spatial_attention=alpha.squeeze(1).unflatten(0, (batch, length)),
            temporal_attention=beta,
            state=KineTrackState(tuple(hidden), tuple(cache), memory.scores, memory.features, motion_memory),
            hidden_states=tuple(hidden_states) if output_hidden_states else None,
        )
        if self.config.output_attentions if output_attentions is None else output_attentions:
            output.attentions = (output.spatial_attention, output.temporal_attention)
        return output if _wants_dict(self.config, return_dict) else output.to_tuple()

    def initial_state(self, batch: int, height: int, width: int) -> KineTrackState:
        """The state of streams that have not begun; continuing it is the same as `state=None`.

        Args:
            batch: number of streams.
            height: H of the model input, a multiple of 32.
            width: W of the model input, a multiple of 32.
        """
        size, stride = self.config.hidden_size, self.config.feature_stride
        anchor = self.norm.weight  # new tensors are of its type, on its device
        grid = (height // stride, width // stride, size)
        cached = self.config.temporal_kernel_size - 1
        memory = self.attention.empty_memory(anchor.new_zeros(batch, self.config.region_size))
        motion = None
        if self.motion is not None:
            motion = anchor.new_zeros(batch, self.config.motion_channels, height // 8, width // 8)
        return KineTrackState(
            hidden=tuple(anchor.new_zeros(batch, *grid) for _ in self.propagation),
            cache=tuple(anchor.new_zeros(batch, cached, *grid) for _ in self.propagation),
            scores=memory.scores,
            features=memory.features,
            motion=motion,
        )

    def valid_overlap(
        self, pixel_mask: torch.Tensor | None, batch: int, height: int, width: int, device: torch.device
    ) -> torch.Tensor:
        """Fraction of every stride-16 cell that shows the frame: (B, 1, H/16, W/16)."""
        return self.region_overlap(pixel_mask, None, batch, height, width, device)

    def region_overlap(
        self,
        pixel_mask: torch.Tensor | None,
        boxes: torch.Tensor | None,
        batch: int,
        height: int,
        width: int,
        device: torch.device,
        stride: int | None = None,
    ) -> torch.Tensor:
        """Overlap of cells with boxes cut to the valid area, or with that area when boxes is None.

        Args:
            pixel_mask: (B, H, W) or None.
            boxes: (B, R, 4) xyxy in pixels of the model input, or None.
            batch: B.
            height: H of the model input.
            width: W of the model input.
            device: of the features; the model's own is none when its weights are offloaded.
            stride: pixels a cell; None: those of F, 16.

        Returns:
            (B, R, H/stride, W/stride), R = 1 without boxes; zero for boxes outside or not finite.
        """
        stride = stride or self.config.feature_stride
        if pixel_mask is None and boxes is None:
            return torch.ones(batch, 1, height // stride, width // stride, device=device)
        if pixel_mask is None:
            extent = torch.tensor([[width, height]], device=device, dtype=torch.float32).expand(batch, 2)
        else:
            extent = torch.stack([pixel_mask[:, 0].sum(-1), pixel_mask[:, :, 0].sum(-1)], dim=-1).float()  # (B, 2)
        area = torch.cat([torch.zeros_like(extent), extent], dim=-1).unsqueeze(1)  # (B, 1, 4)
        if boxes is not None:
            boxes = torch.where(boxes.isfinite().all(-1, keepdim=True), boxes, torch.zeros_like(boxes)).to(area.dtype)
            area = torch.cat(
                [torch.maximum(boxes[..., :2], area[..., :2]), torch.minimum(boxes[..., 2:], area[..., 2:])], dim=-1
            )
        return cell_overlap(area, height // stride, width // stride, stride)

    def attend_regions(
        self,
        features: torch.Tensor,
        boxes: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        keypoint_logits: torch.Tensor | None = None,
        cell_features: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Eqs. 3 and 4 within boxes, on features already computed.

        Args:
            features: `last_hidden_state` of single frames, (B, D, H/16, W/16).
            boxes: (B, R, 4) xyxy in pixels of the model input.
            pixel_mask: (B, H, W) or None.
            keypoint_logits: of the same frames, (B, K, H/8, W/8); a model with keypoints needs them.
            cell_features: of the same frames, (B, S, H/32, W/32); a model with region statistics needs them.

        Returns:
            Scores w_tau . f (B, R), -inf for boxes outside the frame, and f (B, R, D); with keypoints or statistics
            (B, R, `config.region_size`), poses and statistics behind f.

        Raises:
            ValueError: a model with keypoints or statistics was not given what it needs, or another was.
        """
        for name, maps, wanted in (
            ("keypoint_logits", keypoint_logits, bool(self.config.keypoints)),
            ("cell_features", cell_features, bool(self.config.statistics_channels)),
        ):
            if (maps is not None) != wanted:
                raise ValueError(f"This model takes {'its' if wanted else 'no'} `{name}` of the same frames here.")
        height, width = (side * self.config.feature_stride for side in features.shape[-2:])
        overlap = self.region_overlap(pixel_mask, boxes, features.shape[0], height, width, features.device).to(
            features.dtype
        )
        _, pooled, scores = self.attention.attend_space(features.permute(0, 2, 3, 1), overlap)
        if keypoint_logits is not None:
            near = (pixel_mask, widened(boxes), features.shape[0], height, width, features.device)
            pooled = self._with_poses(pooled, keypoint_logits, self.region_overlap(*near, self.config.output_stride))
        if cell_features is not None:
            area = (pixel_mask, boxes, features.shape[0], height, width, features.device, self.config.statistics_stride)
            shares = self.region_overlap(*area).to(features.dtype)
            pooled = torch.cat([pooled, region_statistics(cell_features, shares)], dim=-1)
        return scores, pooled

    def _with_poses(self, pooled, keypoint_logits, weight):
        """F (N, R, D) and the poses of the same regions, (N, R, `config.region_size`); no gradient beyond the maps.

        The maps go on meaning keypoints: no action is learned in them.
        """
        poses = locate_keypoints(keypoint_logits.detach(), weight.detach(), self.config.output_stride)
        return torch.cat([pooled, poses.flatten(2).to(pooled.dtype)], dim=-1)


class _KineTrackWithHeads(KineTrackPreTrainedModel):
    """What the three models with heads share; which heads there are is the subclass's to say."""

    has_action_head = True
    has_tracking_head = True

    def __init__(self, config: KineTrackConfig):
        super().__init__(config)
        self.kinetrack = KineTrackModel(config, with_pyramid=self.has_tracking_head)
        self.action_head = ActionHead(config) if self.has_action_head else None
        self.tracking_head = TrackingHead(config) if self.has_tracking_head else None
        self.post_init()

    def forward(
        self,
        pixel_values_videos: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        pixel_mask: torch.Tensor | None = None,
        state: KineTrackState | None = None,
        labels: torch.Tensor | None = None,
        group_labels: dict[str, torch.Tensor] | None = None,
        region_boxes: torch.Tensor | None = None,
        frame_labels: list[list[dict | None]] | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> KineTrackOutput | tuple:
        """Runs a clip, or continues a stream, through encoder, propagation, attention and heads in one pass.

        Args:
            pixel_values_videos: as for `KineTrackModel.forward`, like all arguments that are not described here.
            frame_mask: likewise.
            pixel_mask: likewise.
            state: likewise.
            labels: (B,) class of the primary group, -100 where there is none.
            group_labels: (B,) for each of `config.label_groups`, -100 where there is none.
            region_boxes: (B, T, 4) xyxy in pixels of the model input, one tube a clip, NaN in frames without a box.
                `region_logits` are its actions; with `labels`, they are learned as well.
            frame_labels: see `tracking_losses`.
            output_hidden_states: as for `KineTrackModel.forward`.
            output_attentions: likewise.
            return_dict: likewise.

        Raises:
            ValueError: as `KineTrackModel.forward`, or labels outside the configuration's.
        """
        frame_mask, pixel_mask = _as_bool(frame_mask), _as_bool(pixel_mask)
        base = self.kinetrack(
            pixel_values_videos, frame_mask, pixel_mask, state, output_hidden_states, output_attentions, True
        )
        output = KineTrackOutput(
            spatial_attention=base.spatial_attention,
            temporal_attention=base.temporal_attention,
            keypoint_logits=base.keypoint_logits,
            cell_features=base.cell_features,
            last_hidden_state=base.last_hidden_state,
            state=base.state,
            hidden_states=base.hidden_states,
            attentions=base.attentions,
        )
        terms = {}
        if self.action_head is not None:
            output.logits, output.group_logits = self.action_head(base.pooler_output)
            if region_boxes is not None:
                summary, present = self.describe_tubes(base, region_boxes, frame_mask, pixel_mask)
                output.region_logits, _ = self.action_head(summary)
                if labels is not None:
                    if self.action_head.movement_classifier is not None:
                        movement = self.action_head.classify_movement(summary)
                        terms["movement"] = self._action_loss(movement, labels.where(present, -100))
                    terms["region"] = self._action_loss(output.region_logits, labels.where(present, -100))
                    if self.config.spatial_attention:
                        terms["attention"] = self._attention_loss(base, region_boxes, pixel_mask, labels != -100)
            if labels is not None:
                terms["action"] = self._action_loss(output.logits, labels)
            for name, wanted in (group_labels or {}).items():
                if name not in output.group_logits:
                    raise ValueError(f"`group_labels` has {name!r}; `label_groups` has {list(output.group_logits)}.")
                terms[f"group_{name}"] = self._action_loss(output.group_logits[name], wanted)
        if self.tracking_head is not None:
            found = in_pieces(self.tracking_head, *self.detection_inputs(base, pixel_mask, pixel_values_videos))
            maps = tuple(tensor.unflatten(0, pixel_values_videos.shape[:2]) for tensor in found)
            output.heatmap_logits, output.distances, output.embeddings = maps
        if frame_labels is not None:
            whole = torch.ones_like(pixel_values_videos[:, 0, 0], dtype=torch.bool)  # (B, H, W)
            valid = self.valid_cells(whole if pixel_mask is None else pixel_mask)
            if frame_mask is not None:  # nothing is learned from padding, whatever its labels
                frame_labels = [
                    [label if seen else None for label, seen in zip(clip, mask, strict=True)]
                    for clip, mask in zip(frame_labels, frame_mask.tolist(), strict=True)
                ]
            if self.tracking_head is not None:
                terms |= tracking_losses(self.config, *maps, frame_labels, valid)
            if output.keypoint_logits is not None:
                terms["keypoint"] = keypoint_loss(self.config, output.keypoint_logits, frame_labels, valid)
        terms = {name: term for name, term in terms.items() if term is not None}
        if terms:
            output.loss_terms = terms
            output.loss = self.loss_function(terms, self.config.loss_weights)
        output = KineTrackOutput(**output)  # in the documented order: the loss first, then the logits
        return output if _wants_dict(self.config, return_dict) else output.to_tuple()

    def attend_regions(self, features, boxes, pixel_mask=None, keypoint_logits=None, cell_features=None):
        """See `KineTrackModel.attend_regions`."""
        return self.kinetrack.attend_regions(features, boxes, pixel_mask, keypoint_logits, cell_features)

    def describe_tubes(
        self,
        base: KineTrackModelOutput,
        boxes: torch.Tensor,
        frame_mask: torch.Tensor | None = None,
        pixel_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """R (B, `config.summary_size`) within one tube a clip, and whether it is seen at all (B,).

        Args:
            base: what `KineTrackModel` said of the clips.
            boxes: (B, T, 4), see `region_boxes` of `forward`.
            frame_mask: (B, T) or None.
            pixel_mask: (B, H, W) or None.
        """
        batch, length = boxes.shape[:2]
        features = base.last_hidden_state.flatten(0, 1)  # (BT, D, H16, W16)
        if pixel_mask is not None:
            pixel_mask = pixel_mask.repeat_interleave(length, dim=0)
        extra = (None if maps is None else maps.flatten(0, 1) for maps in (base.keypoint_logits, base.cell_features))
        scores, pooled = self.attend_regions(features, boxes.reshape(-1, 1, 4), pixel_mask, *extra)
        scores, pooled = scores.view(batch, length), pooled.view(batch, length, -1)
        _, summary, _ = self.kinetrack.attention.attend_time(scores, pooled, frame_mask)
        return summary, (scores > float("-inf")).any(1)

    def _attention_loss(self, base, boxes, pixel_mask, labelled):
        """-log of the share of alpha that lies in the labelled actor's box, averaged over the frames that have one."""
        alpha = base.spatial_attention  # (B, T, H16, W16)
        height, width = (side * self.config.feature_stride for side in alpha.shape[-2:])
        overlap = self.kinetrack.region_overlap(pixel_mask, boxes, len(alpha), height, width, alpha.device)
        inside = (overlap.flatten(2).amax(-1) > 0) & labelled[:, None].to(overlap.device)  # (B, T)
        if not (count := mean_over_processes(inside.sum())):
            return None
        share = (alpha * overlap.to(alpha.dtype)).flatten(2).sum(-1)[inside]
        return -share.float().clamp(min=1e-6).log().sum() / count

    def detection_inputs(
        self, base: KineTrackModelOutput, pixel_mask: torch.Tensor | None, frames: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What `tracking_head` takes, each with all frames of all clips along its first axis.

        Args:
            base: what `KineTrackModel` said of the clips.
            pixel_mask: (B, H, W) or None.
            frames: the clips, (..., H, W).
        """
        batch, length = base.last_hidden_state.shape[:2]
        height, width = frames.shape[-2:]  # of the input itself: exporters take some sizes of maps for constants
        overlap = self.kinetrack.valid_overlap(pixel_mask, batch, height, width, base.last_hidden_state.device)
        cell_mask = (overlap > 0).to(base.last_hidden_state.dtype).repeat_interleave(length, dim=0)
        maps = (base.pyramid_features, base.last_hidden_state, base.spatial_attention)  # (B, T, ...)
        return *(tensor.flatten(0, 1) for tensor in maps), cell_mask

    def initial_state(self, batch: int, height: int, width: int) -> KineTrackState:
        """See `KineTrackModel.initial_state`."""
        return self.kinetrack.initial_state(batch, height, width)

    def valid_cells(self, pixel_mask: torch.Tensor) -> torch.Tensor:
        """Cells of the detection grid whose centre shows the frame.

        Args:
            pixel_mask: (B, H, W), True for pixels of the frame.

        Returns:
            (B, H/8, W/8) bool.
        """
        stride = self.config.output_stride
        return pixel_mask[:, stride // 2 :: stride, stride // 2 :: stride].bool()

    def _action_loss(self, logits, labels):
        known = labels[labels != -100]
        if known.numel() and not 0 <= int(known.min()) <= int(known.max()) < logits.shape[-1]:
            raise ValueError(
                f"`labels` must be -100 or between 0 and {logits.shape[-1] - 1}, got {known.unique().tolist()}. "
                "Set `num_labels` (or `id2label`) to the classes of the data."
            )
        return classification_loss(logits, labels, self.config.label_smoothing)


class KineTrackForVideoClassification(_KineTrackWithHeads):
    """KineTrack with the action head only; stride-8 maps are computed only to find keypoints in them."""

    has_tracking_head = False
    # A checkpoint with both heads is a good one for this model: no report of what it leaves out.
    _keys_to_ignore_on_load_unexpected = [r"^tracking_head\.", r"\.encoder\.(fine_lateral|smooth_pyramid)\."]


class KineTrackForObjectTracking(_KineTrackWithHeads):
    """KineTrack with the tracking head only."""

    has_action_head = False
    _keys_to_ignore_on_load_unexpected = [r"^action_head\."]


class KineTrackForVideoAnalysis(_KineTrackWithHeads):
    """KineTrack with both heads on one pass; `config.classification_head` and `tracking_head` can leave one out."""

    def __init__(self, config: KineTrackConfig):
        self.has_action_head = config.classification_head
        self.has_tracking_head = config.tracking_head
        super().__init__(config)


def _keep(features, hidden_states):
    """Keeps F (B, T, H, W, D) as (B, T, D, H, W) and returns a view of that, so gradients pass through what is kept."""
    hidden_states.append(features.permute(0, 1, 4, 2, 3))
    return hidden_states[-1].permute(0, 1, 3, 4, 2)


def _as_bool(mask):
    return None if mask is None else mask.bool()


def _wants_dict(config, return_dict):
    return config.return_dict if return_dict is None else return_dict
