"""Graphs of the step: the same as PyTorch over long streams, made once, and used by sessions like a model."""

import logging
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import (
    KineTrackForObjectTracking,
    KineTrackForVideoAnalysis,
    KineTrackForVideoClassification,
)
from kinetrack.processing.detection_kinetrack import objects_of
from kinetrack.processing.graphs import backends, graph_cache
from kinetrack.processing.graphs.compiled_engine import CompiledEngine
from kinetrack.processing.graphs.exportable import exportable_copy
from kinetrack.processing.graphs.graph_model import AcceleratedModel
from kinetrack.processing.graphs.graph_modules import (
    MAX_OBJECTS,
    OBJECT_OUTPUTS,
    Graph,
    clip_graph,
    region_graphs,
    step_graph,
)
from kinetrack.processing.graphs.onnx_engine import OnnxEngine
from kinetrack.processing.graphs.onnx_files import write_onnx
from kinetrack.processing.graphs.openvino_engine import OpenVinoEngine
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.stepping_kinetrack import step_sessions

SIZES = [(1, 64, 96), (4, 64, 96), (1, 96, 64), (4, 128, 160)]
MAPS = ("keypoint_logits", "spatial_attention", "last_hidden_state", "logits")
DETECTION_MAPS = ("heatmap_logits", "distances", "embeddings")
LITE0 = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [2, 3, 4]}
KINDS = {
    "window": (KineTrackForVideoAnalysis, {}),
    "endless": (KineTrackForVideoAnalysis, {"attention_window": None}),
    "no differences": (KineTrackForVideoAnalysis, {"motion_channels": 0, "label_groups": {}}),
    "actions": (KineTrackForVideoClassification, {}),
    "tracking": (KineTrackForObjectTracking, {"num_propagation_layers": 1}),
    "displacements": (
        KineTrackForVideoAnalysis,
        {"motion_reach": 2, "keypoints": ["head", "hand"], "statistics_channels": 16},
    ),
    "lite0": (KineTrackForVideoAnalysis, {"backbone_config": LITE0}),
    "classes": (
        KineTrackForVideoAnalysis,
        {"object_classes": ["person", "ball", "dog"], "keypoints": ["head"], "statistics_channels": 16},
    ),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def make_model(tiny_backbone):
    """`make_model(model_class, **overrides)`: small, with every parameter away from its initial value."""

    def make(model_class=KineTrackForVideoAnalysis, **overrides):
        settings = {
            "backbone_config": tiny_backbone,
            "hidden_size": 8,
            "motion_channels": 4,
            "embedding_size": 6,
            "attention_window": 8,
            "id2label": {0: "walk", 1: "run", 2: "sit"},
            "label_groups": {"fight": ["noFight", "fight"]},
        }
        torch.manual_seed(0)
        model = model_class(KineTrackConfig(**(settings | overrides))).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.05)
        return model

    return make


@pytest.fixture(scope="module")
def written(make_model, tmp_path_factory):
    """`written(kind)`: (model, path of its step as ONNX), made once."""
    made = {}

    def write(kind):
        if kind not in made:
            model = make_model(KINDS[kind][0], **KINDS[kind][1])
            path = tmp_path_factory.mktemp("graphs") / "step.onnx"
            write_onnx(step_graph(exportable_copy(model)), path)
            made[kind] = model, path
        return made[kind]

    return write


