"""Hub repositories: what travels, what cannot, and the proof that the result loads by itself."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.hub_scripts import loading_probe
from kinetrack.hub_scripts.bundle import AUTO_MAP, BundleError, bundle, flatten_modules
from kinetrack.hub_scripts.loading_proof import ProofError, prove_bundle
from kinetrack.hub_scripts.push import list_upload
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor

BACKBONE = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8] * 4, "depths": [1] * 4}
BACKBONE |= {"layer_type": "basic", "out_features": ["stage2", "stage3", "stage4"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model that says it was trained."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = KineTrackConfig(backbone_config=BACKBONE, hidden_size=8, motion_channels=4, embedding_size=4, trained=True)
    KineTrackForVideoAnalysis(config).save_pretrained(folder)
    KineTrackVideoProcessor(num_frames=4).save_pretrained(folder)
    card = "# A model\n![It fails](failures.jpg) ![](https://x.org/y.png) ![](../z.png) ![](gone.png)\n"
    (folder / "README.md").write_text(card)
    (folder / "failures.jpg").write_bytes(b"picture")
    (folder / "training_log.jsonl").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def made(checkpoint, tmp_path_factory):
    return bundle(checkpoint, tmp_path_factory.mktemp("out") / "bundle", prove=False)


def edited(folder, place, **changes):
    """A copy of a checkpoint with other values in its config.json."""
    place.mkdir()
    for path in folder.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | changes))
    return place


def test_a_bundle_loads_without_the_package_from_a_folder_and_from_a_cache(made):
    found = prove_bundle(made)
    assert found["tasks"] == ["video-analysis", "video-classification"]
    assert len(found["video-analysis"]["tracks"]) > 0 and found["video-analysis"]["tracks"][0]["actions"]
    assert found["classes"][1:3] == ["KineTrackForVideoAnalysis", "KineTrackForVideoClassification"]
    assert json.loads((made / "config.json").read_text())["auto_map"] == AUTO_MAP
    assert "Apache License" in (made / "LICENSE").read_text()


def test_the_proof_notices_code_that_computes_something_else(made, tmp_path):
    broken = edited(made, tmp_path / "broken")
    module = broken / "heads_kinetrack.py"
    module.write_text(module.read_text().replace("= self.classifier(hidden)", "= -self.classifier(hidden)"))
    with pytest.raises(ProofError, match=r"differs from the package's in .*model.logits"):
        prove_bundle(broken)


def test_a_missing_package_is_named(made, tmp_path):
    script = (
        f"import sys; sys.path.insert(0, {str(loading_probe.__file__.rpartition('/')[0])!r})\n"
        "from loading_probe import hide\nsys.path.pop(0)\nhide('kinetrack', 'av')\n"
        "from transformers import pipeline\n"
        f"analyze = pipeline('video-analysis', model={str(made)!r}, trust_remote_code=True)\n"
        f"analyze({str(made / 'config.json')!r})\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment["HF_MODULES_CACHE"] = str(tmp_path / "modules")
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and "pip install av" in done.stderr.strip().splitlines()[-1], done.stderr[-500:]


def test_the_example_of_the_readme_runs_without_the_package(made, tmp_path, make_video, draw_frames):
    text = (Path(loading_probe.__file__).parents[1] / "README.md").read_text()
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if '"my-model"' in block)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    make_video(tmp_path / "video.mp4", draw_frames(12, 96, 64), frame_rate=12)
    (tmp_path / "my-model").symlink_to(made)
    program = f"import sys\nsys.path.insert(0, {str(Path(loading_probe.__file__).parent)!r})\n"
    program += "from loading_probe import hide\nsys.path.pop(0)\nhide('kinetrack')\n" + example
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    label, actions, tracks = done.stdout.splitlines()
    assert label.startswith("LABEL_") and actions.startswith("[{'score'") and tracks.startswith("[")


def test_only_what_exists_and_cannot_be_imported_counts_as_hidden():
    script = "import json, loading_probe; loading_probe.hide('json')"
    folder = str(loading_probe.__file__.rpartition("/")[0])
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode and "can still be imported" in done.stderr  # it was loaded before


def test_every_travelling_module_is_flat():
    modules = flatten_modules()
    assert "pipeline_kinetrack.py" in modules and "analyze.py" not in modules
    assert all("from .." not in text for text in modules.values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("from .other_kinetrack import x", "line 3: `from .other_kinetrack import x` cannot travel"),
        ("from ..modeling import other_kinetrack", "line 3: .* cannot travel"),
        ("from ..processing.results import x", "line 3: .* cannot travel"),
        ("if True:\n    from ..modeling.other_kinetrack import x", "line 4: .* cannot travel"),
        ("from kinetrack.modeling.other_kinetrack import x", "line 3: a module that travels cannot import"),
        ("import kinetrack", "line 3: a module that travels cannot import"),
        ('X = """\nfrom .somewhere import y\n"""', "line 4: `from .somewhere import` looks like an import"),
    ],
    ids=["sibling", "module", "stays", "indented", "absolute", "package", "text"],
)
def test_an_import_that_cannot_travel_is_named_by_file_and_line(tmp_path, line, message):
    for room in ("configuration", "modeling", "processing"):
        (tmp_path / room).mkdir()
    (tmp_path / "modeling" / "other_kinetrack.py").write_text("x = 1\n")
    (tmp_path / "modeling" / "some_kinetrack.py").write_text(f'"""Some."""\n\n{line}\n')
    with pytest.raises(BundleError, match=rf"modeling/some_kinetrack.py, {message}"):
        flatten_modules(tmp_path)


def test_two_modules_of_one_name_are_refused(tmp_path):
    for room in ("configuration", "modeling", "processing"):
        (tmp_path / room).mkdir()
    for room in ("modeling", "processing"):
        (tmp_path / room / "same_kinetrack.py").write_text("")
    with pytest.raises(BundleError, match="Two travelling modules are called same_kinetrack.py"):
        flatten_modules(tmp_path)


def test_an_untrained_model_is_bundled_only_when_asked_and_can_be_proved(checkpoint, tmp_path):
    raw = edited(checkpoint, tmp_path / "raw", trained=False)
    with pytest.raises(BundleError, match="has not been trained.*--allow-untrained"):
        bundle(raw, tmp_path / "out", prove=False)
    assert not (tmp_path / "out").exists()
    made = bundle(raw, tmp_path / "out", allow_untrained=True, prove=False)
    assert json.loads((made / "config.json").read_text())["auto_map"]
    assert loading_probe.probe(str(raw), trust=False)["tasks"] == ["video-analysis", "video-classification"]


def test_pickled_weights_are_refused(checkpoint, tmp_path):
    folder = edited(checkpoint, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match="a pickle, which can run code"):
        bundle(folder, tmp_path / "out", prove=False)


def test_pictures_of_the_card_go_along_and_nothing_else(made):
    others = {path.name for path in made.iterdir() if not path.name.endswith("_kinetrack.py")}
    files = {"config.json", "video_preprocessor_config.json", "model.safetensors", "README.md", "LICENSE"}
    assert others == files | {"failures.jpg"}
    assert "failures.jpg" in list_upload(made)
    (made / "README.md").write_text("# A model\n")
    with pytest.raises(BundleError, match="holds failures.jpg, which does not belong"):
        list_upload(made)


def test_a_folder_that_is_something_else_is_never_replaced(checkpoint, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    with pytest.raises(BundleError, match="holds something that is not a bundle"):
        bundle(checkpoint, tmp_path / "mine", prove=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_older_bundle_is_replaced_whole(checkpoint, made, tmp_path):
    older = edited(made, tmp_path / "older")
    (older / "left_over_kinetrack.py").write_text("")
    bundle(checkpoint, older, prove=False)
    assert not (older / "left_over_kinetrack.py").exists() and (older / "config.json").is_file()
