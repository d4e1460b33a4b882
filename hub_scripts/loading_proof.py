"""Proves that a Hub folder loads and runs where the package kinetrack cannot be imported, with bit-equal outputs."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROBE = Path(__file__).with_name("loading_probe.py")
_COMMIT = "0" * 40


class ProofError(ValueError):
    """A folder that does not load by itself, or gives something else than the package."""


def prove_bundle(folder: str | os.PathLike, progress: bool = False) -> dict:
    """Loads a bundle in processes of their own: with the package, and without it from a folder and from a Hub cache.

    Everything that Auto classes and pipelines offer is loaded, run on made-up frames, saved with `save_pretrained`,
    loaded and run again. No network is used.

    Args:
        folder: a bundle.
        progress: shows a progress bar.

    Returns:
        What the folder gave; see `loading_probe.probe`.

    Raises:
        ProofError: it does not load, or gives other bits than the package does.
    """
    from tqdm import tqdm

    folder = Path(folder).resolve()
    with (
        tempfile.TemporaryDirectory(prefix="kinetrack-proof-") as scratch,
        tqdm(desc="Proof that it loads by itself", total=3, unit=" ways", disable=not progress) as bar,
    ):
        scratch = Path(scratch)
        with_package = _run("package", str(_without_code(folder, scratch / "plain")), scratch / "package")
        bar.update()
        alone = _run("alone", str(folder), scratch / "folder", save_to=scratch / "saved")
        bar.update()
        hub = scratch / "hub"
        lay_out_cache(folder, hub, "someone/some-model")
        cached = _run("alone", "someone/some-model", scratch / "cache", HF_HUB_CACHE=str(hub))
        bar.update()
    for way, found in (("from a folder", alone), ("from a Hub cache", cached)):
        wrong = sorted(name for name in with_package if found.get(name) != with_package[name])
        if wrong:
            raise ProofError(f"Loaded {way} without the package, the model differs from the package's in {wrong}.")
    return alone


def lay_out_cache(folder: Path, hub: Path, repository: str) -> Path:
    """Copies a folder into the layout of the Hub's cache: `models--owner--name/snapshots/<commit>`, with `refs/main`.

    Args:
        folder: files of the repository.
        hub: the cache, as in `HF_HUB_CACHE`.
        repository: `owner/name`.

    Returns:
        The snapshot's folder.
    """
    place = hub / f"models--{repository.replace('/', '--')}"
    snapshot = place / "snapshots" / _COMMIT
    shutil.copytree(folder, snapshot)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(_COMMIT, encoding="utf-8")
    return snapshot


def _without_code(folder: Path, place: Path) -> Path:
    """A copy of a bundle that is nothing but a checkpoint: no code, and no mention of it."""
    place.mkdir()
    shutil.copyfile(folder / "model.safetensors", place / "model.safetensors")
    for name in ("config.json", "video_preprocessor_config.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        kept = {key: value for key, value in content.items() if key not in ("auto_map", "custom_pipelines")}
        (place / name).write_text(json.dumps(kept), encoding="utf-8")
    return place


def _run(way: str, model: str, scratch: Path, save_to: Path | None = None, **environment: str) -> dict:
    """One run of the probe in a process of its own, with empty caches and no network."""
    scratch.mkdir()
    answer = scratch / "answer.json"
    command = [sys.executable, str(PROBE), way, model, str(answer)] + ([str(save_to)] if save_to else [])
    settings = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(scratch / "home"),
        "HF_MODULES_CACHE": str(scratch / "modules"),
        "TRANSFORMERS_VERBOSITY": "error",
    }
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        settings.pop(name, None)
    done = subprocess.run(command, env=settings | environment, capture_output=True, text=True, check=False, cwd=scratch)
    if done.returncode:
        raise ProofError(f"The bundle does not load {_WAYS[way]}: {_reason(done.stderr)}")
    return json.loads(answer.read_text(encoding="utf-8"))


_WAYS = {"alone": "without the package kinetrack", "package": "with the package kinetrack"}


def _reason(errors: str) -> str:
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "the process ended without a word."