@torch.inference_mode()
def largest_difference(model, accelerated, batch, height, width, steps):
    """Over `steps` steps, each side carrying its own state, of every output and every tensor of the last state."""
    mask = torch.zeros(batch, height, width, dtype=torch.bool)
    for index in range(batch):  # every stream shows a frame of its own size
        mask[index, : height - 8 * index, : width - 12 * index] = True
    generator, worst, state, graph_state = torch.Generator().manual_seed(1), 0.0, None, None
    compared = 0  # frames of which objects are
    for _ in range(steps):
        frame = torch.randn(batch, 1, 3, height, width, generator=generator)
        wanted, found = model(frame, pixel_mask=mask, state=state), accelerated(frame, mask, graph_state)
        state, graph_state = wanted.state, found.state
        pairs = [(getattr(wanted, name), getattr(found, name)) for name in MAPS if getattr(wanted, name) is not None]
        pairs += [(wanted.group_logits[name], found.group_logits[name]) for name in wanted.group_logits or {}]
        if wanted.heatmap_logits is not None:
            wanted_objects = objects_of_maps(model, wanted, mask)
            assert (wanted_objects["scores"] > 0).any()
            clear = without_ties(wanted.heatmap_logits[:, 0])
            compared += int(clear.sum())
            pairs += [(wanted_objects[name][clear], found.objects[name][clear]) for name in OBJECT_OUTPUTS]
        moments = wanted.temporal_attention.shape[1]
        pairs.append((wanted.temporal_attention, found.temporal_attention[:, -moments:]))
        assert all(one.shape == other.shape for one, other in pairs)
        worst = max(worst, *(relative(one, other) for one, other in pairs if len(one)))
    assert compared > steps / 2 or model.tracking_head is None
    for name, tensor in state.tensors().items():
        other = graph_state.named[name]
        assert torch.equal(tensor.isinf(), other.isinf()), name
        worst = max(worst, relative(tensor.nan_to_num(neginf=0), other.nan_to_num(neginf=0)))
    return worst


def objects_of_maps(model, output, mask):
    maps = [getattr(output, name)[:, 0] for name in DETECTION_MAPS]
    return objects_of(*maps, model.valid_cells(mask), model.config.output_stride, MAX_OBJECTS)


def without_ties(heatmap):
    """(B,) bool, frames (C, h, w) in which rounding does not decide which of two neighbouring cells is a peak."""
    batch, classes, height, width = heatmap.shape
    padded = torch.nn.functional.pad(heatmap, [1] * 4, value=float("-inf"))
    about = torch.nn.functional.unfold(padded.flatten(0, 1)[:, None], 3)  # (BC, 9, hw)
    first, second = about.topk(2, dim=1).values.unbind(1)
    tied = (first - second < 1e-5) & (about[:, 4] >= second)
    return ~tied.view(batch, -1).any(1)


def relative(wanted, found):
    """Largest difference, over the largest value where that is above 1: random weights make large ones."""
    return float((wanted - found).abs().max() / wanted.abs().max().clamp(min=1))


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_onnx_step_equals_the_model_over_fifty_steps(written, kind, batch, height, width):
    model, path = written(kind)
    accelerated = AcceleratedModel(model, OnnxEngine(path, threads=1), "onnx")
    assert largest_difference(model, accelerated, batch, height, width, steps=50) < 1e-3


@pytest.mark.parametrize(("batch", "height", "width"), SIZES)
@pytest.mark.parametrize("kind", ["window", "endless", "classes", "lite0"])
def test_openvino_step_equals_the_model_over_fifty_steps(written, kind, batch, height, width):
    model, path = written(kind)
    accelerated = AcceleratedModel(model, backends.open_engine(path, "openvino"), "openvino")
    assert largest_difference(model, accelerated, batch, height, width, steps=50) < 1e-3


@pytest.mark.parametrize(("batch", "height", "width"), [SIZES[0], SIZES[-1]])
@pytest.mark.parametrize("kind", ["window", "actions", "tracking", "classes"])
def test_openvino_step_in_parts_equals_the_whole(written, kind, batch, height, width):
    model, path = written(kind)
    accelerated = AcceleratedModel(model, OpenVinoEngine(path, threads=2), "openvino")
    mask = torch.ones(batch, height, width, dtype=torch.bool)
    mask[-1, height - 8 :] = mask[0, :, width - 12 :] = False
    whole = parts = None
    for frame in torch.randn(12, batch, 1, 3, height, width, generator=torch.Generator().manual_seed(1)):
        begun = accelerated.begin(frame, mask)
        one = accelerated(frame, mask, whole and whole.state)
        parts, whole = accelerated(frame, mask, parts and parts.state, begun), one
        for name in (*MAPS, "temporal_attention", "objects", "group_logits"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name), atol=1e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(parts.state.named, whole.state.named, atol=1e-5, rtol=1e-5)


def test_step_says_nothing_of_cells(written):
    model, path = written("window")
    grids = {name: shape for name, shape in OnnxEngine(path, threads=1).outputs.items() if "height/8" in shape}
    assert set(grids) == {"new.motion"}


