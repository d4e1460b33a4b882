"""`kinetrack export`: folders that run without this package, and that this package runs like the model itself."""

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.hub_scripts import export as export_module
from kinetrack.hub_scripts.export import check_parity, export, export_program
from kinetrack.processing.detection_kinetrack import decode_detections
from kinetrack.processing.graphs import exportable
from kinetrack.processing.graphs.exportable import exportable_copy
from kinetrack.processing.graphs.graph_modules import region_graphs, step_graph
from kinetrack.processing.graphs.openvino_engine import shared_core
from kinetrack.processing.session_kinetrack import KineTrackSession

# Modules that a program in an exported folder must do without.
_WITHOUT = """
import sys
class _Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"blocked: {{name}}")
sys.meta_path.insert(0, _Blocker())
"""


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory) -> Path:
    """The tiny model as ONNX."""
    return export(model_folder, tmp_path_factory.mktemp("exports") / "onnx")


@pytest.fixture(scope="module")
def exported_int8(model_folder, long_video_path, tmp_path_factory) -> Path:
    """The tiny model as OpenVINO in 8 bits."""
    return export(model_folder, tmp_path_factory.mktemp("int8") / "exported", "openvino", calibration=[long_video_path])


def run_readme(folder: Path, frames: np.ndarray, blocked: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Runs the program in an export's README as it stands; the outputs of its last frame."""
    np.save(folder / "frames.npy", frames)
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    code = _WITHOUT.format(blocked=blocked) + program + '\nnp.savez("found.npz", **found)\n'
    result = subprocess.run([sys.executable, "-I", "-c", code], cwd=folder, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(frames)
    with np.load(folder / "found.npz") as found:
        return dict(found)


@torch.inference_mode()
def run_model(folder: Path, frames: np.ndarray):
    """The model's output for the last of some frames that fill its input."""
    model, processor = kinetrack.load_model(folder, "cpu")
    state = None
    for frame in frames:
        output = model(processor.preprocess_frame(frame, frame.shape[:2]), state=state)
        state = output.state
    return output


@pytest.mark.parametrize(
    ("format", "blocked"),
    [("onnx", ("kinetrack", "torch", "transformers")), ("openvino", ("kinetrack", "torch", "transformers"))],
)
def test_readme_runs_without_this_package(model_folder, frames, tmp_path, format, blocked):
    folder = export(model_folder, tmp_path / "exported", format)
    found, wanted = run_readme(folder, frames, blocked), run_model(model_folder, frames)
    np.testing.assert_allclose(found["logits"], wanted.logits, atol=1e-3)
    np.testing.assert_allclose(found["group_logits.fight"], wanted.group_logits["fight"], atol=1e-3)
    np.testing.assert_allclose(found["last_hidden_state"], wanted.last_hidden_state[:, 0], atol=1e-3)
    maps = (wanted.heatmap_logits[:, 0], wanted.distances[:, 0], wanted.embeddings[:, 0])
    (boxes,) = (found["boxes"] for found in decode_detections(*maps, threshold=1e-3, nms_threshold=1.0))
    told = found["object_boxes"][0][np.argsort(-found["object_scores"][0], kind="stable")]
    assert len(boxes) > 0
    np.testing.assert_allclose(told[: len(boxes)], boxes, atol=1e-3)


def test_folder_of_another_version_is_refused(exported, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(exported, folder)
    description = json.loads((folder / "graph.json").read_text())
    (folder / "graph.json").write_text(json.dumps(description | {"version": 2}))
    with pytest.raises(ValueError, match="another version of KineTrack.*kinetrack export"):
        kinetrack.load_model(folder)


def test_torch_export_runs_with_pytorch_alone_at_any_size(model_folder, draw_frames, tmp_path):
    folder = export(model_folder, tmp_path / "exported", "torch")
    frames = draw_frames(3, 128, 96)
    found = run_readme(folder, frames, ("kinetrack",))
    np.testing.assert_allclose(found["logits"], run_model(model_folder, frames).logits, atol=1e-3)


@pytest.fixture(scope="module")
def program(model_folder):
    """The tiny model's step by `torch.export`."""
    return export_program(step_graph(exportable_copy(kinetrack.load_model(model_folder, "cpu")[0])))


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 64, 96), (4, 64, 96), (1, 128, 64), (4, 128, 64)])
@torch.inference_mode()
def test_torch_step_equals_the_model_over_carried_steps(model_folder, program, batch, height, width):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    graph, run, wanted = step_graph(model), program.module(), None
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    for index in range(batch):  # every stream shows a frame of its own size
        mask[index, : height - 8 * index, : width - 12 * index] = True
    content = torch.stack([mask[:, :, 0].sum(1), mask[:, 0].sum(1)], 1)
    state = model.initial_state(batch, height, width).tensors()
    for frame in torch.randn(10, batch, 1, 3, height, width, generator=torch.Generator().manual_seed(1)):
        wanted = model(frame, pixel_mask=mask, state=wanted and wanted.state)
        found = dict(zip(graph.outputs, run(frame[:, 0], content, *state.values()), strict=True))
        state = {name: found[f"new.{name}"] for name in state}
        for name in ("logits", "spatial_attention", "last_hidden_state"):
            of_frame = getattr(wanted, name) if name == "logits" else getattr(wanted, name)[:, 0]
            torch.testing.assert_close(found[name], of_frame, atol=1e-3, rtol=0)
    torch.testing.assert_close(state, wanted.state.tensors(), atol=1e-3, rtol=0)


