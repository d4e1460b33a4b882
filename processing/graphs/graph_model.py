"""Models whose step is run by a graph: what a session asks of a model, answered by another runtime than PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from .graph_modules import STEP_MAPS, objects_in
from .graph_state import GraphState, evaluate_shape

_GROUP = "group_logits."
_ROUND = 16  # regions


@dataclass
class StepOutput:
    """Output of one step; fields and shapes are those of `KineTrackOutput` with T = 1.

    Only that what the tracking head has to say is said of the objects in a frame, not of all its cells: `objects` has
    `boxes` (B, K, 4) xyxy in pixels of the model input, `scores` (B, K) with 0 where there is no further object,
    `labels` (B, K) and `embeddings` (B, K, E); it is empty without a tracking head.
    """

    temporal_attention: torch.Tensor
    spatial_attention: torch.Tensor
    last_hidden_state: torch.Tensor
    state: GraphState
    logits: torch.Tensor | None = None
    objects: dict[str, torch.Tensor] = field(default_factory=dict)
    keypoint_logits: torch.Tensor | None = None
    cell_features: torch.Tensor | None = None
    group_logits: dict[str, torch.Tensor] = field(default_factory=dict)


class AcceleratedModel:
    """A model for `KineTrackSession` whose step is a graph. All else is asked of `parts`.

    Args:
        parts: a KineTrack model with heads, or `ExportedParts`: configuration, region attention, action head.
        engine: runs the step graph: `run(feeds) -> outputs`, tensors by name.
        backend: name of the engine's kind.

    Attributes:
        side_by_side: for how many frames `begin` is best called at a time; 1 if this engine has no `begin`.
    """

    def __init__(self, parts, engine, backend: str):
        self.parts, self.engine, self.backend = parts, engine, backend
        self.runs_beside = backend != "compile"  # other runtimes leave Python and PyTorch's own threads free
        self.side_by_side = getattr(engine, "side_by_side", 1)
        # These compile anew for every number of streams, a second and 100 MiB each; on two cores a batch saves no time.
        self._rows_alone = backend in ("compile", "openvino")
        self._content = (None, None)
        self._carried = {}  # shapes of the state by batch, height and width

    def __getattr__(self, name: str) -> Any:
        if name == "parts":  # copying and pickling look before there is anything
            raise AttributeError(name)
        return getattr(self.parts, name)

    def eval(self) -> "AcceleratedModel":
        """Itself; graphs are always in eval mode."""
        return self

    def initial_state(self, batch: int, height: int, width: int) -> GraphState:
        """The state of streams that have not begun."""
        return GraphState(self.parts.initial_state(batch, height, width).tensors())

    def begin(self, pixel_values_videos: torch.Tensor, pixel_mask: torch.Tensor | None = None) -> Callable:
        """What a step can do before the state is known, in parallel with other threads: `begun` for the step itself.

        Arguments and errors as for the step; for engines that can do several `side_by_side`.
        """
        batch, _, _, height, width = pixel_values_videos.shape
        sizes = batch, height, width
        if sizes not in self._carried:
            state = self.initial_state(*sizes).named
            self._carried[sizes] = {name: tuple(tensor.shape) for name, tensor in state.items()}
        return self.engine.begin(self._frame_feeds(pixel_values_videos, pixel_mask), self._carried[sizes])

    def __call__(
        self,
        pixel_values_videos: torch.Tensor,
        pixel_mask: torch.Tensor | None = None,
        state: GraphState | None = None,
        begun: Callable | None = None,
    ) -> StepOutput:
        """One step.

        Args:
            pixel_values_videos: (B, 1, 3, H, W) float32.
            pixel_mask: (B, H, W), True for pixels of the frame, which are top left. None: all.
            state: of the earlier part of the same streams; None: they begin.
            begun: from `begin` with the same frames and mask.

        Raises:
            ValueError: more than one frame, or shapes that do not belong together.
        """
        batch, _, _, height, width = pixel_values_videos.shape
        state = state or self.initial_state(batch, height, width)
        if begun is None:
            found = self._run(self._frame_feeds(pixel_values_videos, pixel_mask) | state.named, batch)
        else:
            found = begun(state.named)
        maps = {name: found[name].unsqueeze(1) for name in STEP_MAPS if name in found}
        groups = {name.removeprefix(_GROUP): value for name, value in found.items() if name.startswith(_GROUP)}
        carried = GraphState({name: found[f"new.{name}"] for name in state.named})
        return StepOutput(
            temporal_attention=found["temporal_attention"],
            state=carried,
            logits=found.get("logits"),
            objects=objects_in(found),
            group_logits=groups,
            **maps,
        )

    def _run(self, feeds, batch):
        if batch == 1 or not self._rows_alone:
            return self.engine.run(feeds)
        rows = [
            self.engine.run({name: tensor[row : row + 1] for name, tensor in feeds.items()}) for row in range(batch)
        ]
        return {name: torch.cat([found[name] for found in rows]) for name in rows[0]}

    def _frame_feeds(self, pixel_values_videos, pixel_mask):
        """The inputs of the graph that are the frame's own, not the past's."""
        batch, length, _, height, width = pixel_values_videos.shape
        if length != 1:
            raise ValueError(f"The exported step takes one frame at a time, got {length}.")
        content = self._content_size(pixel_mask, batch, height, width)
        return {"pixel_values": pixel_values_videos[:, 0], "content_size": content}

    def _content_size(self, pixel_mask, batch, height, width):
        """(B, 2) int64 rows and columns that show the frame; a stream's mask is always the same tensor."""
        if pixel_mask is None:
            return torch.tensor([[height, width]] * batch)
        mask, content = self._content  # read once: another thread's stream may come in between
        if mask is not pixel_mask:
            content = _shown(pixel_mask)
            self._content = pixel_mask, content
        return content


