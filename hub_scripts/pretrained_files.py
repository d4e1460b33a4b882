"""Reads published weights: a file, a folder or a Hub repository; only tensors, never pickled code."""

import json
import os
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")
_STANDARD_NAMES = ("model.safetensors", "pytorch_model.bin")  # of Transformers and of timm, the safe one first
_HUB_ID = re.compile(r"(?:hf-hub:|hf_hub:)?(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?")
# Under one of these a training checkpoint keeps its weights, next to the optimiser's.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_WRAPPED_BY = ("_orig_mod.", "module.")  # torch.compile, DistributedDataParallel


@dataclass(frozen=True)
class PretrainedFiles:
    """Weights and what was published next to them.

    Attributes:
        source: what was asked for, for messages.
        path: the weights' file on this machine.
        tensors: by the names in the file.
        config: content of `config.json`, empty without one.
        preprocessor: content of `preprocessor_config.json`, empty without one.
    """

    source: str
    path: Path
    tensors: dict[str, torch.Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    preprocessor: dict[str, Any] = field(default_factory=dict)


def read_pretrained(path_or_id: str | os.PathLike) -> PretrainedFiles:
    """Reads weights and the configuration next to them.

    Args:
        path_or_id: a `.safetensors`, `.pth`, `.pt` or `.bin` file with a state dict; a folder as Transformers or timm
            save it, or one with a single file of weights somewhere in it; or a Hub id, `owner/name` or
            `owner/name@revision`.

    Raises:
        FileNotFoundError: no such file, folder or repository, or no weights in it.
        ValueError: the file is damaged, or holds something else than tensors.
    """
    source = os.fspath(path_or_id)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(source, path)
    if path.is_file():
        if path.name in _STANDARD_NAMES and (path.parent / "config.json").is_file():
            return _read_folder(source, path.parent)  # the configuration belongs to it
        return PretrainedFiles(source, path, _read_tensors(path))
    match = _HUB_ID.fullmatch(source)
    if match is None or source.endswith(_SUFFIXES):
        raise FileNotFoundError(
            f"There are no weights at {source}. Give a file ({', '.join(_SUFFIXES[:4])}), a folder, or a Hub id such "
            "as microsoft/resnet-50."
        )
    return _read_hub(source, match["id"], match["revision"])


def _read_folder(source: str, folder: Path) -> PretrainedFiles:
    weights = next((folder / name for name in _STANDARD_NAMES if (folder / name).is_file()), None)
    if weights is None:
        found = sorted(path for path in folder.rglob("*") if path.suffix in _SUFFIXES and path.is_file())
        if len(found) != 1:
            raise FileNotFoundError(
                f"Expected {' or '.join(_STANDARD_NAMES)}, or a single file of weights, in {folder}; found "
                f"{len(found)} files of weights. Give the path of the file itself."
            )
        weights = found[0]
    return PretrainedFiles(
        source,
        weights,
        _read_tensors(weights),
        _read_json(folder / "config.json"),
        _read_json(folder / "preprocessor_config.json"),
    )


def _read_hub(source: str, repository: str, revision: str | None) -> PretrainedFiles:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    def fetch(name: str) -> Path | None:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except EntryNotFoundError:  # offline, also: the file is not in the cache
            return None
        except (HfHubHTTPError, OSError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise FileNotFoundError(
                f"There is no file or folder {source}, and the Hub gave nothing under that id: {reason[0]} "
                "A private or gated repository needs `hf auth login`; without a network, give a downloaded folder."
            ) from error

    # Asked for in this order, so that nothing big is fetched twice.
    found = (fetch(name) for name in _STANDARD_NAMES)
    weights = next((path for path in found if path is not None), None)
    if weights is None:
        raise FileNotFoundError(
            f"The Hub repository {source} has no {' and no '.join(_STANDARD_NAMES)}, or it cannot be reached now and "
            "is not in the cache. Give a downloaded folder or file."
        )
    extras = [fetch(name) for name in ("config.json", "preprocessor_config.json")]
    return PretrainedFiles(
        source, weights, _read_tensors(weights), *(_read_json(path) if path else {} for path in extras)
    )


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file, without the wrappings of training loops."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            content: Any = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is no intact safetensors file ({error}). Fetch it again.") from error
    else:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path} holds Python objects besides tensors, which can run code when they are read. Save its "
                "state dict with `safetensors.torch.save_file` where it comes from, and give that file."
            ) from error
        except (RuntimeError, EOFError) as error:
            raise ValueError(f"{path} is no intact PyTorch file. Fetch it again.") from error
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, torch.Tensor) for value in content.values())
    ):
        raise ValueError(f"{path} holds no state dict: expected named tensors, got {_describe(content)}.")
    tensors = {}
    for name, tensor in content.items():
        while name.startswith(_WRAPPED_BY):
            name = name.partition(".")[2]
        tensors[name] = tensor
    return tensors


def _describe(content: Any) -> str:
    if isinstance(content, dict):
        others = [f"{name!r} ({type(value).__name__})" for name, value in content.items()]
        return f"a dictionary with {', '.join(others[:4])}" if others else "an empty one"
    return f"a {type(content).__name__}"


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    return content if isinstance(content, dict) else {}