def test_compiled_step_equals_the_model(make_model):
    model = make_model()
    engine = CompiledEngine(step_graph(exportable_copy(model)), compiler="eager")
    assert largest_difference(model, AcceleratedModel(model, engine, "compile"), 2, 64, 96, steps=5) < 1e-3


class Doubled(torch.nn.Module):
    def forward(self, values):
        return (values * 2,)


def test_compiled_graph_takes_more_sizes_than_pytorch_would_compile_by_itself():
    engine = CompiledEngine(Graph("doubled", Doubled(), {"a": ("batch",)}, {"b": ("batch",)}), compiler="eager")
    before = torch._dynamo.config.cache_size_limit
    for size in range(1, 13):
        torch.testing.assert_close(engine.run({"a": torch.ones(size)}), {"b": torch.full((size,), 2.0)})
    assert torch._dynamo.config.cache_size_limit == before


def test_graph_has_only_standard_operators(written):
    import onnx

    content = onnx.load(str(written("lite0")[1]))
    assert {node.domain for node in content.graph.node} == {""}
    assert [entry.domain for entry in content.opset_import] == [""]


def test_clip_graph_equals_the_model(make_model, tmp_path):
    model = make_model()
    graph = clip_graph(exportable_copy(model), 5)
    write_onnx(graph, tmp_path / "clip.onnx")
    engine = OnnxEngine(tmp_path / "clip.onnx", threads=1)
    for batch, height, width in SIZES:
        clip = torch.randn(batch, 5, 3, height, width)
        with torch.inference_mode():
            wanted = model(clip)
        found = engine.run({"pixel_values_videos": clip, "content_size": torch.tensor([[height, width]] * batch)})
        for name in (*DETECTION_MAPS, *MAPS[1:], "temporal_attention"):
            torch.testing.assert_close(found[name], getattr(wanted, name), atol=1e-3, rtol=0)


def test_region_graphs_equal_the_model(make_model, tmp_path):
    model = make_model()
    engines = {}
    for graph in region_graphs(exportable_copy(model)):
        write_onnx(graph, tmp_path / f"{graph.name}.onnx")
        engines[graph.name] = OnnxEngine(tmp_path / f"{graph.name}.onnx", threads=1)
    features, mask = torch.randn(2, 8, 4, 6), torch.zeros(2, 64, 96, dtype=torch.bool)
    mask[:, :40, :70] = True
    boxes = torch.tensor([[[4.0, 5, 30, 60], [-10, -10, 200, 200], [80, 50, 90, 60]]]).repeat(2, 1, 1)
    with torch.inference_mode():
        score, pooled = model.attend_regions(features, boxes, mask)
        found = engines["regions"].run(
            {"last_hidden_state": features, "boxes": boxes, "content_size": torch.tensor([[40, 70]] * 2)}
        )
        assert torch.isinf(found["score"][:, 2]).all()  # outside what shows the frame
        torch.testing.assert_close(found["score"], score)
        torch.testing.assert_close(found["pooled"], pooled)
        attention = model.kinetrack.attention
        memory = attention.empty_memory(pooled[0])
        carried = {"scores": memory.scores, "features": memory.features}
        for _ in range(12):
            _, representation, memory = attention.attend_time(score[0][:, None], pooled[0][:, None], None, memory)
            found = engines["recall"].run({"score": score[0], "pooled": pooled[0], **carried})
            carried = {"scores": found["new.scores"], "features": found["new.features"]}
            torch.testing.assert_close(found["representation"], representation)
        logits = model.action_head(representation)[0]
        torch.testing.assert_close(engines["actions"].run({"representation": representation})["logits"], logits)


def test_bidirectional_model_is_refused(make_model):
    model = exportable_copy(make_model(bidirectional=True))
    for make in (step_graph, lambda model: clip_graph(model, 4)):
        with pytest.raises(ValueError, match="causal"):
            make(model)


