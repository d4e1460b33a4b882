"""Makes a self-contained Hub repository of a checkpoint: weights, configuration, card, licence and the code they need.

Transformers loads such a folder with `trust_remote_code=True` and nothing of KineTrack installed. It copies the Python
files it finds by following `from .module import name`, so the travelling modules, `*_kinetrack.py`, are laid flat and
the one form of import they use among themselves is rewritten.
"""

import ast
import json
import os
import re
import shutil
import uuid
from pathlib import Path

from .atomic_files import write_json_atomically
from .loading_proof import prove_bundle

PACKAGE = Path(__file__).resolve().parent.parent
ROOMS = ("configuration", "modeling", "processing")
CONFIG, PROCESSOR, WEIGHTS = "config.json", "video_preprocessor_config.json", "model.safetensors"

AUTO_MAP = {
    "AutoConfig": "configuration_kinetrack.KineTrackConfig",
    "AutoModel": "modeling_kinetrack.KineTrackForVideoAnalysis",
    "AutoModelForVideoClassification": "modeling_kinetrack.KineTrackForVideoClassification",
}
PROCESSOR_AUTO_MAP = {"AutoVideoProcessor": "video_processing_kinetrack.KineTrackVideoProcessor"}
# The first is the task that is meant when none is named.
CUSTOM_PIPELINES = {
    "video-analysis": {"impl": "pipeline_kinetrack.VideoAnalysisPipeline", "pt": ["AutoModel"], "type": "video"},
    "video-classification": {
        "impl": "pipeline_kinetrack.KineTrackVideoClassificationPipeline",
        "pt": ["AutoModelForVideoClassification"],
        "type": "video",
    },
}

_TRAVELLING_IMPORT = re.compile(
    r"^from \.\.(?:configuration|modeling|processing)\.(\w+_kinetrack) import ", re.MULTILINE
)
# What Transformers takes for a relative import, wherever it stands (`get_relative_imports`).
_LOOKS_RELATIVE = re.compile(r"^\s*(?:from\s+\.(\S*)\s+import|import\s+\.(\S+))", re.MULTILINE)


class BundleError(ValueError):
    """Something that keeps a checkpoint from becoming a Hub repository."""