def test_torch_export_takes_models_that_remember_keypoints_and_statistics_of_regions(tiny_backbone, tmp_path):
    torch.manual_seed(0)
    settings = {"hidden_size": 8, "embedding_size": 6, "keypoints": ["head", "hand"], "statistics_channels": 16}
    model = kinetrack.KineTrackForVideoAnalysis(kinetrack.KineTrackConfig(backbone_config=tiny_backbone, **settings))
    graph = region_graphs(model.eval())[0]
    torch.export.save(export_program(graph), tmp_path / "regions.pt2")
    assert check_parity(graph, tmp_path / "regions.pt2", "torch") < 1e-3


def test_folder_holds_what_is_needed_and_says_what_is_in_it(exported):
    names = {path.name for path in exported.iterdir()}
    assert names >= {"step.onnx", "regions.onnx", "recall.onnx", "actions.onnx", "graph.json", "README.md"}
    assert names >= {"config.json", "video_preprocessor_config.json"}
    readme, description = (exported / "README.md").read_text(), json.loads((exported / "graph.json").read_text())
    for graph in description["graphs"]:
        for name in (*description["inputs"][graph], *description["outputs"][graph]):
            assert f"`{name}`" in readme
    assert [entry["initial"] for entry in description["state"] if entry["name"] == "scores"] == ["-inf"]


@pytest.mark.parametrize("backend", [None, "openvino"])
def test_exported_folder_gives_the_tracks_and_actions_of_its_model(exported, model_folder, long_video_path, backend):
    expected, got = (
        list(KineTrackSession(*kinetrack.load_model(folder, "cpu", backend=chosen)).run(str(long_video_path)))
        for folder, chosen in ((model_folder, None), (exported, backend))
    )
    assert any(len(result.track_ids) for result in expected)
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        for name in ("boxes", "actions", "clip_action"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-3)


def test_exported_folder_is_a_model_for_analyze(exported, model_folder, video_path):
    wanted, got = (kinetrack.analyze(video_path, model=folder) for folder in (model_folder, exported))
    assert [track.id for track in wanted.tracks] == [track.id for track in got.tracks]
    assert wanted.action == got.action


def test_exported_tracking_model_needs_no_action_graphs(tmp_path, model_folder, video_path):
    model, processor = kinetrack.load_model(model_folder, "cpu")
    tracker = kinetrack.KineTrackForObjectTracking(model.config)
    tracker.load_state_dict(model.state_dict(), strict=False)
    for saved in (tracker, processor):
        saved.save_pretrained(tmp_path / "tracker")
    folder = export(tmp_path / "tracker", tmp_path / "exported")
    assert not (folder / "actions.onnx").exists()
    got, _ = kinetrack.load_model(folder)
    assert got.action_head is None and got.tracking_head
    session = KineTrackSession(*kinetrack.load_model(folder), task="tracking")
    assert any(len(result.track_ids) for result in session.run(str(video_path)))


def test_clip_has_a_fixed_length_and_a_readme(model_folder, tmp_path):
    folder = export(model_folder, tmp_path / "clip", mode="clip", num_frames=6)
    assert "6 frames at 12.5 a second" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="--mode step"):
        kinetrack.load_model(folder)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_eight_bits_stay_near_the_model(model_folder, exported, long_video_path, tmp_path, format):
    folder = export(model_folder, tmp_path / "int8", format, calibration=[long_video_path])
    assert json.loads((folder / "graph.json").read_text())["int8"]
    content = (folder / f"step.{'onnx' if format == 'onnx' else 'xml'}").read_bytes()
    assert (b"QuantizeLinear" if format == "onnx" else b"FakeQuantize") in content or b'element_type="i8"' in content
    expected, got = (
        list(KineTrackSession(*kinetrack.load_model(each, "cpu")).run(str(long_video_path)))
        for each in (model_folder, folder)
    )
    differences = [np.abs(a.clip_action - b.clip_action).max() for a, b in zip(expected, got, strict=True)]
    assert 0 < max(differences) < 0.1


def test_eight_bits_are_the_encoder_s_alone(exported_int8, long_video_path):
    layers = ElementTree.parse(exported_int8 / "step.xml").getroot().find("layers")
    rounded = [layer.get("name") for layer in layers if layer.get("type") == "FakeQuantize"]
    assert sum("/encoder/" in name for name in rounded) > 20
    assert not any(part in name for name in rounded for part in ("/propagation", "/heatmap_branch", "/motion"))
    results = list(KineTrackSession(*kinetrack.load_model(exported_int8, "cpu")).run(str(long_video_path)))
    assert all(np.isfinite(result.clip_action).all() for result in results)


