"""Uploads a bundle to the Hugging Face Hub: one commit, after the proof that it loads by itself."""

import json
import os
import re
from pathlib import Path

from .bundle import CONFIG, WEIGHTS, BundleError, card_pictures, is_bundle, refuse_untrained
from .loading_proof import prove_bundle

# What a bundle holds; nothing else but the pictures of its card leaves the machine.
_SHARED = re.compile(
    r"(?:\w+_kinetrack\.py|config\.json|video_preprocessor_config\.json|model\.safetensors|README\.md|LICENSE)"
)
_REPOSITORY = re.compile(r"[\w][\w.-]{0,95}/[\w][\w.-]{0,95}")


class PushError(RuntimeError):
    """An upload that did not happen; the message says what to do."""


def list_upload(folder: str | os.PathLike) -> dict[str, int]:
    """What of a bundle would be uploaded: bytes by file name.

    Raises:
        FileNotFoundError: no such folder.
        BundleError: it is no bundle, or holds files that do not belong to one, such as pickles.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder}. Make one with `kinetrack bundle CHECKPOINT --output DIR`."
        )
    if not is_bundle(folder):
        raise BundleError(f"{folder} is no Hub repository. Make one of a checkpoint with `kinetrack bundle`.")
    shown = card_pictures(folder / "README.md") if (folder / "README.md").is_file() else []
    names = sorted(path.name for path in folder.iterdir())
    strange = [name for name in names if not _SHARED.fullmatch(name) and name not in shown]
    if strange:
        raise BundleError(
            f"{folder} holds {', '.join(strange)}, which does not belong to a bundle. Remove it, or "
            "make the bundle again."
        )
    missing = [name for name in (CONFIG, WEIGHTS, "README.md", "LICENSE") if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"{folder} lacks {', '.join(missing)}. Make the bundle again with `kinetrack bundle`.")
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def push(
    folder: str | os.PathLike,
    repository: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    allow_untrained: bool = False,
    progress: bool = False,
    prove: bool = True,
) -> str:
    """Creates the repository where it is not there and uploads the bundle in one commit; may be repeated.

    Args:
        folder: made by `bundle`.
        repository: `owner/name`.
        private: whether a new repository is private.
        revision: branch to commit to, made when missing; the main branch when None.
        create_pr: opens a pull request instead of committing.
        message: of the commit.
        allow_untrained: accepts a model whose `config.trained` is False.
        progress: shows a progress bar of the proof; the Hub's client shows that of the upload.
        prove: False skips the proof that the bundle loads, for tests of other things.

    Returns:
        URL of the commit or the pull request.

    Raises:
        FileNotFoundError, BundleError: as `list_upload`, or an untrained model.
        ProofError: the bundle does not load by itself.
        PushError: a name that cannot be one, no token, no permission, no network, or an upload that broke off. The
            repository is as it was then: a commit is there whole or not at all.
    """
    check_repository(repository)
    files = list_upload(folder)
    refuse_untrained(folder, json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8")), allow_untrained)
    if prove:
        prove_bundle(folder, progress)
    commit = upload_to_hub(
        repository,
        folder,
        list(files),
        message or "Upload KineTrack model",
        private=private,
        revision=revision,
        create_pr=create_pr,
    )
    return commit.pr_url or commit.commit_url


def check_repository(repository: str) -> None:
    """Raises `PushError` for what is no name of a repository."""
    if not _REPOSITORY.fullmatch(repository):
        raise PushError(f"{repository!r} is no repository name; expected OWNER/NAME, such as me/my-model.")


def upload_to_hub(
    repository: str,
    folder: str | os.PathLike,
    names: list[str],
    message: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    repo_type: str = "model",
    space_sdk: str | None = None,
    delete_patterns: str | None = None,
):
    """Creates a repository where it is not there and commits some files of a folder.

    Args:
        repository: `owner/name`.
        folder: with the files.
        names: of the files.
        message: of the commit.
        private: whether a new repository is private.
        revision: branch to commit to, made when missing; the main branch when None.
        create_pr: opens a pull request instead of committing.
        repo_type: `"model"` or `"space"`.
        space_sdk: of a Space.
        delete_patterns: files in the repository that go in the same commit.

    Returns:
        The Hub's `CommitInfo`.

    Raises:
        PushError: no token, no permission, no network, or an upload that broke off.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if get_token() is None:
        raise PushError(
            "There is no Hugging Face token on this machine. Make one with write permission at "
            "https://huggingface.co/settings/tokens, then run `hf auth login` or set HF_TOKEN."
        )
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True, repo_type=repo_type, space_sdk=space_sdk)
        if revision is not None and not create_pr:
            api.create_branch(repository, branch=revision, exist_ok=True, repo_type=repo_type)
        return api.upload_folder(
            repo_id=repository,
            repo_type=repo_type,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=message,
            allow_patterns=names,
            delete_patterns=delete_patterns,
        )
    except LocalTokenNotFoundError as error:
        raise PushError(f"The Hub wants a token: {error}") from error
    except HfHubHTTPError as error:
        raise PushError(_explain(error, repository)) from error
    except (OSError, RuntimeError, HfHubHTTPError.__bases__[0]) as error:
        # The base class is that of the HTTP client in use: no route, no name, a connection that broke. A large file
        # whose upload fails is a RuntimeError.
        raise PushError(
            f"The upload to {repository} broke off and nothing was committed ({_first_line(error)}). Check the network "
            "and run the same command again."
        ) from error


def _explain(error, repository: str) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return "The Hub does not accept the token. Make a new one with write permission and run `hf auth login`."
    if status == 403:
        return f"The token may not write to {repository}. Use one with write permission, or a name of your own."
    if status == 404:
        return f"The Hub does not know {repository}, or the token may not see it."
    return (
        f"The Hub answered {status} and nothing was committed: {_first_line(error)} "
        "Run the same command again; what was uploaded already is not sent twice."
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
