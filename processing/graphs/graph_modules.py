"""What is exported: functions of tensors alone, with names and symbolic shapes for all that goes in and out.

`step` is the whole model on one frame of each of B streams; with `regions`, `recall` and `actions` somebody who has the
tracks' boxes finds out what each of them does. `clip` is the model on T frames at once.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..detection_kinetrack import describe_peaks, find_peaks
from .graph_state import as_fields, evaluate_shape, symbolic_shapes

Shape = tuple[int | str, ...]

# Maps of every frame, by grid.
FRAME_OUTPUTS = {
    "heatmap_logits": ("height/8", "width/8"),
    "distances": ("height/8", "width/8"),
    "embeddings": ("height/8", "width/8"),
    "keypoint_logits": ("height/8", "width/8"),
    "spatial_attention": ("height/16", "width/16"),
    "last_hidden_state": ("height/16", "width/16"),
    "cell_features": ("height/32", "width/32"),
}
# A step says of the objects in its frame alone what a clip has maps of: this many at most, and what of each.
MAX_OBJECTS = 300
OBJECT_OUTPUTS = ("boxes", "scores", "labels", "embeddings")
_PREFIX = "object_"
_DETECTION_MAPS = ("heatmap_logits", "distances", "embeddings")
STEP_MAPS = tuple(name for name in FRAME_OUTPUTS if name not in _DETECTION_MAPS)


@dataclass
class Graph:
    """A module to export.

    Attributes:
        name: of its file.
        module: takes the inputs in order, gives the outputs in order.
        inputs: shapes by name. `content_size` and nothing else is int64, the others are float32.
        outputs: shapes by name.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]

    def __post_init__(self):
        self.module.eval()

    def example(self, **sizes: int) -> dict[str, torch.Tensor]:
        """Inputs to trace with: noise, whole frames, and states in the middle of a stream."""
        sizes = {"batch": 2, "height": 64, "width": 96, "regions": 3, "tracks": 3} | sizes
        generator = torch.Generator().manual_seed(0)
        made = {}
        for name, shape in self.inputs.items():
            if name == "content_size":
                made[name] = torch.tensor([[sizes["height"], sizes["width"]]] * sizes["batch"])
            elif name == "boxes":
                corners = torch.rand(sizes["batch"], sizes["regions"], 2, 2, generator=generator)
                frame = torch.tensor([sizes["width"], sizes["height"]])
                made[name] = (corners * frame).sort(2).values.flatten(2)  # (B, R, 4) xyxy
            else:
                made[name] = torch.randn(evaluate_shape(shape, sizes), generator=generator)
        return made


def frame_mask_of(pixels: torch.Tensor, content_size: torch.Tensor) -> torch.Tensor:
    """(B, H, W) bool, True in the top left `content_size` (B, 2) rows and columns of `pixels` (..., H, W)."""
    rows = torch.arange(pixels.shape[-2], device=pixels.device)
    columns = torch.arange(pixels.shape[-1], device=pixels.device)
    return (rows[:, None] < content_size[:, :1, None]) & (columns < content_size[:, 1:, None])


class _Step(nn.Module):
    def __init__(self, model, state_names: list[str]):
        super().__init__()
        self.model, self.state_names = model, state_names
        self.state_type = type(model.initial_state(1, 32, 32))

    def forward(self, pixel_values, content_size, *state):
        mask = frame_mask_of(pixel_values, content_size)
        state = self.state_type(**as_fields(dict(zip(self.state_names, state, strict=True))))
        base = self.model.kinetrack(pixel_values.unsqueeze(1), pixel_mask=mask, state=state)
        clip, objects = [], []
        if self.model.action_head is not None:
            logits, groups = self.model.action_head(base.pooler_output)
            clip += [logits, *groups.values()]
        if self.model.tracking_head is not None:
            trunk = self.model.tracking_head.trunk(*self.model.detection_inputs(base, mask, pixel_values))
            objects = _find_objects(self.model.tracking_head, trunk, self.model.valid_cells(mask))
        frames = [getattr(base, name) for name in STEP_MAPS]
        frames = [tensor.squeeze(1) for tensor in frames if tensor is not None]
        carried = dict(base.state._named())
        return (*clip, base.temporal_attention, *objects, *frames, *(carried[name] for name in self.state_names))


def _find_objects(head, trunk: torch.Tensor, cell_mask: torch.Tensor) -> list[torch.Tensor]:
    """Values of `OBJECT_OUTPUTS`: objects, without the maps that say what would be at every cell."""
    peaks = find_peaks(head.score(trunk), cell_mask, MAX_OBJECTS)
    objects = describe_peaks(*peaks, *head.describe(trunk, peaks[-1]), trunk.shape[-1], head.stride)
    return [objects[name] for name in OBJECT_OUTPUTS]


class _Clip(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values_videos, content_size):
        batch, length, _, height, width = pixel_values_videos.shape
        output = self.model(
            pixel_values_videos,
            pixel_mask=frame_mask_of(pixel_values_videos, content_size),
            # The same as none; one that the model makes for itself would be traced with the example's batch.
            state=self.model.initial_state(batch, height, width),
        )
        (*clip, moments), frames = _outputs_of(output)
        return (*clip, moments[:, -length:], *frames)