def bundle(
    checkpoint: str | os.PathLike,
    output: str | os.PathLike,
    *,
    allow_untrained: bool = False,
    progress: bool = False,
    prove: bool = True,
) -> Path:
    """Writes a Hub repository and proves that it loads without KineTrack.

    Args:
        checkpoint: folder of a trained model, with weights in safetensors and its video processor.
        output: folder to make; one that is there is replaced, if it is a bundle or empty.
        allow_untrained: accepts a model whose `config.trained` is False.
        progress: shows a progress bar of the proof.
        prove: False skips the proof, for tests of other things.

    Returns:
        `output`.

    Raises:
        FileNotFoundError: the checkpoint lacks a file.
        BundleError: an untrained checkpoint, pickled weights, an `output` that holds something else, a travelling
            module with an import that cannot travel (named by file and line), or a proof that fails.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    config = _read_checkpoint(checkpoint, allow_untrained)
    if output.exists() and any(output.iterdir()) and not is_bundle(output):
        raise BundleError(f"{output} holds something that is not a bundle. Choose another --output, or empty it.")
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = output.with_name(f".{output.name}-{uuid.uuid4().hex[:8]}.partial")
    staging.mkdir()
    try:
        for name, text in flatten_modules().items():
            (staging / name).write_text(text, encoding="utf-8")
        config |= {"auto_map": AUTO_MAP, "custom_pipelines": CUSTOM_PIPELINES}
        write_json_atomically(staging / CONFIG, config)
        processor = json.loads((checkpoint / PROCESSOR).read_text(encoding="utf-8"))
        write_json_atomically(staging / PROCESSOR, processor | {"auto_map": PROCESSOR_AUTO_MAP})
        shutil.copyfile(checkpoint / WEIGHTS, staging / WEIGHTS)
        shutil.copyfile(checkpoint / "README.md", staging / "README.md")
        for name in card_pictures(checkpoint / "README.md"):
            shutil.copyfile(checkpoint / name, staging / name)
        shutil.copyfile(PACKAGE / "LICENSE", staging / "LICENSE")
        if prove:
            prove_bundle(staging, progress)
        _put_in_place(staging, output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return output


def flatten_modules(package: Path = PACKAGE) -> dict[str, str]:
    """All travelling modules as they lie in a Hub repository.

    Args:
        package: folder that holds the rooms.

    Returns:
        Text by file name.

    Raises:
        BundleError: two modules of one name, or an import that cannot travel; with file and line.
    """
    files = sorted(path for room in ROOMS for path in (package / room).glob("*_kinetrack.py"))
    names = [path.name for path in files]
    for name in names:
        if names.count(name) > 1:
            raise BundleError(f"Two travelling modules are called {name}; in a Hub repository all lie in one folder.")
    flat = {path.name: flatten_module(path, set(names)) for path in files}
    return {name: text + _name_indirect_imports(name, flat) for name, text in flat.items()}


def _name_indirect_imports(name: str, modules: dict[str, str]) -> str:
    """Lines, never run, that name what a module needs only through others.

    From a local folder, older Transformers copies the files that a module names itself and no more.
    """
    direct, reached, waiting = set(_imports(modules[name])), set(), [name.removesuffix(".py")]
    while waiting:
        found = set(_imports(modules[f"{waiting.pop()}.py"])) - reached
        reached |= found
        waiting += found
    missing = sorted(reached - direct - {name.removesuffix(".py")})
    if not missing:
        return ""
    lines = "".join(f"    from .{module} import *  # noqa\n" for module in missing)
    return f"\nif False:  # for Transformers, which searches the text for files to copy\n{lines}"


def card_pictures(card: Path) -> list[str]:
    """Names of the pictures beside a model card that it shows."""
    shown = re.findall(r"!\[[^\]]*\]\(([\w-]+\.(?:png|jpg))\)", card.read_text(encoding="utf-8"))
    return [name for name in shown if (card.parent / name).is_file()]


def _imports(text: str) -> list[str]:
    return re.findall(r"^from \.(\w+_kinetrack) import ", text, re.MULTILINE)


def flatten_module(path: Path, names: set[str]) -> str:
    """One module with `from ..room.module_kinetrack import x` rewritten to `from .module_kinetrack import x`.

    Args:
        path: the module.
        names: file names of all travelling modules.

    Raises:
        BundleError: any other import of the package's own modules, or text that Transformers would take for one.
    """
    source = path.read_text(encoding="utf-8")
    where = f"{path.parent.name}/{path.name}"
    for node in ast.walk(ast.parse(source)):
        own = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            line = source.splitlines()[node.lineno - 1]
            match = _TRAVELLING_IMPORT.match(line)
            if node.level and not (match and f"{match[1]}.py" in names):
                raise BundleError(
                    f"{where}, line {node.lineno}: `{line.strip()}` cannot travel to the Hub. Only "
                    "`from ..room.module_kinetrack import name` at the beginning of a line can."
                )
            own = [node.module or ""] if not node.level else []
        if any(name.partition(".")[0] == "kinetrack" for name in own):
            raise BundleError(
                f"{where}, line {node.lineno}: a module that travels cannot import the package kinetrack."
            )
    flat = _TRAVELLING_IMPORT.sub(r"from .\1 import ", source)
    for match in _LOOKS_RELATIVE.finditer(flat):
        target = match[1] or match[2] or ""
        if f"{target}.py" not in names:
            line = flat.count("\n", 0, match.start(0) + len(match[0]) - len(match[0].lstrip())) + 1
            raise BundleError(
                f"{where}, line {line}: `{match[0].strip()}` looks like an import to Transformers, which searches the "
                "text. Word it differently."
            )
    return flat


def _read_checkpoint(folder: Path, allow_untrained: bool) -> dict:
    """The configuration of a checkpoint that can be bundled."""
    for name in (CONFIG, PROCESSOR, WEIGHTS, "README.md"):
        if not (folder / name).is_file():
            pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
            if name == WEIGHTS and pickled:
                raise BundleError(
                    f"{folder} holds its weights in {pickled[0]}, a pickle, which can run code when it is loaded. Load "
                    "it where you trust it and save it again with `save_pretrained`, which writes safetensors."
                )
            hint = " Write one with `kinetrack card`." if name == "README.md" else ""
            raise FileNotFoundError(f"{folder} is not a complete checkpoint: there is no {name}.{hint}")
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("model_type") != "kinetrack":
        raise BundleError(f"{folder} holds a {config.get('model_type')!r} model, not a KineTrack model.")
    refuse_untrained(folder, config, allow_untrained)
    return config


def refuse_untrained(folder: Path, config: dict, allow_untrained: bool) -> None:
    """Raises `BundleError` for a model that has not been trained, unless that is allowed."""
    if not config.get("trained") and not allow_untrained:
        raise BundleError(
            f"The model in {folder} has not been trained (config.json says trained=false), so its results would be "
            "noise. Train it with `kinetrack train`, or pass --allow-untrained (allow_untrained=True) to share it "
            "anyway."
        )


def is_bundle(folder: Path) -> bool:
    """Whether a folder was made by `bundle`."""
    return (folder / "modeling_kinetrack.py").is_file() and (folder / CONFIG).is_file()


def _put_in_place(staging: Path, output: Path) -> None:
    """Swaps the complete folder in; the older one is kept until then."""
    previous = staging.with_name(f"{staging.name}.previous")
    if output.exists():
        os.replace(output, previous)
    os.replace(staging, output)
    shutil.rmtree(previous, ignore_errors=True)