def test_inputs_of_another_shape_are_named(written):
    model, path = written("window")
    accelerated = AcceleratedModel(model, OnnxEngine(path, threads=1), "onnx")
    state = accelerated.initial_state(1, 64, 96)
    with pytest.raises(ValueError, match=r"hidden\.0 must be \(1, 6, 6, 8\) here, got \(1, 4, 6, 8\)"):
        accelerated(torch.zeros(1, 1, 3, 96, 96), state=state)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_session_gives_the_same_tracks_with_every_backend(model_folder, long_video_path, backend):
    expected, got = (run(model_folder, long_video_path, name) for name in ("torch", backend))
    assert sum(len(result.track_ids) for result in expected) > 100
    for one, other in zip(expected, got, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        for name in ("boxes", "scores", "actions", "clip_action", "spatial_attention", "temporal_attention"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-3)


def run(folder, video, backend):
    session = KineTrackSession(*kinetrack.load_model(folder, "cpu", backend=backend))
    return list(session.run(str(video)))


def test_session_gives_the_same_whether_openvino_begins_frames_ahead_or_not(model_folder, frames, monkeypatch):
    model, processor = kinetrack.load_model(model_folder, "cpu")
    path = graph_cache.cached_step(model)
    # Two sizes, so that some frames wait for those before.
    clip = [frame[:, : 96 if index < 7 else 48] for index, frame in enumerate(frames)]
    compiled, compile_model = [], OpenVinoEngine._compile
    monkeypatch.setattr(
        OpenVinoEngine, "_compile", lambda *args, **how: compiled.append(1) or compile_model(*args, **how)
    )

    def look(threads):
        accelerated = AcceleratedModel(model, OpenVinoEngine(path, threads=threads), "openvino")
        assert accelerated.side_by_side == {1: 1, 2: 3}[threads]
        return list(KineTrackSession(accelerated, processor, threshold=0.02).run(clip))

    results = [look(threads=1)]
    assert len(compiled) == 2  # for each size the whole graph
    results.append(look(threads=2))
    assert len(compiled) == 2 + 4  # and its parts alone
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one.track_ids, other.track_ids)
        for name in ("boxes", "scores", "actions", "clip_action", "spatial_attention", "temporal_attention"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-5)
    assert sum(len(result.track_ids) for result in results[0]) > 10


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_streams_of_one_batch_get_what_each_would_get_alone(model_folder, frames, backend):
    model, processor = kinetrack.load_model(model_folder, "cpu", backend=backend)
    together, alone = ([KineTrackSession(model, processor) for _ in range(2)] for _ in range(2))
    videos = frames, frames[::-1]
    for pair in zip(*videos, strict=True):
        for one, other in zip(
            step_sessions(together, pair), [s.step(f) for s, f in zip(alone, pair, strict=True)], strict=True
        ):
            np.testing.assert_array_equal(one.track_ids, other.track_ids)
            np.testing.assert_allclose(one.boxes, other.boxes, atol=1e-3)
            np.testing.assert_allclose(one.clip_action, other.clip_action, atol=1e-4)


def test_openvino_compiles_once_however_many_streams_are_ready(model_folder, frames, monkeypatch):
    model, processor = kinetrack.load_model(model_folder, "cpu", backend="openvino")
    compiled, compile_model = [], OpenVinoEngine._compile
    monkeypatch.setattr(OpenVinoEngine, "_compile", lambda *args: compiled.append(1) or compile_model(*args))
    together, alone = ([KineTrackSession(model, processor) for _ in range(5)] for _ in range(2))
    for ready in (1, 3, 5, 2, 4):
        found = step_sessions(together[:ready], frames[:ready])
        for one, session, frame in zip(found, alone, frames, strict=False):
            wanted = session.step(frame)
            for name in ("track_ids", "boxes", "scores", "actions", "clip_action", "spatial_attention"):
                np.testing.assert_array_equal(getattr(one, name), getattr(wanted, name))
    assert len(compiled) == 1


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_streams_in_threads_share_one_model(model_folder, frames, backend):
    model, processor = kinetrack.load_model(model_folder, "cpu", backend=backend)

    def last(video):
        return list(KineTrackSession(model, processor).run(list(video)))[-1].clip_action

    videos = frames, frames[::-1]
    expected = [last(video) for video in videos]
    with ThreadPoolExecutor(2) as pool:
        for one, other in zip(pool.map(last, videos), expected, strict=True):
            np.testing.assert_array_equal(one, other)


