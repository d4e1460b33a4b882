"""The README's script for people who have only Transformers, in an environment that holds nothing else.

`make test-remote` makes `.venv-remote` with the six packages that the card names, and runs this in `.venv`.
"""

import ast
import json
import re
import subprocess
from pathlib import Path

import kinetrack
import pytest
from kinetrack.hub_scripts.benchmark_videos import EXAMPLE_VIDEO
from kinetrack.hub_scripts.bundle import bundle
from kinetrack.processing.loading import SHIPPED_MODELS

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-remote" / "bin" / "python"
# A laptop has to do.
MOST_MEMORY_GIB = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Where a stranger stands: the bundle as `my-model`, the example as `video.mp4`, and nothing of this repository."""
    folder = tmp_path_factory.mktemp("stranger")
    bundle(SHIPPED_MODELS / "kinetrack-nano", folder / "my-model", prove=False)
    (folder / "video.mp4").symlink_to(EXAMPLE_VIDEO)
    return folder


def run_alone(place: Path, program: str) -> str:
    """What a program prints in the other environment, offline and with none of this one's variables."""
    assert PYTHON.exists(), "Run `make test-remote`, which makes .venv-remote."
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(place), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [str(PYTHON), "-I", "-c", program], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_neither_kinetrack_nor_what_only_it_needs_is_there(place):
    names = ["kinetrack", "accelerate", "supervision", "matplotlib", "pandas", "datasets"]
    program = f"import importlib.util, json\nprint(json.dumps([n for n in {names} if importlib.util.find_spec(n)]))"
    assert json.loads(run_alone(place, program)) == []


def test_the_readmes_ten_lines_print_the_tracks_and_actions_of_the_example(place):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (script,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if '"my-model"' in block)
    assert len([line for line in script.splitlines() if line.strip()]) <= 10
    peak = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    label, actions, tracks, peak_kib = run_alone(place, f"{script}\n{peak}\n").splitlines()
    found = kinetrack.analyze(EXAMPLE_VIDEO, device="cpu", backend="torch")
    assert label in dict(found.actions)
    best = [(item["label"], pytest.approx(item["score"], abs=1e-3)) for item in ast.literal_eval(actions)]
    assert found.actions[:3] == best
    assert len(found.tracks) > 4
    assert ast.literal_eval(tracks) == [(track.id, track.first_time, track.action) for track in found.tracks]
    assert int(peak_kib) / 2**20 < MOST_MEMORY_GIB
