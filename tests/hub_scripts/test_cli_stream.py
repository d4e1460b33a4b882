"""`kinetrack stream` as a person runs it: its files, its words, its exit codes, and how it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from broadcast import scene
from kinetrack.hub_scripts.cli import app, main
from kinetrack.hub_scripts.cli_stream import stopping
from kinetrack.hub_scripts.stream_display import StreamDisplay
from kinetrack.processing.streaming import StreamStatus
from typer.testing import CliRunner


@pytest.fixture(scope="module")
def recording(tmp_path_factory, make_video):
    return make_video(tmp_path_factory.mktemp("recording") / "door.mp4", np.stack([scene(i) for i in range(10)]))


def run(*arguments):
    return CliRunner().invoke(app, ["stream", *map(str, arguments)])


def start(*arguments, **options):
    """The command as a process of its own."""
    code = "import sys; sys.argv[0] = 'kinetrack'; from kinetrack.hub_scripts.cli import main; main()"
    command = [sys.executable, "-c", code, "stream", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def test_file_is_watched_to_its_end(recording, model_folder, tmp_path):
    found = run(recording, "--model", model_folder, "-o", tmp_path, "--write", "jsonl", "--write", "video")
    assert found.exit_code == 0, found.output
    assert "door: 10 frames, 0 dropped" in found.stderr
    assert sorted(path.name for path in (tmp_path / "door").iterdir()) == ["annotated-000001.mp4", "frames.jsonl"]


def test_list_of_streams_names_several_sources(recording, model_folder, tmp_path):
    (tmp_path / "cams.streams").write_text(f"# two\n{recording}\n{recording}\n")
    found = run(tmp_path / "cams.streams", "--model", model_folder, "-o", tmp_path / "out", "--frames", 4)
    assert found.exit_code == 0, found.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["door", "door-2"]
    assert "door-2: 4 frames" in found.stderr


def test_json_goes_to_the_standard_output_and_nothing_else(recording, model_folder, tmp_path):
    found = run(recording, "--model", model_folder, "--json", "--frames", 3, "-o", tmp_path / "out", "--quiet")
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert [line.get("frame_index") for line in lines if "event" not in line] == [0, 1, 2]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.mp4"], "There is no video at missing.mp4."),
        (["http://127.0.0.1:9/x.ts"], "cannot be opened"),
        (["no-*.jpg"], "has no images and no videos"),
        (["missing.streams"], "There is no list of streams"),
    ],
)
def test_bad_source_is_one_line_and_exit_code_1(arguments, words, model_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kinetrack", "stream", *arguments, "--model", str(model_folder)])
    with pytest.raises(SystemExit) as end:
        main()
    lines = [line for line in capsys.readouterr().err.splitlines() if line and "Loading weights" not in line]
    assert end.value.code == 1
    assert len(lines) == 1 and lines[0].startswith("Error: ") and words in lines[0]


def test_bad_option_is_refused(recording, model_folder):
    found = run(recording, "--model", model_folder, "-O", "rtsp_transport")
    assert found.exit_code == 2 and "KEY=VALUE" in found.output


def test_first_signal_stops_and_second_one_interrupts(capsys):
    before = signal.getsignal(signal.SIGINT)
    with stopping() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.wait(5)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is before
    assert "Stopping" in capsys.readouterr().err


def test_signal_ends_the_run_with_complete_files(model_folder, tmp_path):
    """Raw frames come through a pipe that never ends; the signal comes while they do."""
    state = tmp_path / "state.safetensors"
    process = start(
        *("-", "--pipe-size", "64x96", "--model", model_folder, "-o", tmp_path, "--state", state),
        *("--write", "jsonl", "--write", "video"),
        stdin=subprocess.PIPE,
    )
    lines = tmp_path / "stdin" / "frames.jsonl"
    end = time.monotonic() + 200
    index = 0
    os.set_blocking(process.stdin.fileno(), False)
    pending = b""
    while not lines.exists() or len(lines.read_text().splitlines()) < 5:
        assert time.monotonic() < end and process.poll() is None, process.stderr.read().decode()
        if not pending:
            pending, index = scene(index).tobytes(), index + 1
        try:
            pending = pending[os.write(process.stdin.fileno(), pending) :]
        except BlockingIOError:
            time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert "Stopping; the files are completed." in errors and "Traceback" not in errors
    assert all(json.loads(line) for line in lines.read_text().splitlines())
    names = {path.name for path in lines.parent.iterdir()}
    assert names == {"frames.jsonl", "annotated-000001.mp4"} and state.exists()


def test_reader_that_leaves_ends_the_run_quietly(model_folder, tmp_path, make_video, draw_frames):
    """As `kinetrack stream … --json | head -1` does."""
    process = start(make_video(tmp_path / "long.mp4", draw_frames(300)), "--model", model_folder, "--json", "-q")
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(100) == 0 and "Traceback" not in errors and "Error" not in errors


def test_progress_shows_what_matters(capsys):
    display = StreamDisplay()
    display._told = -100.0
    display.show([StreamStatus("door", "running", 120, 7, 12.5, 0.045, 3, 3725.0)])
    text = capsys.readouterr().err
    for words in ("door", "120 frames", "12.5 a second", "latency 45 ms", "7 dropped", "3 tracks", "1:02:05"):
        assert words in text
