"""The command line: what it prints, how it ends, and what it leaves behind when things go wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import kinetrack
import numpy as np
import pytest
import torch
from kinetrack.hub_scripts import cli, console
from PIL import Image

FILES = ["analysis.json", "annotated.mp4", "summary.png", "tracks.txt"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def start(*arguments, cwd=None) -> subprocess.Popen:
    """The real command, in a process of its own."""
    command = [sys.executable, "-m", "kinetrack.hub_scripts.cli", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=cwd
    )


@pytest.fixture
def run(monkeypatch, capfd):
    """Runs the command in this process; returns exit code, standard output and standard error."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kinetrack", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capfd.readouterr()
        return end.value.code or 0, out, err

    return call


@pytest.fixture
def analyze(run, model_folder, tmp_path):
    """`kinetrack analyze ... --model TINY --output tmp_path/out`."""

    def call(*arguments):
        return run("analyze", *arguments, "--model", model_folder, "--output", tmp_path / "out", "--device", "cpu")

    return call


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Error: ")]


def test_help_comes_within_a_second():
    best = min(_seconds("--help") for _ in range(3))
    assert best < 1.0


def _seconds(*arguments) -> float:
    """Of CPU, so that other work on the machine does not count."""
    before = os.times()
    with start(*arguments) as process:
        process.communicate()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_help_teaches_with_examples(run):
    code, out, _ = run("--help")
    assert code == 0
    assert all(command in out for command in ("analyze", "train", "evaluate", "benchmark", "--version"))
    for command in ("analyze", "train", "evaluate", "benchmark"):
        code, out, _ = run(command, "--help")
        assert code == 0 and "Examples" in out and f"kinetrack {command}" in out


def test_help_lists_every_option_with_its_default(run):
    out = " ".join(run("analyze", "--help")[1].replace("│", " ").split())  # descriptions wrap in their column
    for option in ("--model", "--output", "--task", "--fps", "--threshold", "--size", "--device", "--no-video"):
        assert option in out
    assert "kinetrack-nano" in out and "kinetrack-results" in out and "every frame" in out


def test_version(run):
    assert run("--version")[:2] == (0, f"kinetrack {kinetrack.__version__}\n")


def test_no_arguments_show_the_help(run):
    code, out, err = run()
    assert "analyze" in out + err


def test_analyze_writes_all_files_and_says_where(analyze, long_video_path, tmp_path):
    code, out, err = analyze(long_video_path, "--threshold", "0.3")
    assert code == 0 and not errors(err)
    folder = tmp_path / "out" / "long"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert "long.mp4" in out and "75" in out and "3.0 s" in out and str(folder) in out
    assert "75/75" in err and "frames/s" in err  # the progress bar


def test_options_reach_the_analysis(analyze, video_path, tmp_path):
    options = ["--task", "tracking", "--fps", "5", "--threshold", "0.25", "--size", "32x64", "--no-video"]
    assert analyze(video_path, *options)[0] == 0
    folder = tmp_path / "out" / "plain"
    assert not (folder / "annotated.mp4").exists()
    settings = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))["settings"]
    assert settings == {"task": "tracking", "fps": 5.0, "threshold": 0.25, "size": [32, 64], "device": "cpu"}


