"""Fetches Transformers' own common tests, checks them against a pinned hash, and makes them importable.

They are not in the installed package, only in its source distribution, so `python mixin_source.py` (the first step of
`make test-common`) has pip fetch that and unpacks its tests into `.transformers-tests/`, which git ignores. It is an
error, not a reason to skip, when that does not work. The version is the one `dev` pins in pyproject.toml.
"""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".transformers-tests"
PACKAGE = "transformers_tests"

# Of transformers-<version>.tar.gz, as https://pypi.org/simple/transformers/ gives it.
SHA256 = {"5.23.0": "19d647a4d5d903a7c644ca5cde2d86efc3dde7d8c687ae7988806ff2205efa71"}

# Modules the mixins import that the source distribution leaves out. The common configuration arguments are only used
# for configurations without sub-configurations; test_common_expectations.py checks KineTrack's.
MISSING = {
    "exporters.test_export": {"ExportTesterMixin": type("ExportTesterMixin", (), {})},
    "generation.test_utils": {"GenerationTesterMixin": type("GenerationTesterMixin", (), {})},
    "utils.test_configuration_utils": {"config_common_kwargs": {}},
}


def pinned_version() -> str:
    """The newest tested version: what the `dev` extra in pyproject.toml pins."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = [match[1] for item in extras["dev"] if (match := re.fullmatch(r"transformers==(\S+)", item))]
    if len(pins) != 1:
        raise SystemExit(
            f"The `dev` extra in pyproject.toml must pin transformers once (transformers==...), got {pins}."
        )
    return pins[0]


def folder() -> Path:
    return CACHE / f"transformers-{pinned_version()}" / "tests"


def fetch() -> Path:
    """Puts the pinned version's tests into the cache, unless they are there.

    Raises:
        SystemExit: no hash for this version, no network, or a distribution with another hash.
    """
    wanted, tests = pinned_version(), folder()
    if tests.is_dir():
        return tests
    if wanted not in SHA256:
        raise SystemExit(f"No hash for transformers {wanted} in {Path(__file__).name}: add that of its .tar.gz.")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(f"transformers=={wanted} --hash=sha256:{SHA256[wanted]}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", "transformers", "--dest", scratch, "--requirement", str(requirement)]
        if subprocess.run(command, cwd=scratch).returncode:
            raise SystemExit(
                f"Could not fetch the source distribution of transformers {wanted} (see above). `make test-common` "
                "needs the package index; without it these tests cannot run, and they are not skipped."
            )
        with tarfile.open(Path(scratch, f"transformers-{wanted}.tar.gz")) as archive:
            top = f"transformers-{wanted}/tests/"
            archive.extractall(scratch, [m for m in archive if m.name.startswith(top)], filter="data")
        unpacked = Path(scratch, f"transformers-{wanted}")
        (unpacked / "tests" / "__init__.py").touch()  # test_configuration_common.py looks for it
        os.replace(unpacked, tests.parent)
    return tests


def install() -> None:
    """Makes `transformers_tests.test_modeling_common` and its neighbours importable.

    Raises:
        RuntimeError: the tests have not been fetched, or are of another version than the installed library.
    """
    if not folder().is_dir():
        raise RuntimeError("Transformers' tests are not here. Run `make test-common`, which fetches them.")
    if version("transformers") != pinned_version():
        raise RuntimeError(
            f"transformers {version('transformers')} is installed, and the tests are those of {pinned_version()}."
        )
    modules = {PACKAGE: {"__path__": [str(folder())]}}
    for name, contents in MISSING.items():
        modules[f"{PACKAGE}.{name.partition('.')[0]}"] = {"__path__": []}
        modules[f"{PACKAGE}.{name}"] = contents
    for name, contents in modules.items():
        module = sys.modules.setdefault(name, ModuleType(name))
        vars(module).update(contents)


if __name__ == "__main__":
    print(f"Transformers' own tests: {fetch()}")
