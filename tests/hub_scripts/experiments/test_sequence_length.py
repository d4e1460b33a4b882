"""Streams of joined clips are answered as frame by frame; findings follow the numbers; the commands run to the end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.clip_training import ClipSet, all_frames, classify, middle_frames
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.features import FIGHTS, ClipFeatures
from kinetrack.hub_scripts.experiments.fight_length import FightLength
from kinetrack.hub_scripts.experiments.frame_streams import (
    ClipStream,
    FrameClassifier,
    attend_at_every_frame,
    piece_accuracy,
    pieces_of,
    stream_accuracy,
)
from kinetrack.hub_scripts.experiments.sequence_length import SequenceLength
from kinetrack.hub_scripts.experiments.sequence_length_report import COSTS
from kinetrack.hub_scripts.experiments.temporal_models import build_classifier
from typer.testing import CliRunner

FORM = "propagation+beta"


def clip(label, length, rng):
    middle, coarse = (rng.normal(size=(length, c, s, s)).astype(np.float16) for c, s in ((4, 4), (6, 2)))
    return ClipFeatures(f"{label}", f"film {label}", label, middle, coarse, np.full((length, 4), np.nan))


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    return ClipSet([clip(label, length, rng) for label, length in enumerate((5, 3, 5, 4))])


@pytest.fixture(scope="module")
def model(clips):
    torch.manual_seed(0)
    return build_classifier(FORM, 4, clips.channels, hidden_size=16).eval()


@torch.no_grad()
def test_clips_of_unequal_lengths_are_answered_as_each_alone(clips, model):
    alone = [model(**clips.batch([(n, np.arange(clips.lengths[n]))], False))[0] for n in range(4)]
    assert torch.allclose(classify(model, clips, all_frames), torch.stack(alone), atol=1e-5)


def test_frames_in_a_row_come_from_the_middle():
    assert middle_frames(4)(10, None).tolist() == [3, 4, 5, 6]
    assert middle_frames(16)(3, None).tolist() == [0, 1, 2]


def test_attention_at_every_frame_is_that_of_the_frames_up_to_it():
    torch.manual_seed(0)
    scores, pooled = torch.randn(2, 7), torch.randn(2, 7, 3)
    found = attend_at_every_frame(scores, pooled, 4)
    for frame in range(7):
        window = slice(max(frame - 3, 0), frame + 1)
        beta = scores[:, window].softmax(1)
        assert torch.allclose(found[:, frame], torch.einsum("bt,btd->bd", beta, pooled[:, window]), atol=1e-6)


@torch.no_grad()
def test_a_stream_is_answered_frame_by_frame_without_the_future(clips, model):
    stream = ClipStream(clips, 4)
    frames = FrameClassifier(model, 3)
    cells = stream.read(np.arange(len(stream.clip_of)))[None].float()
    whole = frames(cells)
    for end in (1, 6, 17):
        assert torch.allclose(frames(cells[:, :end])[:, -1], whole[:, end - 1], atol=1e-5)
    right = (whole[0].argmax(1) == stream.labels).numpy()
    expected = [right[stream.clip_of == number].mean() for number in range(4)]
    assert stream_accuracy(model, stream, (3,))["3"] == pytest.approx(expected, abs=1e-4)
    assert piece_accuracy(model, stream, 17) == pytest.approx(stream_accuracy(model, stream, (17,))["17"], abs=1e-4)


def test_pieces_of_a_stream_have_a_label_for_every_frame(clips):
    stream = ClipStream(clips, 4, orders=2, seed=1)
    assert len(stream) == 17 // 4 and len(stream.clip_of) == 34
    chosen = [(item, pieces_of(4)(length, None)) for item, length in enumerate(stream.lengths)]
    assert stream.targets(chosen).flatten().tolist() == stream.labels[:16].tolist()
    anywhere = {int(pieces_of(4)(34, np.random.default_rng(seed))[0]) for seed in range(9)}
    assert len(anywhere) > 3


def made_up(eight: str, sixteen: str, speed: float = 30.0) -> Results:
    def cell(variant, measures):
        return {"variant": variant, "seed": 0, "measures": measures}

    def learned(hits):
        stream = {"8": [1.0] * 40, "128": [0.0] * 40}
        return {"hits": {"spread": hits, "middle": hits}, "dev_top1": 50.0, "stream": stream, "pieces": [1.0] * 40}

    cost = {"milliseconds": 1000 / speed, "frames_per_second": speed, "peak_mib": 50.0, "state_kib": 9.0}
    costs = {length: {"clip": cost, "step": cost | {"peak_mib": 9.0}} for length in ("8", "16", "32")}
    data = {
        "set": "JHMDB",
        "films": list(range(40)),
        "val_clips": 40,
        "val_films": 40,
        "val_frames": "15 to 40 a clip, 34 on average",
    }
    eight, sixteen = learned(eight), learned(sixteen)
    sixteen["stream"] = eight["stream"] = {"8": [1.0] * 40, "16": [0.5] * 40, "128": [0.0] * 40}
    return Results([cell("8", eight), cell("16", sixteen), cell(COSTS, costs)], data, {"input": "224×224"})


def test_finding_says_what_was_shown():
    results = made_up("0" * 40, "1" * 40)
    text = " ".join(SequenceLength().conclude(results))
    assert "T = 8 differs by -100.0 (-100.0 to -100.0) points, shown" in text
    assert "learned on T = 16 +100.0 (+100.0 to +100.0), shown" in text  # 8 frames back rather than 128
    assert "learned on T = 16 -50.0 (-50.0 to -50.0), shown" in text  # one stream against pieces
    summary = SequenceLength().summarise(results)
    assert summary.verdict == "against T = 16: T = 8 -100.0 points" and "at 30 to 30 frames/s" in summary.measured


def test_finding_says_what_was_not_shown():
    results = made_up("01" * 20, "10" * 20)
    text = " ".join(SequenceLength().conclude(results))
    assert "T = 8 differs by +0.0" in text and "points, not shown" in text
    assert SequenceLength().summarise(results).verdict == "no difference from T = 16 was shown"


def run_command(*arguments):
    return CliRunner().invoke(app, ["experiment", *map(str, arguments), "--quick", "--seeds", "1"])


def test_a_quick_run_writes_results_report_and_plots(clips_root, tmp_path):
    chosen = [option for name in ("8", "16", "true", "64") for option in ("--variant", name)]
    result = run_command("sequence-length", "--data", clips_root, "-o", tmp_path, "--cache", tmp_path / "c", *chosen)
    assert result.exit_code == 0, result.output
    cells = {cell["variant"]: cell["measures"] for cell in json.loads((tmp_path / "results.json").read_text())["cells"]}
    assert set(cells["8"]["stream"]) == {"8", "16", "32", "64", "128"} and "hits" not in cells["64"]
    assert "pieces" in cells["64"] and "pieces" not in cells["true"]
    report = (tmp_path / "README.md").read_text()
    assert "learned on |" in report and "**Streams.**" in report
    assert (tmp_path / "sequence-length.png").read_bytes().startswith(b"\x89PNG")


def test_costs_of_clips_and_streams_have_the_same_reach(clips_root, tmp_path, monkeypatch):
    asked = []

    def measure(length, size, attention_window):
        asked.append((length, size, attention_window))
        costs = {"milliseconds": 2.0, "frames_per_second": 500.0, "peak_mib": 3.0, "state_kib": 1.0}
        return {"clip": costs, "step": costs}

    monkeypatch.setattr("kinetrack.hub_scripts.experiments.sequence_length.measure_costs", measure)
    result = run_command(
        "sequence-length", "--data", clips_root, "-o", tmp_path, "--cache", tmp_path / "c", "--variant", COSTS
    )
    assert result.exit_code == 0, result.output
    assert asked == [(8, (64, 64), 8)]
    assert "**Cost.**" in (tmp_path / "README.md").read_text()


def test_fights_that_are_neighbours_in_number_count_as_one_film():
    names = [f"actions/surveillance_fight/train/{name}" for name in ("fight/fi003.mp4", "fight/fi005.mp4")]
    names.append("actions/surveillance_fight/train/noFight/nofi004.mp4")
    films = FIGHTS.films([SimpleNamespace(name=name) for name in names])
    assert list(films.values()) == ["fight 0", "fight 1", "noFight 0"]


def test_fights_are_a_subset_of_the_lengths():
    assert set(FightLength.variants) < set(SequenceLength.variants) and FightLength().protocol(False)
