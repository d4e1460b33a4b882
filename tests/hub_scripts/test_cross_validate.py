"""Cross-validation: every fold is trained without its clips, what is finished is kept, and what the summary says."""

import json
import shutil

import pytest
from kinetrack.hub_scripts import clip_summaries, cross_validate
from kinetrack.hub_scripts.data.sources import action_sources, film_names
from kinetrack.hub_scripts.data.splits import read_split
from kinetrack.hub_scripts.train_statistics import Settings

from .conftest import mot_lines, walker_frames

FILMS = ("alps", "bridge", "canyon", "desert", "estuary", "fjord")


@pytest.fixture(scope="module")
def root(tmp_path_factory, data_root, make_video):
    """A sequence of somebody who walks, and two actions in six films each."""
    root = tmp_path_factory.mktemp("folds")
    shutil.copytree(data_root / "mot", root / "mot")
    for action, direction in (("walk", 1), ("wave", -1)):
        frames, boxes = walker_frames(12, direction)
        for film in FILMS:
            name = f"{action}/{film}{action}_{action}_u_nm_np1_fr_goo_0"
            clip = root / f"actions/jhmdb/train/{name}.mp4"
            actor = root / f"actions/jhmdb/train_boxes/{name}.txt"
            for file in (clip, actor):
                file.parent.mkdir(parents=True, exist_ok=True)
            make_video(clip, frames)
            actor.write_text(mot_lines(boxes))
    return root


def test_folds_are_trained_scored_kept_and_summarised(root, training_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_summaries, "_CANVAS", (64, 96))
    settings = training_settings(root, tmp_path / "unused", steps=1)
    monkeypatch.setattr(cross_validate, "Settings", lambda **options: Settings(far_passes=0, walker_passes=0))
    given = []
    monkeypatch.setattr(
        cross_validate, "load_train_config", lambda path, overrides: given.append(overrides) or settings
    )
    real, trained = cross_validate.train, []
    monkeypatch.setattr(cross_validate, "train", lambda settings: trained.append(settings) or real(settings))
    output = tmp_path / "runs"
    command = ["cross_validate", "c.yaml", "--data", str(root), "--output", str(output), "--folds", "3", "seed=3"]
    monkeypatch.setattr("sys.argv", [*command, "--only", "2"])
    cross_validate.main()
    assert given == [["seed=3", f"data.root={root}"]]
    assert (output / "fold-2/scores.json").is_file() and not (output / "folds.json").exists()
    monkeypatch.setattr("sys.argv", command)
    cross_validate.main()
    assert [run.output for run in trained] == [str(output / f"fold-{number}") for number in (2, 1, 3)]
    held_out = [set(read_split("val", output / f"fold-{number}/splits")) for number in (1, 2, 3)]
    clips = {path.relative_to(root).as_posix() for path in root.glob("actions/jhmdb/train/*/*.mp4")}
    assert set.union(*held_out) == clips and sum(map(len, held_out)) == len(clips)
    for run in trained:
        films = [
            set(film_names(action_sources(root, part, splits=run.data.splits)).values()) for part in ("train", "val")
        ]
        assert all(films) and not films[0] & films[1]
    assert not list(output.glob("fold-*/*.partial"))
    report = json.loads((output / "folds.json").read_text())
    scores = [json.loads((output / f"fold-{number}/scores.json").read_text()) for number in (1, 2, 3)]
    assert report["folds"] == scores and [fold["clips"] for fold in scores] == [len(clips) for clips in held_out]
    assert report["top1"]["mean"] == pytest.approx(sum(fold["top1"] for fold in scores) / 3)


def test_a_training_that_was_interrupted_is_not_taken_for_finished(root, training_settings, tmp_path, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(settings):
        cross_validate.KineTrackConfig(trained=False).save_pretrained(tmp_path / "fold/model")
        raise Stopped

    settings = training_settings(root, tmp_path / "unused", steps=1)
    monkeypatch.setattr(cross_validate, "train", stop)
    for _ in range(2):
        with pytest.raises(Stopped):
            cross_validate.run_fold(tmp_path / "fold", 2, 3, settings, Settings())


def test_summary_is_of_a_sample():
    folds = [{"top1": value, "clips": 9} for value in (50.0, 54.0, 58.0)]
    assert cross_validate.summarise(folds) == {"top1": {"mean": 54.0, "deviation": 4.0}}


@pytest.mark.parametrize("options", [["--folds", "2"], ["--only", "6"], ["--only", "0"]], ids=str)
def test_folds_that_are_not_there_are_refused(options, tmp_path, monkeypatch, capsys):
    command = ["cross_validate", "c.yaml", "--data", str(tmp_path), "--output", str(tmp_path / "runs"), *options]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        cross_validate.main()
    assert "at least 3 --folds" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
