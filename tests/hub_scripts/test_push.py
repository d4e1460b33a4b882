"""Uploading, with the real Hub client against a small server on this machine."""

import base64
import os
import socket
import subprocess
import sys

import pytest
from kinetrack.hub_scripts.bundle import BundleError
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.push import PushError, list_upload, push
from typer.testing import CliRunner

FILES = {
    "config.json": '{"model_type": "kinetrack", "trained": true}',
    "modeling_kinetrack.py": "x = 1\n",
    "model.safetensors": "w" * 5000,
    "video_preprocessor_config.json": "{}",
    "README.md": "# A model\n",
    "LICENSE": "Apache\n",
}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "bundle"
    place.mkdir()
    for name, text in FILES.items():
        (place / name).write_text(text)
    return place


def committed(commit):
    """What a commit holds: text of small files, size of large ones."""
    found = {}
    for line in commit:
        value = line["value"]
        if line["key"] == "file":
            found[value["path"]] = base64.b64decode(value["content"]).decode()
        elif line["key"] == "lfsFile":
            found[value["path"]] = value["size"]
    return found


def test_everything_goes_in_one_commit(hub, folder):
    url = push(folder, "me/model", private=True, message="First", prove=False)
    assert url == f"{hub.url}/me/model/commit/{'1' * 40}"
    assert hub.created[0].get("private") is True or hub.created[0]["visibility"] == "private"
    (commit,) = hub.commits
    assert commit[0]["value"]["summary"] == "First"
    assert committed(commit) == FILES | {"model.safetensors": 5000}
    assert list(hub.stored.values()) == [b"w" * 5000]


def test_a_pull_request_gives_its_own_address(hub, folder):
    assert push(folder, "me/model", create_pr=True, prove=False).endswith("/discussions/1")


@pytest.mark.parametrize(("broken", "received"), [("is full", 5000), ("hangs up", 2500)])
def test_an_upload_that_breaks_commits_nothing_and_can_be_repeated(hub, folder, monkeypatch, broken, received):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)  # between the client's tries
    hub.broken = broken
    with pytest.raises(PushError, match="nothing was committed"):
        push(folder, "me/model", prove=False)
    assert f"PUT broken after {received}" in hub.calls and not hub.commits and not hub.stored
    hub.broken = None
    push(folder, "me/model", prove=False)
    assert len(hub.commits) == 1


def test_pushing_again_sends_no_weights_twice(hub, folder):
    push(folder, "me/model", prove=False)
    hub.stored.update(dict.fromkeys(hub.stored, b"as it was"))
    push(folder, "me/model", prove=False)
    assert len(hub.commits) == 2 and set(hub.stored.values()) == {b"as it was"}


def test_a_revision_is_made_and_committed_to(hub, folder):
    push(folder, "me/model", revision="try", prove=False)
    assert [path.split("?")[0] for path in hub.calls if "/branch/" in path or "/commit/" in path] == [
        "/api/models/me/model/branch/try",
        "/api/models/me/model/commit/try",
    ]


def test_an_untrained_model_is_pushed_only_when_asked(hub, folder):
    (folder / "config.json").write_text('{"model_type": "kinetrack", "trained": false}')
    with pytest.raises(BundleError, match="has not been trained.*--allow-untrained"):
        push(folder, "me/model", prove=False)
    assert not hub.calls
    push(folder, "me/model", allow_untrained=True, prove=False)
    assert len(hub.commits) == 1


def test_the_command_shows_progress_and_prints_the_address(hub, folder):
    program = (
        "import sys\nfrom kinetrack.hub_scripts import cli, push\n"
        "push.prove_bundle = lambda folder, progress: None\n"
        f"sys.argv = ['kinetrack', 'push', {str(folder)!r}, 'me/model']\ncli.main()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_made_up"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/me/model/commit/{'1' * 40}"
    assert "model.safetensors" in done.stderr and "100%" in done.stderr


def test_a_dry_run_lists_what_would_go(folder):
    done = CliRunner().invoke(app, ["push", str(folder), "me/model", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert all(name in done.output for name in FILES) and "6 files would go to me/model" in done.output


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "does not accept the token"), (403, "may not write to me/model"), (500, "answered 500 and nothing was")],
)
def test_a_refusal_is_explained(hub, folder, status, message):
    hub.refuse = status
    with pytest.raises(PushError, match=message):
        push(folder, "me/model", prove=False)
    assert not hub.commits


def test_no_network_is_explained(hub, folder, monkeypatch):
    from huggingface_hub import constants, hf_api

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    for module in (constants, hf_api):
        monkeypatch.setattr(module, "ENDPOINT", nowhere, raising=False)
    with pytest.raises(PushError, match="Check the network"):
        push(folder, "me/model", prove=False)


def test_no_token_is_explained(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(PushError, match="no Hugging Face token on this machine"):
        push(folder, "me/model", prove=False)
    assert not hub.calls


@pytest.mark.parametrize("name", ["model", "me/", "me/a model", "https://huggingface.co/me/model"])
def test_a_name_that_cannot_be_one_is_refused(folder, name):
    with pytest.raises(PushError, match="OWNER/NAME"):
        push(folder, name, prove=False)


def test_a_bundle_that_does_not_load_is_not_uploaded(hub, folder):
    with pytest.raises(ValueError, match="does not load"):
        push(folder, "me/model")
    assert not hub.calls


def test_what_would_go_is_listed_without_a_network(folder):
    assert list_upload(folder) == {name: len(text) for name, text in sorted(FILES.items())}


@pytest.mark.parametrize("name", ["weights.bin", "optimizer.pt", ".env"])
def test_nothing_but_a_bundle_leaves_the_machine(folder, name):
    (folder / name).write_text("secret")
    with pytest.raises(BundleError, match="does not belong to a bundle"):
        list_upload(folder)


def test_a_checkpoint_is_to_be_bundled_first(folder, tmp_path):
    (folder / "modeling_kinetrack.py").unlink()
    with pytest.raises(BundleError, match="with `kinetrack bundle`"):
        list_upload(folder)
    with pytest.raises(FileNotFoundError, match="kinetrack bundle CHECKPOINT"):
        list_upload(tmp_path / "nowhere")