def _shown(pixel_mask: torch.Tensor) -> torch.Tensor:
    """(B, 2) int64 rows and columns that show the frame, of a mask (B, H, W) that is True there, top left."""
    return torch.stack([pixel_mask[:, :, 0].sum(1), pixel_mask[:, 0].sum(1)], 1)


class ExportedParts:
    """What a session asks of a model beside its step, from the graphs and the description of an exported folder.

    Args:
        config: `KineTrackConfig`.
        state_shapes: symbolic shapes of the state by name.
        engines: for the graphs `regions`, `recall` and `actions`; empty without an action head.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, config, state_shapes: dict[str, tuple[int | str, ...]], engines: dict[str, Any]):
        self.config, self._state_shapes, self._engines = config, state_shapes, engines
        self.kinetrack = SimpleNamespace(attention=_RecalledAttention(config, engines.get("recall")))
        self.action_head = self._classify if config.classification_head else None
        self.tracking_head = True if config.tracking_head else None

    def parameters(self):
        """One tensor of the type and on the device of all others."""
        yield torch.zeros(1)

    def initial_state(self, batch: int, height: int, width: int) -> GraphState:
        """The state of streams that have not begun."""
        sizes = {"batch": batch, "height": height, "width": width}
        return GraphState(
            {
                name: torch.full(evaluate_shape(shape, sizes), float("-inf") if name == "scores" else 0.0)
                for name, shape in self._state_shapes.items()
            }
        )

    def valid_cells(self, pixel_mask: torch.Tensor) -> torch.Tensor:
        """(B, H/8, W/8) bool, cells of the detection grid whose centre shows the frame."""
        stride = self.config.output_stride
        return pixel_mask[:, stride // 2 :: stride, stride // 2 :: stride].bool()

    def attend_regions(
        self,
        features: torch.Tensor,
        boxes: torch.Tensor,
        pixel_mask: torch.Tensor,
        keypoint_logits: torch.Tensor | None = None,
        cell_features: torch.Tensor | None = None,
    ):
        """Eqs. 3 and 4 within boxes: scores (B, R) and f (B, R, D). Arguments as for `KineTrackModel`."""
        if not boxes.shape[1]:
            return features.new_zeros(len(boxes), 0), features.new_zeros(len(boxes), 0, self.config.region_size)
        count = boxes.shape[1]
        # Runtimes are slow where sizes change all the time; boxes that are nowhere make up the round number.
        boxes = F.pad(boxes.float(), (0, 0, 0, -count % _ROUND))
        content = _shown(pixel_mask)
        feeds = {"last_hidden_state": features, "boxes": boxes, "content_size": content}
        maps = {"keypoint_logits": keypoint_logits, "cell_features": cell_features}
        feeds |= {name: value for name, value in maps.items() if value is not None}
        found = self._engines["regions"].run(feeds)
        return found["score"][:, :count], found["pooled"][:, :count]

    def _classify(self, representation: torch.Tensor):
        """R (N, D) to logits (N, num_labels) and those of each group."""
        if not len(representation):
            groups = self.config.label_groups.items()
            empty = {name: representation.new_zeros(0, len(classes)) for name, classes in groups}
            return representation.new_zeros(0, self.config.num_labels), empty
        found = self._engines["actions"].run({"representation": representation})
        groups = {name.removeprefix(_GROUP): value for name, value in found.items() if name.startswith(_GROUP)}
        return found["logits"], groups


@dataclass
class _Memory:
    """What `AttentionMemory` is to a model: (N, W) scores and (N, W, D) features."""

    scores: torch.Tensor
    features: torch.Tensor

    def rows(self, chosen) -> "_Memory":
        return _Memory(self.scores[chosen], self.features[chosen])

    def join(self, other: "_Memory") -> "_Memory":
        return _Memory(torch.cat([self.scores, other.scores]), torch.cat([self.features, other.features]))


class _RecalledAttention:
    """The temporal attention of a session's tracks, by the graph `recall`."""

    def __init__(self, config, engine):
        self._size, self._window, self._engine = config.region_size, config.attention_window or 1, engine

    def empty_memory(self, pooled: torch.Tensor) -> _Memory:
        count, window = len(pooled), self._window
        return _Memory(pooled.new_full((count, window), float("-inf")), pooled.new_zeros(count, window, self._size))

    def attend_time(self, scores, pooled, frame_mask, memory: _Memory):
        """(None, R (N, D), new memory) for one moment: scores (N, 1), pooled (N, 1, D)."""
        if not len(scores):
            return None, pooled[:, 0], memory
        feeds = {"score": scores[:, 0], "pooled": pooled[:, 0]}
        found = self._engine.run(feeds | {"scores": memory.scores, "features": memory.features})
        return None, found["representation"], _Memory(found["new.scores"], found["new.features"])