def test_state_of_one_backend_goes_on_with_another(model_folder, frames):
    on_torch = KineTrackSession(*kinetrack.load_model(model_folder, "cpu"))
    on_onnx = KineTrackSession(*kinetrack.load_model(model_folder, "cpu", backend="onnx"))
    for frame in frames[:6]:
        on_torch.step(frame)
    on_onnx.load_state_dict(on_torch.state_dict())
    for frame in frames[6:]:
        wanted, found = on_torch.step(frame), on_onnx.step(frame)
        np.testing.assert_array_equal(wanted.track_ids, found.track_ids)
        np.testing.assert_allclose(wanted.clip_action, found.clip_action, atol=1e-4)
    on_torch.load_state_dict(on_onnx.state_dict())


def test_graph_is_made_once_even_by_two_at_a_time(model_folder, monkeypatch, caplog):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    build, built = graph_cache._build, []

    def counted(*arguments):
        built.append(arguments)
        build(*arguments)

    monkeypatch.setattr(graph_cache, "_build", counted)
    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=graph_cache.cached_step, args=(model,)) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    path = graph_cache.cached_step(model)
    assert len(built) == 1 and path.is_file()
    assert caplog.text.count("Made the graph of this model in") == 1
    assert not list(graph_cache.cache_folder().glob(".partial-*"))


def test_other_weights_have_another_graph(model_folder):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    before = graph_cache.weight_hash(model)
    with torch.no_grad():
        model.action_head.classifier.bias[0] += 1e-3
    assert graph_cache.weight_hash(model) != before


def test_failed_build_leaves_nothing(model_folder, monkeypatch):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    monkeypatch.setattr("kinetrack.processing.graphs.onnx_files.write_onnx", fail)
    with pytest.raises(RuntimeError, match="no room"):
        graph_cache.cached_step(model)
    assert [path.suffix for path in graph_cache.cache_folder().iterdir()] == [".lock"]


def fail(*_):
    raise RuntimeError("no room\nat all")


def test_auto_takes_openvino_where_it_is_installed_then_onnx(model_folder, monkeypatch):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    monkeypatch.delenv("KINETRACK_BACKEND")
    assert backends.accelerate(model).backend == "openvino"
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "openvino" else name)
    assert backends.accelerate(model).backend == "onnx"


def test_auto_without_runtimes_is_pytorch_and_says_what_to_install(model_folder, monkeypatch, caplog):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    monkeypatch.delenv("KINETRACK_BACKEND")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert backends.accelerate(model) is model
    assert [record.message for record in caplog.records] == [
        "Running on PyTorch; two to three times faster on a CPU after: pip install -e '.[export]' in KineTrack's folder"
    ]


def test_auto_falls_back_where_no_graph_can_be_made(model_folder, monkeypatch, caplog):
    model, _ = kinetrack.load_model(model_folder, "cpu")
    monkeypatch.delenv("KINETRACK_BACKEND")
    monkeypatch.setattr("kinetrack.processing.graphs.onnx_files.write_onnx", fail)
    assert backends.accelerate(model) is model
    assert caplog.records[-1].message.endswith("no graph could be made of this model: no room")
    with pytest.raises(RuntimeError, match="no room"):
        backends.accelerate(model, "onnx")


def test_unknown_backend_is_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match="auto, torch, compile, onnx, openvino; got 'tensorrt'"):
        kinetrack.load_model("no-such-model", backend="tensorrt")


_SIGNAL_AFTER_ENGINES = """
import gc, signal, sys
from pathlib import Path
import onnx, torch
from kinetrack.processing.graphs.openvino_engine import OpenVinoEngine

value = lambda name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2])
node = onnx.helper.make_node("Relu", ["a"], ["b"])
graph = onnx.helper.make_graph([node], "relu", [value("a")], [value("b")])
path = Path(sys.argv[1])
onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]), path)
engines = [OpenVinoEngine(path) for _ in range(2)]
for engine in engines:
    assert engine.run({"a": torch.tensor([-1.0, 1.0])})["b"].tolist() == [0.0, 1.0]
del engine
while engines:
    del engines[0]  # the older one first
    gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("arrived"))
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of Unix")
def test_signals_arrive_after_openvino_was_used(tmp_path):
    """OpenVINO gives the process a signal stack and, at the end of every `Core`, back the one before it."""
    command = [sys.executable, "-c", _SIGNAL_AFTER_ENGINES, str(tmp_path / "relu.onnx")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "arrived\n"), run.stderr
