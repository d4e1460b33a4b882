"""Uploading, with the real Hub client against a small server on this machine."""

import base64
import socket

import pytest
from kinetrack.hub_scripts.bundle import BundleError
from kinetrack.hub_scripts.push import PushError, list_upload, push

FILES = {
    "config.json": '{"model_type": "kinetrack"}',
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


def test_an_upload_that_breaks_commits_nothing_and_can_be_repeated(hub, folder):
    hub.broken = True
    with pytest.raises(PushError, match="nothing was committed"):
        push(folder, "me/model", prove=False)
    assert "PUT broken" in hub.calls and not hub.commits
    hub.broken = False
    push(folder, "me/model", prove=False)
    assert len(hub.commits) == 1


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
