"""The package as a whole: what importing it costs, what it offers, and the rules its source files keep."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kinetrack
import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("configuration", "modeling", "processing", "hub_scripts", "demo")
# Imports run downward only. A model is handed to `processing`, never imported by it.
MAY_IMPORT = {
    "configuration": {"configuration"},
    "modeling": {"configuration", "modeling"},
    "processing": {"configuration", "processing"},
    "demo": {"configuration", "modeling", "processing", "demo"},
    "hub_scripts": {"configuration", "modeling", "processing", "hub_scripts"},
}
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
HUB_FILES = [path for path in SOURCES if path.stem.endswith("_kinetrack")]
# What a Hub file may import without asking: the packages that remote users are told to install.
HUB_PACKAGES = {"huggingface_hub", "numpy", "PIL", "scipy", "torch", "torchvision", "transformers"}
# transformers.dynamic_module_utils.get_relative_imports finds the files of a Hub repository with these two.
RELATIVE_IMPORT_TEXT = re.compile(r"^\s*(?:import\s+\.(?:\S+)\s*$|from\s+\.(?:\S+)\s+import)", re.MULTILINE)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


def imported_modules(path: Path) -> list[tuple[str, int, bool]]:
    """(absolute module name, line, at module level) of every import of the package's own modules in a file."""
    package = ["kinetrack", *path.relative_to(ROOT).with_suffix("").parts[:-1]]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top_level = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from kinetrack import modeling` and `from .. import modeling` name the room after `import`.
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "kinetrack" else [module]
        else:
            continue
        found += [(name, node.lineno, id(node) in top_level) for name in names if name.split(".")[0] == "kinetrack"]
    return found


def test_importing_the_package_loads_no_heavy_library():
    result = run_python(
        "import sys, kinetrack; print([m for m in ('torch', 'transformers', 'numpy', 'av') if m in sys.modules])"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_help_is_printed_without_loading_torch():
    result = run_python(
        "import sys\n"
        "from kinetrack.hub_scripts.cli import main\n"
        "sys.argv = ['kinetrack', '--help']\n"
        "try:\n    main()\n"
        "finally:\n    print('torch loaded:', 'torch' in sys.modules)\n"
    )
    assert result.returncode == 0, result.stderr
    assert "analyze" in result.stdout
    assert "torch loaded: False" in result.stdout


def test_version_is_the_installed_one():
    assert kinetrack.__version__ == importlib.metadata.version("kinetrack")


@pytest.mark.parametrize("name", [name for name in kinetrack.__all__ if name != "__version__"])
def test_public_name_resolves_and_is_listed(name):
    assert getattr(kinetrack, name).__name__ == name
    assert name in dir(kinetrack)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = kinetrack.no_such_name


@pytest.mark.parametrize(
    "first_imports",
    [
        "import kinetrack; from transformers import pipeline, AutoModel",
        "from transformers import AutoModel, AutoVideoProcessor; import kinetrack",
        "from kinetrack.modeling.modeling_kinetrack import KineTrackModel",
        "from kinetrack.modeling.attention_kinetrack import HierarchicalAttention",
        "from kinetrack.processing.pipeline_kinetrack import VideoAnalysisPipeline",
    ],
)
def test_auto_classes_know_kinetrack_in_any_import_order(first_imports):
    result = run_python(
        f"{first_imports}\n"
        "from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor\n"
        "from transformers.models.auto.modeling_auto import MODEL_MAPPING, MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING\n"
        "from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING\n"
        "import kinetrack\n"
        "config = type(AutoConfig.for_model('kinetrack'))\n"
        "assert config is kinetrack.KineTrackConfig\n"
        "assert MODEL_MAPPING[config] is kinetrack.KineTrackForVideoAnalysis\n"
        "assert MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING[config] is kinetrack.KineTrackForVideoClassification\n"
        "assert 'KineTrackVideoProcessor' in str(VIDEO_PROCESSOR_MAPPING[config])\n"
        "from transformers.pipelines import PIPELINE_REGISTRY, VideoClassificationPipeline\n"
        "task = PIPELINE_REGISTRY.check_task('video-analysis')[1]\n"
        "assert task['impl'].__module__ == 'kinetrack.processing.pipeline_kinetrack' and task['pt'] == (AutoModel,)\n"
        "task = PIPELINE_REGISTRY.check_task('video-classification')[1]\n"
        "assert issubclass(task['impl'], VideoClassificationPipeline)\n"
        "import sys; assert not [f for f in sys.meta_path if type(f).__name__ == '_ImportWatcher']\n"
    )
    assert result.returncode == 0, result.stderr


def test_every_package_folder_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    folders = {path.parent.relative_to(ROOT) for path in SOURCES}
    expected = {"kinetrack", *(".".join(["kinetrack", *folder.parts]) for folder in folders)}
    assert set(settings["tool"]["setuptools"]["packages"]) == expected


@pytest.mark.parametrize("room", ROOMS)
def test_imports_run_downward_only(room):
    wrong = []
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] != room:
            continue
        for module, line, at_module_level in imported_modules(path):
            target = (module.split(".") + [""])[1]
            if target == "demo" and room == "hub_scripts" and not at_module_level:
                continue  # the one command that starts the demo
            if target in ROOMS and target not in MAY_IMPORT[room]:
                wrong.append(f"{relative(path)}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", HUB_FILES, ids=relative)
def test_hub_file_imports_in_the_one_form_that_travels(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    allowed_lines = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (not node.level and node.module.split(".")[0] != "kinetrack"):
            continue
        where = f"{relative(path)}:{node.lineno}"
        assert node.level == 2, f"{where}: write `from ..room.module_kinetrack import names`"
        assert re.fullmatch(r"(configuration|modeling|processing)\.\w+_kinetrack", node.module or ""), where
        assert node in tree.body, f"{where}: imports of the package's own files stand at module level"
        assert all(alias.name != "*" for alias in node.names), where
        allowed_lines.add(node.lineno)
    for match in RELATIVE_IMPORT_TEXT.finditer(text):
        line = text.count("\n", 0, match.end()) + 1
        assert line in allowed_lines, f"{relative(path)}:{line}: text that Transformers takes for an import"
    assert not re.search(r"^\s*(import|from)\s+kinetrack\b", text, re.MULTILINE)
    assert "from __future__ import annotations" not in text


@pytest.mark.parametrize("path", HUB_FILES, ids=relative)
def test_hub_file_needs_only_the_packages_of_remote_users(path):
    needed = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            needed |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            needed.add(node.module.split(".")[0])
    assert not needed - HUB_PACKAGES - set(sys.stdlib_module_names)


def test_hub_files_have_unique_names():
    names = [path.name for path in HUB_FILES]
    assert len(names) == len(set(names))


def test_no_source_file_exceeds_500_lines():
    everything = [*SOURCES, *(ROOT / "tests").rglob("*.py"), ROOT / "__init__.py"]
    lengths = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in everything}
    assert not {path: length for path, length in lengths.items() if length > 500}


def test_example_video_is_small_and_ten_seconds_long():
    av = pytest.importorskip("av")
    path = ROOT / "hub_scripts" / "examples" / "pets2009.mp4"
    assert path.stat().st_size < 1_000_000
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 768, 576)
        assert sum(1 for _ in container.decode(stream)) == 100
        assert float(stream.average_rate) == 10
