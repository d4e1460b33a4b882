"""The benchmark: its inputs are what they claim to be, its baseline computes the same thing, its report is complete."""

import json

import pytest
import torch
from kinetrack.hub_scripts import benchmark
from kinetrack.hub_scripts.benchmark_recurrence import bytes_kept, make_inputs, measure_recurrence, unbind_loop
from kinetrack.modeling.propagation_kinetrack import gated_scan
from kinetrack.processing.decoding_kinetrack import probe_video


def test_resized_video_repeats_the_source_until_it_is_long_enough(video_path, tmp_path):
    target = tmp_path / "wide.mp4"
    count = benchmark.write_resized(video_path, target, (90, 160), seconds=2)
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
    monkeypatch.setattr(benchmark, "EXAMPLE_VIDEO", video_path)
    monkeypatch.setattr(benchmark, "SPEED_RUNS", {"small": ((64, 96), None), "wide": ((64, 128), (36, 64))})
    rows = benchmark.measure_speed(model, kinetrack.KineTrackVideoProcessor(), tmp_path, 1, allow_untrained=True)
    assert [(row["video"], row["frames"]) for row in rows] == [("small", 12), ("wide", 12)]
    for row in rows:
        assert set(row["milliseconds"]) == set(benchmark.STAGES)
        # The stages are parts of the whole, and most of it.
        assert 0.5 < sum(row["milliseconds"].values()) * row["frames_per_second"] / 1000 <= 1.0


def test_report_is_saved_and_printed(tmp_path):
    report = benchmark.run_benchmark("no-model-needed", parts=["recurrence"], output=tmp_path / "new", lengths=(1, 2))
    saved = json.loads((tmp_path / "new" / "benchmark.json").read_text())
    assert saved["recurrence"] == report["recurrence"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["benchmark.json"]
    assert f"| 2 | {report['recurrence'][1]['scan_ms']:.2f} |" in benchmark.format_report(report)


@pytest.mark.parametrize("arguments", [{"parts": ["speeed"]}, {"parts": []}, {"repeats": 0}])
def test_impossible_request_is_refused_before_anything_runs(arguments):
    with pytest.raises(ValueError, match="parts|repeats"):
        benchmark.run_benchmark("no-model-needed", **arguments)
