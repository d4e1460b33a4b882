"""The README of an exported folder: what is in it, and a program that runs it without KineTrack."""

from pathlib import Path

_HEAD = """# {model} for {runtime}

The {mode} form of a KineTrack model, exported by `kinetrack export`. It needs {packages}, not KineTrack.

{table}
Sizes in quotes are free; `height` and `width` are multiples of 32. `content_size` is how many rows and columns of each
input show the frame (the rest is padding at the right and the bottom), int64; all else is float32. Pixels are RGB,
`(value / 255 - {mean}) / {std}`, padding 0.
{objects}
`logits` are actions, softmax(logits / {temperature:.4g}), named by `id2label` in `config.json`{groups}.
"""

_OBJECTS = {
    "clip": """
`heatmap_logits` are object centres on a grid of 8 pixels: objects are cells that are the largest of their 3x3
neighbours, with sigmoid(logit) as score; `distances` are pixels from a cell's centre to the left, top, right and bottom
of the box; `embeddings` of the same person are alike.
""",
    "step": """
`object_boxes` are left, top, right and bottom of objects in pixels of the input; `object_scores` are how sure they are:
take those from {threshold:.3g} on, and of two that overlap by more than 0.65 the better one. Where there are fewer
objects than rows, the rest have score 0. `object_labels` are numbers of `object_classes` in `config.json`, and
`object_embeddings` of the same person are alike.
""",
}

_STATE = """
Every `new.NAME` of a step is the input NAME of the next. A stream begins with zeros, and minus infinity in `scores`.
The temporal part was trained at {rate:g} frames a second: at higher rates, carry the state on only that often.
"""

_REGIONS = """
For what each tracked person does, after `step`: `regions` takes `last_hidden_state`{keypoints} and the boxes of a
frame, in pixels of the input; its `score` and `pooled` go through `recall` with each track's own `scores` and
`features`, which begin and are carried like the state; `actions` turns its `representation` into logits.
"""

_RUN = {
    "onnx": """
```python
import json
import numpy as np
import onnxruntime

description = json.load(open("graph.json"))
session = onnxruntime.InferenceSession(description["graphs"]["step"])


def run(feeds):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds)))

""",
    "openvino": """
```python
import json
import numpy as np
import openvino

description = json.load(open("graph.json"))
exact = {{"INFERENCE_PRECISION_HINT": "f32"}}  # OpenVINO may choose bfloat16 by itself
compiled = openvino.Core().compile_model(description["graphs"]["step"], "CPU", exact)


def run(feeds):
    found = compiled(feeds)
    return {{port.any_name: found[port] for port in compiled.outputs}}

""",
    "torch": """
```python
import json
import numpy as np
import torch

description = json.load(open("graph.json"))
program = torch.export.load(description["graphs"]["step"]).module()


def run(feeds):
    with torch.inference_mode():
        values = program(*(torch.from_numpy(feeds[name]) for name in description["inputs"]["step"]))
    return {{name: value.numpy() for name, value in zip(description["outputs"]["step"], values)}}

""",
}

_LOOP = """
def begin(batch, height, width):
    sizes = {{"batch": batch, "height": height, "width": width}}
    state = {{}}
    for entry in description["state"]:
        shape = []
        for size in entry["shape"]:
            symbol, _, divisor = str(size).partition("/")
            shape.append(sizes[symbol] // int(divisor or 1) if symbol in sizes else size)
        state[entry["name"]] = np.full(shape, float(entry["initial"]), np.float32)
    return state


frames = np.load("frames.npy")  # (T, H, W, 3) uint8 RGB, sides multiples of 32
height, width = frames.shape[1:3]
state = begin(1, height, width)
content = np.array([[height, width]], np.int64)
for frame in frames:
    pixels = ((frame / 255 - {mean}) / {std}).astype(np.float32).transpose(2, 0, 1)[None]
    found = run({{"pixel_values": pixels, "content_size": content, **state}})
    state = {{name: found["new." + name] for name in state}}
    print({printed})
```
"""

_CLIP = """
Give `{name}` `pixel_values_videos`, {frames} frames at {rate:g} a second, and `content_size`; the names of all inputs
and outputs are in `graph.json`.
"""


def write_readme(folder: Path, description: dict, config, processor) -> None:
    """Writes `README.md` into an exported folder.

    Args:
        folder: with the graphs.
        description: the content of its `graph.json`.
        config: `KineTrackConfig`.
        processor: the model's video processor.
    """
    format, mode = description["format"], description["mode"]
    mean, std = (
        values[0] if len(set(values)) == 1 else list(values) for values in (processor.image_mean, processor.image_std)
    )
    runtime, packages = {
        "onnx": ("ONNX Runtime", "`onnxruntime` and `numpy`"),
        "openvino": ("OpenVINO", "`openvino` and `numpy`"),
        "torch": ("PyTorch", "`torch` and `numpy`"),
    }[format]
    values = {
        "model": description["model"] + (", 8 bits," if description["int8"] else ""),
        "runtime": runtime,
        "packages": packages,
        "mode": mode,
        "table": _table(description),
        "mean": mean,
        "std": std,
        "temperature": config.action_temperature,
        "groups": f"; `group_logits.*` are {', '.join(config.label_groups)}" if config.label_groups else "",
        "rate": config.frame_rate,
        "keypoints": (", `keypoint_logits`" if config.keypoints else "")
        + (", `cell_features`" if config.statistics_channels else ""),
    }
    objects = _OBJECTS[mode].format(threshold=config.detection_threshold) if config.tracking_head else ""
    text = _HEAD.format(**values, objects=objects)
    if mode == "clip":
        frames = description["inputs"]["clip"]["pixel_values_videos"][1]
        text += _CLIP.format(name=description["graphs"]["clip"], frames=frames, rate=config.frame_rate)
    else:
        printed = 'found["logits"].argmax()' if config.classification_head else 'found["object_scores"].max()'
        text += _STATE.format(**values) + (_REGIONS.format(**values) if config.classification_head else "")
        text += (_RUN[format] + _LOOP).format(**values, printed=printed)
    (folder / "README.md").write_text(text, encoding="utf-8")


def _table(description: dict) -> str:
    lines = ["| file | inputs | outputs |", "|---|---|---|"]
    for graph, file in description["graphs"].items():
        sides = (
            "<br>".join(f"`{name}` {_shape(shape)}" for name, shape in description[side][graph].items())
            for side in ("inputs", "outputs")
        )
        lines.append(f"| `{file}` | {' | '.join(sides)} |")
    return "\n".join(lines) + "\n"


def _shape(shape: list) -> str:
    return "(" + ", ".join(f'"{size}"' if isinstance(size, str) else str(size) for size in shape) + ")"
