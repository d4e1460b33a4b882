"""The demo as a Space: complete, in step with the package, and uploaded in one commit."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from kinetrack.hub_scripts import push_space as module
from kinetrack.hub_scripts.push import PushError
from kinetrack.hub_scripts.push_space import build_space, build_wheel, push_space

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEADER = re.match(r"---\n(.*?)\n---\n", (ROOT / "demo" / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]


@pytest.fixture
def wheel(tmp_path):
    """Something called like a wheel."""
    path = tmp_path / "kinetrack-0.1.0-py3-none-any.whl"
    path.write_bytes(b"wheel" * 500)
    return path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "space"
    place.mkdir()
    return place


def test_the_space_has_its_page_its_requirements_and_the_wheel(folder, wheel):
    names = [path.name for path in build_space(folder, wheel=wheel)]
    assert names == ["README.md", "app.py", wheel.name, "requirements.txt"]


def test_requirements_are_those_of_the_package_and_its_demo():
    lines = (ROOT / "demo" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line and not line.startswith(("#", "--"))]
    assert listed == sorted(SETTINGS["dependencies"] + SETTINGS["optional-dependencies"]["demo"])


def test_the_header_is_what_spaces_read():
    import yaml

    header = yaml.safe_load(HEADER)
    assert (header["sdk"], header["app_file"]) == ("gradio", "app.py")
    low, high = re.fullmatch(
        r"gradio>=(\d+)\.(\d+),<(\d+)",
        next(line for line in SETTINGS["optional-dependencies"]["demo"] if line.startswith("gradio")),
    ).group(1, 3)
    assert low == header["sdk_version"].partition(".")[0] < high
    assert len(header["short_description"]) <= 60


def test_a_model_of_the_hub_is_named_in_the_header_and_for_the_app(folder, wheel):
    import yaml

    build_space(folder, model="me/model", wheel=wheel)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n")[1])["models"] == ["me/model"]
    assert text.split("---\n", 2)[2] == (ROOT / "demo" / "README.md").read_text(encoding="utf-8").split("---\n", 2)[2]
    assert (folder / "model.txt").read_text() == "me/model\n"


def test_the_app_of_the_space_starts_the_demo(folder, wheel, monkeypatch):
    """What it would start is looked at, not started."""
    build_space(folder, model="me/model", wheel=wheel)
    code = (
        "import importlib.util, sys, types, kinetrack.demo.options\n"
        "started = []\n"
        "fake = types.ModuleType('kinetrack.demo.app')\n"
        "fake.launch = lambda options, **more: started.append((options.models, options.allow_urls, more))\n"
        "sys.modules['kinetrack.demo.app'] = fake\n"
        f"spec = importlib.util.spec_from_file_location('app', {str(folder / 'app.py')!r})\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module); module.main()\n"
        "print(started)"
    )
    environment = {"SPACE_ID": "me/space", "PATH": "", "PYTHONPATH": str(ROOT.parent), "HOME": str(folder)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout.strip() == "[(('me/model',), False, {'host': '0.0.0.0', 'port': 7860})]", done.stderr


def test_everything_goes_in_one_commit_and_old_wheels_with_it(hub, wheel):
    hub.there = ["kinetrack-0.0.1-py3-none-any.whl", "README.md"]
    assert push_space("me/demo", wheel=wheel) == "https://huggingface.co/spaces/me/demo"
    assert hub.created[0]["type"] == "space" and hub.created[0]["sdk"] == "gradio"
    (commit,) = hub.commits
    paths = {line["key"]: [] for line in commit}
    for line in commit:
        paths[line["key"]].append(line["value"].get("path"))
    assert sorted(paths["file"] + paths["lfsFile"]) == ["README.md", "app.py", wheel.name, "requirements.txt"]
    assert paths["deletedFile"] == ["kinetrack-0.0.1-py3-none-any.whl"]
    assert {wheel.read_bytes(), (ROOT / "demo" / "README.md").read_bytes()} <= set(hub.stored.values())


def test_a_name_that_cannot_be_one_is_refused_before_any_work(hub, monkeypatch):
    monkeypatch.setattr(module, "build_space", lambda *a, **k: pytest.fail("work began"))
    with pytest.raises(PushError, match="OWNER/NAME"):
        push_space("not a name")


def test_without_the_source_there_is_no_wheel(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    with pytest.raises(PushError, match="installed without its source"):
        build_wheel(tmp_path)


def test_the_wheel_holds_the_demo_and_the_model(tmp_path, monkeypatch):
    """Built with the setuptools that is here, so that no network is needed."""
    if not _can_build():
        pytest.skip("setuptools is too old or not here")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip's way of saying: do not isolate
    path = build_wheel(tmp_path)
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    for name in ("README.md", "requirements.txt", "space.py", "assets/player.js", "assets/demo.css", "assets/logo.svg"):
        assert f"kinetrack/demo/{name}" in names
    assert "kinetrack/hub_scripts/checkpoints/kinetrack-nano/model.safetensors" in names
    assert not [name for name in names if "/tests/" in name or name.startswith(("tests", "build"))]


def _can_build() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return int(version("setuptools").partition(".")[0]) >= 77
    except PackageNotFoundError:
        return False