def test_videos_with_the_same_name_get_folders_of_their_own(analyze, video_path, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / video_path.name
    other.write_bytes(video_path.read_bytes())
    code, out, _ = analyze(video_path, other, "--no-video")
    assert code == 0
    assert str(tmp_path / "out" / "plain") in out and str(tmp_path / "out" / "plain-2") in out


def test_a_broken_video_is_reported_and_the_others_are_done(analyze, video_path, corrupt_video_path, tmp_path):
    code, out, err = analyze(corrupt_video_path, video_path, tmp_path / "nowhere.mp4", "--no-video")
    assert code == 1
    found = errors(err)
    assert len(found) == 2 and "corrupt.mp4" in found[0] and "nowhere.mp4" in found[1]
    assert "2 of 3 videos" in err and "plain.mp4" in out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plain"]


@pytest.mark.parametrize(
    ("fixture", "says"),
    [
        ("empty_video_path", "0 bytes"),
        ("zero_frames_video_path", "zero.mkv"),
        ("corrupt_video_path", "not a video"),
        ("truncated_video_path", "cut off"),
        ("audio_only_path", "no video stream"),
        ("video_folder", "folder"),
    ],
)
def test_unreadable_videos_end_with_one_line(analyze, fixture, says, request, tmp_path):
    code, out, err = analyze(request.getfixturevalue(fixture))
    assert code == 1 and out == ""
    assert len(errors(err)) == 1 and says in errors(err)[0]
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_ends_with_one_line(analyze, tmp_path):
    code, _, err = analyze(tmp_path / "nowhere.mp4")
    assert code == 1 and len(errors(err)) == 1 and "nowhere.mp4" in err and "Traceback" not in err


def test_a_corrupt_packet_in_the_middle_is_no_failure(analyze, damaged_video_path, tmp_path):
    assert analyze(damaged_video_path)[0] == 0
    with av.open(str(tmp_path / "out" / "damaged" / "annotated.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) > 20


@pytest.mark.parametrize("fixture", ["gray_video_path", "odd_size_video_path", "ten_bit_video_path"])
def test_unusual_videos_are_analysed(analyze, fixture, request, tmp_path):
    path = request.getfixturevalue(fixture)
    assert analyze(path)[0] == 0
    with av.open(str(tmp_path / "out" / path.stem / "annotated.mp4")) as video:
        assert video.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_video_with_an_alpha_channel_is_analysed(analyze, make_video, tmp_path):
    path = make_video(tmp_path / "alpha.mkv", codec="ffv1", pixel_format="bgra")
    assert analyze(path, "--no-video")[0] == 0


def test_boxes_wholly_outside_the_frame_are_survived(analyze, video_path, tmp_path, monkeypatch):
    found = {
        "boxes": torch.tensor([[-200.0, -200.0, -100.0, -100.0], [500.0, 300.0, 600.0, 400.0]]),
        "scores": torch.tensor([0.9, 0.8]),
        "labels": torch.zeros(2, dtype=torch.long),
        "embeddings": torch.nn.functional.normalize(torch.ones(2, 6), dim=-1),
    }
    monkeypatch.setattr("kinetrack.processing.session_kinetrack.decode_detections", lambda *a, **k: [found])
    code, _, err = analyze(video_path)
    assert code == 0, err
    folder = tmp_path / "out" / video_path.stem
    assert sorted(path.name for path in folder.iterdir()) == FILES
    rows = np.loadtxt(folder / "tracks.txt", delimiter=",", ndmin=2)
    assert set(rows[:, 1]) == {1, 2} and (rows[rows[:, 1] == 1, 2] < -100).all()


def test_missing_pyav_says_what_to_install(analyze, video_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, err = analyze(video_path)
    assert code == 1 and len(errors(err)) == 1 and "pip install av" in err and "Traceback" not in err


def test_a_picture_that_holds_nan_ends_with_one_line(analyze, tmp_path):
    picture = np.full((64, 96), 0.5, np.float32)
    picture[3, 3] = np.nan
    Image.fromarray(picture).save(tmp_path / "measured.tiff")
    code, _, err = analyze(tmp_path / "measured.tiff")
    assert code == 1 and len(errors(err)) == 1 and "not finite" in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_weights_for_another_number_of_labels_end_with_one_line(run, model_folder, video_path, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "walk"}, "label2id": {"walk": 0}}))
    code, _, err = run("analyze", video_path, "--model", folder, "-o", tmp_path / "out")
    assert code == 1 and len(errors(err)) == 1 and "do not fit its configuration" in err and "Traceback" not in err


def test_wrong_settings_and_damaged_weights_are_bad_input_and_mistakes_are_not():
    from safetensors import SafetensorError

    with pytest.raises(Exception, match="scan") as wrong:
        kinetrack.KineTrackConfig(scan="fast")
    assert console.is_bad_input(wrong.value) and console.is_bad_input(SafetensorError("cut off"))
    assert not console.is_bad_input(KeyError("a key")) and not console.is_bad_input(AssertionError())


def test_an_untrained_model_is_refused_and_the_option_named(run, untrained_model_folder, video_path, tmp_path):
    command = ["analyze", video_path, "-m", untrained_model_folder, "-o", tmp_path / "out", "--no-video"]
    code, _, err = run(*command)
    assert code == 1 and len(errors(err)) == 1 and "--allow-untrained" in err
    assert run(*command, "--allow-untrained")[0] == 0


@pytest.mark.parametrize("model", ["no-such-model", "./no/such/folder"])
def test_a_wrong_model_path_ends_with_one_line(run, video_path, model, tmp_path):
    code, _, err = run("analyze", video_path, "--model", model, "-o", tmp_path / "out")
    assert code == 1 and len(errors(err)) == 1 and model in err and "Traceback" not in err


def test_output_that_is_a_file(run, model_folder, video_path, tmp_path):
    (tmp_path / "taken").write_text("mine")
    code, _, err = run("analyze", video_path, "-m", model_folder, "-o", tmp_path / "taken")
    assert code == 1 and "--output" in errors(err)[0]
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_folder_where_a_result_belongs(analyze, video_path, tmp_path):
    (tmp_path / "out" / "plain" / "annotated.mp4").mkdir(parents=True)
    code, _, err = analyze(video_path)
    assert code == 1 and "annotated.mp4 there is a folder" in errors(err)[0]


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="a file system nobody can write to")
def test_output_that_cannot_be_written(run, model_folder, video_path):
    code, _, err = run("analyze", video_path, "-m", model_folder, "-o", "/proc/kinetrack-results")
    assert code == 1 and "cannot be written" in errors(err)[0]