def test_depthwise_convolutions_are_in_eight_bits_too(exported_int8):
    operations = shared_core().read_model(exported_int8 / "step.xml").get_ordered_ops()
    depthwise = [node for node in operations if node.get_type_name() == "GroupConvolution"]
    kinds = {"/encoder/" in node.get_friendly_name(): set() for node in depthwise}
    for node in depthwise:
        weights = node.input_value(1).get_node()
        while weights.get_type_name() != "Constant":
            weights = weights.input_value(0).get_node()
        kinds["/encoder/" in node.get_friendly_name()].add(weights.get_element_type().get_type_name())
    assert kinds == {True: {"i8"}, False: {"f32"}}


def test_export_is_replaced_but_nothing_else_is(exported, model_folder, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(ValueError, match="is not an export"):
        export(model_folder, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    (exported / "old").write_text("gone")
    export(model_folder, exported)
    assert not (exported / "old").exists()


def test_graph_that_differs_is_not_left_behind(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export_module, "TOLERANCE", 0.0)
    monkeypatch.setattr(export_module.check_parity, "__defaults__", (0.0,))
    with pytest.raises(RuntimeError, match="differs from PyTorch"):
        export(model_folder, tmp_path / "exported")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_export_is_compared_with_the_model_and_not_with_the_copy_it_is_made_from(
    model_folder, tmp_path, monkeypatch, format
):
    monkeypatch.setattr(exportable, "centre", lambda convolution: None)
    with pytest.raises(RuntimeError, match="exported step differs from PyTorch"):
        export(model_folder, tmp_path / "exported", format)
    assert not list(tmp_path.iterdir())


class Wrong(torch.nn.Module):
    """A module whose first output is wrong."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs):
        first, *others = self.module(*inputs)
        return first + 1, *others


@pytest.mark.parametrize("name", ["regions", "recall", "actions"])
def test_every_graph_is_compared_with_the_model(model_folder, tmp_path, monkeypatch, name):
    write = export_module._write

    def write_wrong(graph, *where):
        return write(dataclasses.replace(graph, module=Wrong(graph.module)) if graph.name == name else graph, *where)

    monkeypatch.setattr(export_module, "_write", write_wrong)
    with pytest.raises(RuntimeError, match=f"exported {name} differs from PyTorch"):
        export(model_folder, tmp_path / "exported")


@pytest.mark.parametrize(("frames", "refused"), [(1, False), (20, True)])
def test_rounding_may_choose_other_objects_in_a_frame_but_not_in_all(model_folder, monkeypatch, frames, refused):
    graph, left = step_graph(kinetrack.load_model(model_folder, "cpu")[0]), [frames]

    def run(feeds):
        found = dict(zip(graph.outputs, graph.module(*feeds.values()), strict=True))
        for row in range(len(found["object_boxes"])):
            found["object_boxes"][row] += 8.0 * (left[0] > 0)
            left[0] -= 1
        return found

    monkeypatch.setattr(export_module, "_runner", lambda *_: run)
    with pytest.raises(RuntimeError, match="differs") if refused else contextlib.nullcontext():
        check_parity(graph, Path(), "onnx")


INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("wanted", "found", "difference"),
    [
        ([1.0, NAN, -INF, INF], [1.5, NAN, -INF, INF], 0.5),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([NAN], [INF], INF),
        ([INF], [-INF], INF),
        ([INF], [1.0], INF),
        ([1.0, 1.0], [1.0], INF),
        ([], [], 0.0),
    ],
)
def test_what_is_not_finite_has_to_be_so_in_both(wanted, found, difference):
    assert export_module._difference(torch.tensor(wanted), torch.tensor(found)) == pytest.approx(difference, abs=0)


@pytest.mark.parametrize("output", [".", "", "..", "{here}"])
def test_folder_that_the_program_runs_in_is_refused(model_folder, tmp_path, monkeypatch, output):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="is or holds the folder that this runs in.*Name a new one"):
        export(model_folder, output.format(here=tmp_path / "here"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "`format` is one of"),
        ({"mode": "clip", "calibration": ["v.mp4"]}, "8 bits are for --mode step"),
        ({"format": "torch", "calibration": ["v.mp4"]}, "8 bits are for --mode step"),
    ],
)
def test_impossible_options_are_refused(model_folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        export(model_folder, tmp_path / "exported", **options)


def test_eight_bits_without_videos_say_where_they_were_sought(model_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no video in"):
        export(model_folder, tmp_path / "exported", calibration=[tmp_path])
    assert not list(tmp_path.iterdir())


def test_an_export_is_not_exported_again(exported, tmp_path):
    with pytest.raises(ValueError, match="is an export already"):
        export(exported, tmp_path / "again")
