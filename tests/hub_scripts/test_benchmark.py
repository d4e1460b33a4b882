"""The benchmark: its inputs are what they claim to be, its baseline computes the same thing, its report is complete."""

import json
from pathlib import Path

import pytest
import torch
from kinetrack.hub_scripts import benchmark, benchmark_speed, benchmark_table
from kinetrack.hub_scripts.benchmark_recurrence import bytes_kept, make_inputs, measure_recurrence, unbind_loop
from kinetrack.hub_scripts.benchmark_report import device_name, format_report
from kinetrack.hub_scripts.benchmark_stack import measure_stack
from kinetrack.hub_scripts.benchmark_videos import write_resized
from kinetrack.hub_scripts.marked_text import replace_marked
from kinetrack.modeling.propagation_kinetrack import gated_scan
from kinetrack.processing.decoding_kinetrack import probe_video


def test_resized_video_repeats_the_source_until_it_is_long_enough(video_path, tmp_path):
    target = tmp_path / "wide.mp4"
    count = write_resized(video_path, target, (90, 160), seconds=2)
    info = probe_video(target)
    assert count == 50  # the source has 12 frames at 25 a second
    assert (info.width, info.height) == (160, 90)
    assert info.duration == pytest.approx(2.0, abs=0.05)


def test_reference_loop_and_scan_agree_with_their_gradients():
    results = []
    for form in (gated_scan, unbind_loop):
        gate, value, initial, gradient = make_inputs(9, "cpu")
        states = form(gate, value, initial)
        states.backward(gradient)
        results.append((states.detach(), gate.grad, value.grad))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-5)


def test_memory_kept_for_backward_grows_linearly_in_time():
    per_frame = [bytes_kept(gated_scan, make_inputs(length, "cpu")) / length for length in (32, 128)]
    assert per_frame[1] <= per_frame[0] * 1.01
    assert per_frame[1] > 0


def test_recurrence_is_measured_at_every_length():
    rows = measure_recurrence(lengths=(1, 4), seconds=0.0)
    assert [row["frames"] for row in rows] == [1, 4]
    assert all(row["ratio"] == pytest.approx(row["scan_ms"] / row["loop_ms"]) and row["ratio"] > 0 for row in rows)


def test_speed_is_split_by_stage(monkeypatch, tmp_path, video_path):
    import kinetrack

    torch.manual_seed(0)
    config = kinetrack.KineTrackConfig.from_preset("nano", hidden_size=16, embedding_size=8)
    model = kinetrack.KineTrackForVideoAnalysis(config)
    monkeypatch.setattr(benchmark_speed, "EXAMPLE_VIDEO", video_path)
    monkeypatch.setattr(benchmark_speed, "SPEED_RUNS", {"small": ((64, 96), None), "wide": ((64, 128), (36, 64))})
    networks = {"torch": (model, kinetrack.KineTrackVideoProcessor())}
    rows = benchmark_speed.measure_speed(networks, tmp_path, 1, allow_untrained=True)
    assert [(row["video"], row["frames"]) for row in rows] == [("small", 12), ("wide", 12)]
    for row in rows:
        assert set(row["milliseconds"]) == set(benchmark_speed.STAGES)
        # The stages are parts of the whole, and most of it; decoding goes on while the model runs.
        parts = {name: value for name, value in row["milliseconds"].items() if name != "decode"}
        assert 0.4 < sum(parts.values()) * row["frames_per_second"] / 1000 <= 1.0


def test_report_is_saved_and_printed(tmp_path):
    report = benchmark.run_benchmark("no-model-needed", parts=["recurrence"], output=tmp_path / "new", lengths=(1, 2))
    saved = json.loads((tmp_path / "new" / "benchmark.json").read_text())
    assert saved["recurrence"] == report["recurrence"]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["benchmark.json", "benchmark.md"]
    assert (tmp_path / "new" / "benchmark.md").read_text() == format_report(report) + "\n"
    assert f"| 2 | {report['recurrence'][1]['scan_ms']:.2f} |" in format_report(report)


