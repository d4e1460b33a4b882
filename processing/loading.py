"""Finds a model by name, folder or Hub id, and refuses what would only give noise."""

import os
import re
from pathlib import Path

# Models that are installed with the package.
SHIPPED_MODELS = Path(__file__).resolve().parents[1] / "hub_scripts" / "checkpoints"
DEFAULT_MODEL = "kinetrack-nano"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PROCESSOR_FILES = ("video_preprocessor_config.json", "preprocessor_config.json", "processor_config.json")
# Models saved with one head are loaded without the other, which would have random weights.
_HEAD_LEFT_OUT = {
    "KineTrackForVideoClassification": "tracking_head",
    "KineTrackForObjectTracking": "classification_head",
}


def shipped_models() -> list[str]:
    """Names of the models that are installed with the package."""
    return sorted(file.parent.name for file in SHIPPED_MODELS.glob("*/config.json"))


def load_model(
    model: str | os.PathLike = DEFAULT_MODEL,
    device: str | None = None,
    *,
    allow_untrained: bool = False,
    backend: str | None = None,
):
    """Loads a model and its video processor, ready for `KineTrackSession`.

    Args:
        model: name of a model installed with the package (`"kinetrack-nano"`), a folder, or a Hub id (`owner/name`).
        device: a PyTorch device such as `"cpu"` or `"cuda:1"`; None takes a CUDA GPU if there is one, else the CPU.
        allow_untrained: accepts a model whose `config.trained` is False.
        backend: what runs a session's steps: `"torch"`, `"compile"`, `"onnx"`, `"openvino"`, or `"auto"` for the
            fastest that is installed. None: PyTorch, or, of a folder from `kinetrack export`, its own.

    Returns:
        `(model, processor)`: a `KineTrackForVideoAnalysis` in eval mode, float32, and a `KineTrackVideoProcessor`.
        With another backend than PyTorch, the model is an `AcceleratedModel`, which is for sessions alone.

    Raises:
        FileNotFoundError: no such model, or a folder that is not a model.
        ValueError: a model of another kind, an untrained or incomplete one, one whose weights are pickled, a device
            that is not there, or a backend that cannot run it.
        ModuleNotFoundError: the package of the backend is missing.

    Example:
        >>> import kinetrack
        >>> model, processor = kinetrack.load_model("kinetrack-nano", device="cpu")  # doctest: +SKIP
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoVideoProcessor

    from .graphs.backends import accelerate, check_backend, is_exported, load_exported

    check_backend(backend or "auto")
    name, location = os.fspath(model), _locate(model)
    target = _check_device(device)
    try:
        config = AutoConfig.from_pretrained(location)
    except (OSError, KeyError) as error:
        raise FileNotFoundError(f"There is no model {name!r} that can be loaded: {_first_line(error)}") from error
    except StrictDataclassError as error:
        raise ValueError(f"The configuration of {name} is wrong: {' '.join(str(error).split())}") from error
    if config.model_type != "kinetrack":
        raise ValueError(f"{name} is a {config.model_type!r} model; expected one of type 'kinetrack'.")
    if not config.trained and not allow_untrained:
        raise ValueError(
            f"The model {name} has not been trained (its configuration says trained=false), so its results would be "
            "noise. Train it with `kinetrack train`, or pass --allow-untrained (allow_untrained=True) to run it anyway."
        )
    if is_exported(Path(location)):
        return load_exported(Path(location), config, backend or "auto"), AutoVideoProcessor.from_pretrained(location)
    for architecture in config.architectures or []:
        if architecture in _HEAD_LEFT_OUT:
            setattr(config, _HEAD_LEFT_OUT[architecture], False)
    network = _read_weights(name, location, config)
    try:
        processor = AutoVideoProcessor.from_pretrained(location)
    except OSError as error:
        raise FileNotFoundError(f"The model {name} is incomplete: {_first_line(error)}") from error
    return accelerate(network.eval().to(target), backend or "torch"), processor


def _read_weights(name: str, location: str, config):
    """The model with its weights, all of them there, of the right shape and finite."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        network, report = AutoModel.from_pretrained(
            location,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below
        )
    except OSError as error:
        raise FileNotFoundError(f"The model {name} is incomplete: {_first_line(error)}") from error
    except SafetensorError as error:
        raise ValueError(
            f"The weights of {name} cannot be read ({_first_line(error)}): the file is damaged, cut off, or a pointer "
            "of Git LFS. Copy or download it again."
        ) from error
    if report["mismatched_keys"]:
        key, given, wanted = sorted(report["mismatched_keys"])[0]
        raise ValueError(
            f"The weights of {name} do not fit its configuration: {key} has the shape {tuple(given)}, and config.json "
            f"(labels, sizes) asks for {tuple(wanted)}. They have to come from the same training."
        )
    if report["missing_keys"]:
        raise ValueError(
            f"The weights of {name} lack {len(report['missing_keys'])} tensors that its configuration asks for, such "
            f"as {sorted(report['missing_keys'])[0]}. Save it again with `save_pretrained`."
        )
    broken = [key for key, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ValueError(
            f"The weights of {name} hold values that are not finite (NaN or infinity), such as in {broken[0]}. The "
            "training that made them has diverged; take an earlier checkpoint."
        )
    return network


def _locate(model: str | os.PathLike) -> str:
    """The folder or Hub id that `from_pretrained` takes."""
    from .graphs.backends import is_exported

    text = os.fspath(model)
    if text in shipped_models():
        return str(SHIPPED_MODELS / text)
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"The folder {folder} is not a model: it has no config.json.")
        if not any((folder / name).is_file() for name in _PROCESSOR_FILES):
            raise FileNotFoundError(
                f"The folder {folder} has no {_PROCESSOR_FILES[0]}. Save the processor next to the model with "
                "`KineTrackVideoProcessor(...).save_pretrained(folder)`."
            )
        pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        if pickled and not (any(folder.glob("*.safetensors")) or is_exported(folder)):
            raise ValueError(
                f"The weights in {folder} are a pickle ({pickled[0]}), which can run code when it is loaded, so only "
                "safetensors are; save the model again with `save_pretrained`."
            )
        return str(folder)
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is a file. Give the folder of the model that it belongs to.")
    if isinstance(model, str) and _HUB_ID.fullmatch(text):
        return text
    known = ", ".join(shipped_models()) or "none"
    raise FileNotFoundError(
        f"There is no model {text!r}. Give a folder with a saved model, a Hub id such as owner/name, or one of those "
        f"installed with the package ({known})."
    )


def _check_device(device: str | None):
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"The device {device!r} cannot be used: {_first_line(error)} Use 'cpu', or 'cuda' on a machine with a GPU."
        ) from error
    return target


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