class _Regions(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model, self.maps = model, list(_memory_maps(model.config))

    def forward(self, last_hidden_state, boxes, content_size, *maps):
        stride = self.model.config.feature_stride
        mask = frame_mask_of(last_hidden_state.repeat_interleave(stride, 2).repeat_interleave(stride, 3), content_size)
        return self.model.attend_regions(last_hidden_state, boxes, mask, **dict(zip(self.maps, maps, strict=True)))


class _Recall(nn.Module):
    def __init__(self, attention, memory_type):
        super().__init__()
        self.attention, self.memory_type = attention, memory_type

    def forward(self, score, pooled, memory_scores, memory_features):
        memory = self.memory_type(memory_scores, memory_features)
        _, summary, memory = self.attention.attend_time(score.unsqueeze(1), pooled.unsqueeze(1), None, memory)
        return summary, memory.scores, memory.features


class _Actions(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, representation):
        logits, groups = self.head(representation)
        return (logits, *groups.values())


def _outputs_of(output) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What is said of the clip, and of every frame, in the order of `_output_shapes`."""
    clip = [] if output.logits is None else [output.logits, *output.group_logits.values()]
    frames = [getattr(output, name) for name in FRAME_OUTPUTS]
    return [*clip, output.temporal_attention], [tensor for tensor in frames if tensor is not None]


def _output_shapes(model, moments: int, frames: tuple[int, ...] | None = None) -> dict[str, Shape]:
    """Outputs in their order; `frames` is (T,) for a clip and None for a step."""
    config = model.config
    shapes = action_shapes(config, "batch") if model.action_head is not None else {}
    shapes["temporal_attention"] = ("batch", moments)
    if frames is None and model.tracking_head is not None:
        shapes |= object_shapes(config)
    left_out = () if frames and model.tracking_head is not None else _DETECTION_MAPS
    maps = {name: shape for name, shape in _map_shapes(config).items() if name not in left_out}
    return shapes | {name: ("batch", *(frames or ()), *shape) for name, shape in maps.items()}


def _map_shapes(config) -> dict[str, Shape]:
    """Channels and grid of the maps of `FRAME_OUTPUTS` that models of this configuration can have."""
    channels = {
        "heatmap_logits": (len(config.object_classes),),
        "distances": (4,),
        "embeddings": (config.embedding_size,),
        "keypoint_logits": (len(config.keypoints),),
        "spatial_attention": (),
        "last_hidden_state": (config.hidden_size,),
        "cell_features": (config.cell_channels,),
    }
    return {name: (*channels[name], *grid) for name, grid in FRAME_OUTPUTS.items() if 0 not in channels[name]}


def object_shapes(config) -> dict[str, Shape]:
    """Outputs of a step that say where objects are: `object_boxes` and so on; a score of 0 where there is none."""
    sizes = {"boxes": (4,), "scores": (), "labels": (), "embeddings": (config.embedding_size,)}
    return {_PREFIX + name: ("batch", MAX_OBJECTS, *sizes[name]) for name in OBJECT_OUTPUTS}


def objects_in(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A step's `object_boxes` and so on by their names without the prefix."""
    return {name: outputs[_PREFIX + name] for name in OBJECT_OUTPUTS if _PREFIX + name in outputs}


def action_shapes(config, rows: str) -> dict[str, Shape]:
    """Outputs of the action head: `logits`, and `group_logits.<name>` for each of `config.label_groups`."""
    groups = {f"group_logits.{name}": (rows, len(classes)) for name, classes in config.label_groups.items()}
    return {"logits": (rows, config.num_labels)} | groups


def step_graph(model) -> Graph:
    """One frame of each of B streams, the state in and out.

    Args:
        model: from `exportable_copy`.

    Raises:
        ValueError: a model with `bidirectional=True`, which has no state to start from.
    """
    _refuse_bidirectional(model)
    state = symbolic_shapes(model)
    inputs = {"pixel_values": ("batch", 3, "height", "width"), "content_size": ("batch", 2), **state}
    outputs = _output_shapes(model, (model.config.attention_window or 1) + 1)
    outputs |= {f"new.{name}": shape for name, shape in state.items()}
    return Graph("step", _Step(model, list(state)), inputs, outputs)


def _refuse_bidirectional(model):
    if model.config.bidirectional:
        raise ValueError("A model with `bidirectional=True` cannot be exported; train a causal one for deployment.")


def clip_graph(model, num_frames: int) -> Graph:
    """T frames of each of B clips; T is fixed. Arguments and errors as for `step_graph`."""
    _refuse_bidirectional(model)
    inputs = {"pixel_values_videos": ("batch", num_frames, 3, "height", "width"), "content_size": ("batch", 2)}
    return Graph("clip", _Clip(model), inputs, _output_shapes(model, num_frames, (num_frames,)))


def _memory_maps(config) -> dict[str, Shape]:
    """Maps of a frame that regions are remembered by, beside its features."""
    shapes = _map_shapes(config)
    return {name: ("batch", *shapes[name]) for name in ("keypoint_logits", "cell_features") if name in shapes}


def region_graphs(model) -> list[Graph]:
    """Who does what: `regions` on a frame's features, `recall` on tracks' memories, and the `actions` that follow."""
    config, window = model.config, model.config.attention_window or 1
    size, summary = config.region_size, config.summary_size
    attention = model.kinetrack.attention
    memory = {"scores": ("tracks", window), "features": ("tracks", window, size)}
    memory_type = type(attention.empty_memory(torch.zeros(1, size)))
    return [
        Graph(
            "regions",
            _Regions(model),
            {
                "last_hidden_state": ("batch", config.hidden_size, "height/16", "width/16"),
                "boxes": ("batch", "regions", 4),
                "content_size": ("batch", 2),
                **_memory_maps(config),
            },
            {"score": ("batch", "regions"), "pooled": ("batch", "regions", size)},
        ),
        Graph(
            "recall",
            _Recall(attention, memory_type),
            {"score": ("tracks",), "pooled": ("tracks", size), **memory},
            {"representation": ("tracks", summary)} | {f"new.{name}": shape for name, shape in memory.items()},
        ),
        Graph(
            "actions",
            _Actions(model.action_head),
            {"representation": ("tracks", summary)},
            action_shapes(config, "tracks"),
        ),
    ]