def test_a_part_that_fails_does_not_lose_the_parts_before(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "_measure_association", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        benchmark.run_benchmark("any", parts=["recurrence", "association"], output=tmp_path, lengths=(1,))
    assert json.loads((tmp_path / "benchmark.json").read_text())["recurrence"][0]["frames"] == 1


def test_a_tracker_of_parts_is_timed_beside_the_model():
    from kinetrack.hub_scripts.benchmark_parts import make_preset

    pytest.importorskip("trackers")
    found = measure_stack(make_preset("nano"), "a model", seconds=0.0)
    assert {name: row["model_input"] for name, row in found.items()} == {
        "a model": [352, 640],
        "RF-DETR + ByteTrack": [560, 560],
    }
    assert all(row["ms"]["p50"] > 0 for row in found.values())


def test_readme_has_the_figures_of_the_shipped_benchmark():
    report = json.loads(benchmark_table.REPORT.read_text())
    text = benchmark_table.README.read_text()
    assert replace_marked(text, benchmark_table.BEGIN, benchmark_table.END, benchmark_table.speed_lines(report)) == text
    assert len(benchmark_table.speed_lines(report)) > 10


def test_marked_text_without_its_markers_is_refused():
    assert replace_marked("a\n<b>\nold\n<e>\nz\n", "<b>", "<e>", ["new", "er"]) == "a\n<b>\nnew\ner\n<e>\nz\n"
    with pytest.raises(ValueError, match="<b> … <e>"):
        replace_marked("a <e> b <b>", "<b>", "<e>", [])


@pytest.mark.parametrize("arguments", [{"parts": ["speeed"]}, {"parts": []}, {"repeats": 0}])
def test_impossible_request_is_refused_before_anything_runs(arguments):
    with pytest.raises(ValueError, match="parts|repeats"):
        benchmark.run_benchmark("no-model-needed", **arguments)


def test_exported_folders_of_one_name_are_refused():
    with pytest.raises(ValueError, match="must differ; got a/int8, b/int8"):
        benchmark.run_benchmark("no-model-needed", parts=["speed"], exported=["a/int8", "b/int8"])


def test_things_timed_in_turns_take_what_they_take():
    import time

    from kinetrack.hub_scripts.benchmark_clock import time_in_turns

    order = []
    things = {"slow": lambda: (order.append("slow"), time.sleep(0.02)), "fast": lambda: order.append("fast")}
    times = time_in_turns(things, seconds=0.0, least=4)
    assert order[2:] == ["fast", "slow", "slow", "fast"] * 2  # after one of each that does not count
    assert times["slow"].p50 >= 20 > times["fast"].p50 and times["slow"].runs == 4
    assert times["slow"].cpu < 20  # sleeping takes no processor


def test_flops_and_memory_of_a_convolution_are_right():
    from kinetrack.hub_scripts.benchmark_clock import count_flops, peak_memory

    layer, image = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.randn(1, 3, 640, 640)
    assert count_flops(lambda: layer(image)) == pytest.approx(2 * 3 * 9 * 64 * 640 * 640 / 1e9)
    with torch.inference_mode():
        assert 90 < peak_memory(lambda: [layer(image) for _ in range(1)]) < 400  # 100 MiB of output


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc")
def test_memory_that_was_freed_before_is_counted_again():
    from kinetrack.hub_scripts.benchmark_clock import peak_memory

    kept = []

    def run():  # 128 MiB, and something behind them that keeps the heap from shrinking
        blocks = [torch.ones(2**14) for _ in range(2**11)]
        kept.append(torch.ones(2**14))
        return len(blocks)

    assert min(peak_memory(run) for _ in range(3)) > 100


def test_parts_of_a_clip_add_up_to_nearly_all_of_it():
    from kinetrack.hub_scripts.benchmark_parts import PARTS, make_preset, measure_form

    row = measure_form(make_preset("nano"), 2, (64, 96), seconds=0.0)
    assert set(row["parts"]) == set(PARTS) and all(value > 0 for value in row["parts"].values())
    assert row["gflops"] > 0.1
    step = measure_form(make_preset("nano"), 0, (64, 96), seconds=0.0)
    assert step["form"] == "step" and step["gflops"] == pytest.approx(row["gflops"] / 2, rel=0.01)


def test_model_is_as_it_was_after_its_parts_are_timed():
    from kinetrack.hub_scripts.benchmark_parts import make_preset, timed_parts

    model, clip = make_preset("nano"), torch.randn(1, 2, 3, 64, 96)
    with torch.inference_mode():
        before = model(clip).logits
        with timed_parts(model) as seconds:
            torch.testing.assert_close(model(clip).logits, before, rtol=0, atol=0)
        spent = dict(seconds)
        model(clip)
    assert dict(seconds) == spent


@pytest.mark.parametrize("name", ["I3D-R50", "TSM-R50", "R50 + LSTM"])
def test_baselines_mix_frames(name):
    from kinetrack.hub_scripts.benchmark_baselines import RIVALS

    torch.manual_seed(0)
    model, clip = RIVALS[name][0]().eval(), torch.randn(1, 4, 3, 64, 64)
    with torch.inference_mode():
        forward, backward = model(clip), model(clip.flip(1))
    assert forward.shape == (1, 400)
    assert not torch.allclose(forward, backward, atol=1e-5)


def test_convgru_carries_its_state_forward_only():
    from kinetrack.hub_scripts.benchmark_baselines import ConvGRU

    torch.manual_seed(0)
    gru, features = ConvGRU(4), torch.randn(1, 5, 4, 6, 6)
    changed = features.clone()
    changed[:, 2] += 1
    with torch.inference_mode():
        difference = (gru(features) - gru(changed)).abs().amax((0, 2, 3, 4))
    assert (difference[:2] == 0).all() and (difference[2:] > 0).all()


def test_ratios_are_what_their_timings_say_and_are_held_against_our_goals():
    from kinetrack.hub_scripts.benchmark_comparisons import check_goals, measure_sharing, measure_step

    sharing, step = (measure("nano", (64, 64), seconds=0.0) for measure in (measure_sharing, measure_step))
    times = sharing["ms"]
    assert sharing["ratio"] == pytest.approx(
        times["joint"]["p50"] / (times["actions"]["p50"] + times["tracking"]["p50"])
    )
    times = step["ms"]
    assert step["ratio"] == pytest.approx(times["step"]["p50"] / times["encoder and heads"]["p50"])
    assert step["ratio_with_differences"] == pytest.approx(times["step"]["p50"] / times["with differences"]["p50"])
    goals = check_goals({"sharing": [sharing | {"ratio": 0.69}], "step": [step | {"ratio": 1.2}]})
    assert [(goal["limit"], goal["met"]) for goal in goals] == [("≤ 0.7", True), ("≤ 1.15", False)]
    assert goals[1]["name"] == "step / encoder and heads, nano, 64×64"


def test_encoder_and_heads_see_the_frame_before_only_through_differences():
    from kinetrack.hub_scripts.benchmark_comparisons import EncoderAndHeads
    from kinetrack.hub_scripts.benchmark_parts import make_preset

    model = make_preset("nano")
    frame = torch.randn(1, 3, 64, 64)
    memories = [torch.randn(1, model.config.motion_channels, 8, 8) for _ in range(2)]
    with torch.inference_mode():
        alone, differing = (
            [net(frame, past)[0] for past in memories]
            for net in (EncoderAndHeads(model), EncoderAndHeads(model, differences=True))
        )
    assert torch.equal(*alone) and not torch.equal(*differing)


def test_backends_are_compared_with_pytorch(model_folder, monkeypatch, tmp_path):
    import kinetrack
    from kinetrack.processing.graphs.backends import accelerate

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, _ = kinetrack.load_model(model_folder, "cpu")
    runners = {"torch": model, "onnx": accelerate(model, "onnx")}
    rows = benchmark_speed.measure_backends(runners, ((64, 96),), seconds=0.0)
    assert [(row["backend"], row["difference"] < 1e-3) for row in rows] == [("torch", True), ("onnx", True)]
    assert rows[0]["difference"] == 0 < rows[1]["difference"]


def test_boxes_are_compared_where_the_same_objects_were_found():
    said = {
        "logits": torch.zeros(1, 3),
        "features": torch.zeros(1, 2),
        "boxes": torch.tensor([[[0.0, 0, 9, 9], [50, 50, 90, 90]]]),
        "scores": torch.tensor([[0.9, 0.5]]),
    }
    moved = said | {"boxes": said["boxes"] + 0.25}
    swapped = {name: tensor.flip(1) for name, tensor in said.items()} | {"scores": torch.tensor([[0.52, 0.9]])}
    assert benchmark_speed._largest_difference(moved, said) == 0.25
    assert benchmark_speed._largest_difference(swapped, said) == pytest.approx(0.02)


def test_everything_that_is_measured_is_printed_and_drawn(tmp_path):
    from kinetrack.hub_scripts.benchmark_parts import make_preset, measure_form

    form = {"preset": "nano", "model_input": [64, 64], "dtype": "float32", "parameters": 3.0}
    form |= measure_form(make_preset("nano"), 1, (64, 64), seconds=0.0)
    times = {"p50": 1.0, "p95": 2.0, "cpu": 1.5, "runs": 3}
    rival = {"name": "S3D", "input": [16, 224, 224], "parameters": 8.0, "ratio": 2.0}
    rival["ms"] = {"KineTrack": times, "own input": times, "rival": times}
    goal = {"name": "joint", "value": 0.5, "ms": "5 / (4 + 6)", "limit": "≤ 0.6", "met": True}
    report = {
        "model": "tiny",
        "machine": benchmark.describe_machine() | {"load": [0.5, 3.0]},
        "parts": [form],
        "comparisons": {
            "goals": [goal],
            "rivals": [rival],
        },
        "trackers": {"RF-DETR + ByteTrack": {"model_input": [560, 560], "ms": times}},
        "drawing": benchmark_speed.measure_drawing(objects=2),
    }
    benchmark.save_report(report, tmp_path)
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    text = format_report(report)
    form, goal = "| nano | 64×64 | 3.0 | float32 | T = 1 |", "| joint | 0.50 | 5 / (4 + 6) | ≤ 0.6 | yes |"
    for expected in ("load 0.5 to 3.0", form, goal, "S3D"):
        assert expected in text
    assert "| RF-DETR + ByteTrack | 560×560 |" in text and "Drawing 2 tracks" in text


def test_a_report_names_the_gpu_only_where_it_was_used():
    machine = {"processor": "Xeon", "accelerator": "H200"}
    assert device_name(machine) == device_name(machine | {"device": "cpu"}) == "Xeon"
    assert device_name(machine | {"device": "cuda:1"}) == "H200"
