"""Uploads the demo as a Hugging Face Space: its page, its requirements, and the wheel of this very package."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .bundle import PACKAGE
from .push import PushError, check_repository, upload_to_hub

_FILES = {"README.md": "README.md", "requirements.txt": "requirements.txt", "space.py": "app.py"}


def build_space(folder: str | os.PathLike, *, model: str | None = None, wheel: str | os.PathLike | None = None):
    """Writes the files of a Space.

    Args:
        folder: an empty folder.
        model: Hub id that the Space shows; the model in the wheel when None.
        wheel: of KineTrack; built from this checkout when None.

    Returns:
        The files, in the order of their names.

    Raises:
        PushError: KineTrack was installed without its source, or the wheel cannot be built.
    """
    folder = Path(folder)
    for name, target in _FILES.items():
        shutil.copyfile(PACKAGE / "demo" / name, folder / target)
    if model is not None:
        page = folder / "README.md"
        head, separator, rest = page.read_text(encoding="utf-8").removeprefix("---\n").partition("\n---\n")
        page.write_text(f"---\n{head}\nmodels: [{model}]{separator}{rest}", encoding="utf-8")
        (folder / "model.txt").write_text(model + "\n", encoding="utf-8")
    if wheel is None:
        build_wheel(folder)
    else:
        shutil.copy(wheel, folder)
    return sorted(folder.iterdir())


def build_wheel(folder: Path) -> Path:
    """Builds KineTrack's wheel from the checkout that is running.

    Raises:
        PushError: there is no checkout, or it does not build.
    """
    if not (PACKAGE / "pyproject.toml").is_file():
        raise PushError("KineTrack was installed without its source. Run this in a checkout: pip install -e '.[demo]'")
    with tempfile.TemporaryDirectory() as place:
        # A copy: setuptools leaves `build/` and `*.egg-info` where it works.
        source = Path(place) / "kinetrack"
        ignored = shutil.ignore_patterns(
            ".*", "build", "dist", "runs", "tests", "__pycache__", "*.egg-info", "kinetrack-*"
        )
        shutil.copytree(PACKAGE, source, ignore=_except_checkpoints(ignored))
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(folder),
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("kinetrack-*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        raise PushError(f"The wheel cannot be built: {lines[-1].strip()}")
    return wheels[0]


def push_space(
    repository: str, *, model: str | None = None, private: bool = False, message: str | None = None, wheel=None
) -> str:
    """Creates the Space where it is not there and uploads its files in one commit; may be repeated.

    Args:
        repository: `owner/name`.
        model: see `build_space`.
        private: whether a new Space is private.
        message: of the commit.
        wheel: see `build_space`.

    Returns:
        URL of the Space.

    Raises:
        PushError: a name that cannot be one, no token, no permission, no network, or a wheel that cannot be built.
    """
    check_repository(repository)
    with tempfile.TemporaryDirectory() as folder:
        files = build_space(folder, model=model, wheel=wheel)
        upload_to_hub(
            repository,
            folder,
            [path.name for path in files],
            message or "Upload KineTrack's demo",
            private=private,
            repo_type="space",
            space_sdk="gradio",
            # Wheels of earlier versions would lie beside the new one.
            delete_patterns="*.whl",
        )
    return f"https://huggingface.co/spaces/{repository}"


def _except_checkpoints(ignored):
    """Leaves out what `ignored` names, but not the shipped models, whose folders are called like results."""

    def choose(folder, names):
        return set() if Path(folder).name == "checkpoints" else ignored(folder, names)

    return choose