@pytest.mark.parametrize(
    "options", [["--size", "big"], ["--task", "dance"], ["--no-such-option"], ["--fps", "fast"], ["--size", "12x"]]
)
def test_options_that_cannot_be_parsed_show_the_usage(analyze, video_path, options):
    code, _, err = analyze(video_path, *options)
    assert code == 2 and "Usage" in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "says"), [(["--fps", "0"], "fps"), (["--threshold", "7"], "threshold"), (["--size", "33x64"], "32")]
)
def test_options_out_of_range_end_with_one_line(analyze, video_path, options, says):
    code, _, err = analyze(video_path, *options)
    assert code == 1 and len(errors(err)) == 1 and says in errors(err)[0]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interrupted_run_leaves_the_earlier_files_and_nothing_else(
    sent, model_folder, make_video, draw_frames, tmp_path
):
    path = make_video(tmp_path / "film.mp4", np.concatenate([draw_frames(50)] * 20))
    folder = tmp_path / "out" / "film"
    folder.mkdir(parents=True)
    (folder / "tracks.txt").write_text("earlier")
    with start("analyze", path, "-m", model_folder, "-o", tmp_path / "out", "--device", "cpu") as process:
        deadline = time.monotonic() + 90
        while not list(folder.glob(".annotated-*")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        process.send_signal(sent)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err and "Interrupted" in err
    assert [file.name for file in folder.iterdir()] == ["tracks.txt"]
    assert (folder / "tracks.txt").read_text() == "earlier"


def test_a_package_that_is_missing_names_the_extra(run, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("kinetrack.hub_scripts.train")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "yaml", None)
    code, _, err = run("train", tmp_path / "config.yaml")
    assert code == 1 and "pip install -e '.[train]'" in errors(err)[0]


def test_train_with_a_missing_or_wrong_configuration(run, tmp_path):
    code, _, err = run("train", tmp_path / "nowhere.yaml")
    assert code == 1 and "nowhere.yaml" in errors(err)[0]
    (tmp_path / "config.yaml").write_text("stepps: 3\n")
    code, _, err = run("train", tmp_path / "config.yaml")
    assert code == 1 and "stepps" in errors(err)[0]


def test_train_passes_file_and_overrides_on(run, tmp_path, monkeypatch):
    from kinetrack.hub_scripts import train

    seen = []
    monkeypatch.setattr(train, "train", lambda settings, resume: seen.append((settings, resume)) or tmp_path / "model")
    (tmp_path / "config.yaml").write_text("steps: 3\n")
    code, out, _ = run("train", tmp_path / "config.yaml", "seed=7", "data.workers=0", "--fresh")
    assert code == 0 and str(tmp_path / "model") in out
    settings, resume = seen[0]
    assert (settings.steps, settings.seed, settings.data.workers, resume) == (3, 7, 0, False)


def test_evaluate_prints_the_report(run, model_folder, tmp_path, video_path, monkeypatch):
    clip = tmp_path / "data" / "walk" / "a.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(video_path.read_bytes())
    code, out, err = run(
        "evaluate", model_folder, "--data", tmp_path / "data", "--task", "actions", "-o", tmp_path / "report"
    )
    assert code == 0, err
    assert "# Evaluation" in out and "top-1" in out
    assert (tmp_path / "report" / "evaluation.json").exists()


def test_evaluate_with_a_label_the_model_does_not_know(run, model_folder, tmp_path, video_path):
    clip = tmp_path / "data" / "juggle" / "a.mp4"
    clip.parent.mkdir(parents=True)
    clip.write_bytes(video_path.read_bytes())
    code, _, err = run("evaluate", model_folder, "--data", tmp_path / "data", "-o", tmp_path / "report")
    assert code == 1 and len(errors(err)) == 1 and "no class 'juggle'" in err and "walk, run, sit" in err
    assert not (tmp_path / "report").exists()


def test_evaluate_without_data_ends_with_one_line(run, model_folder, tmp_path):
    code, _, err = run("evaluate", model_folder, "--data", tmp_path / "nowhere")
    assert code == 1 and "nowhere" in errors(err)[0]


def test_benchmark_rejects_an_unknown_part(run):
    code, _, err = run("benchmark", "--part", "luck")
    assert code == 1 and "luck" in errors(err)[0]


def test_an_error_of_many_lines_becomes_one():
    assert console.one_line(ValueError("first\n  second\n\nthird")) == "first second third"
    assert console.one_line(ValueError()) == "ValueError"
    assert "--size" in console.one_line(MemoryError())


def test_debugging_shows_where_an_error_came_from(monkeypatch, tmp_path):
    monkeypatch.setenv("KINETRACK_DEBUG", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["kinetrack", "train", str(tmp_path / "nowhere.yaml")])
    with pytest.raises(FileNotFoundError):
        cli.main()


def test_export_writes_a_folder_that_analyze_takes(run, model_folder, video_path, tmp_path):
    code, out, err = run("export", model_folder, "--output", tmp_path / "exported")
    assert code == 0, err
    assert out.strip().startswith(f"{tmp_path / 'exported'}: README.md, actions.onnx, config.json, graph.json")
    code, out, err = run("analyze", video_path, "--model", tmp_path / "exported", "-o", tmp_path / "out", "--no-video")
    assert code == 0, err
    assert "frames/s" in out


def test_export_in_eight_bits_needs_videos(run, model_folder, tmp_path):
    code, _, err = run("export", model_folder, "--output", tmp_path / "exported", "--int8")
    assert code == 2 and "--calibrate" in err


def test_backend_that_does_not_fit_is_one_line(run, model_folder, video_path, tmp_path):
    run("export", model_folder, "--output", tmp_path / "exported")
    code, _, err = run("analyze", video_path, "--model", tmp_path / "exported", "--backend", "compile")
    assert code == 1
    assert errors(err) == [
        f"Error: {tmp_path / 'exported'} was exported for onnx and cannot run with --backend compile."
    ]


def test_a_warning_is_one_line():
    code = "import warnings; from kinetrack.hub_scripts import console; console.prepare_console(); "
    code += "warnings.warn('2 videos are missing.'); warnings.warn('old', FutureWarning)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stderr.startswith("Warning: 2 videos are missing.\n") and "FutureWarning: old" in done.stderr
