"""A short soak: what `make soak` does for hours, and that it notices what it is there to notice."""

import json

import numpy as np
import pytest
from kinetrack.hub_scripts import soak
from kinetrack.hub_scripts.soak import Watch, main, people_at, soak_example, soak_synthetic


def test_short_soak_of_the_tracker_is_flat(tmp_path):
    found = soak_synthetic(4000, tmp_path, report=lambda line: None)
    checks = found["checks"]
    assert all(checks[name] for name in checks if name != "time_flat"), found
    # Somebody new takes a place every 250 frames, for as long as it lasts; no identity is given twice or left out.
    newcomers = {int(row) for index in range(4000) for row in people_on(index)}
    assert found["identities"] == len(newcomers)
    assert (tmp_path / "tracks.txt").stat().st_size > 0


def people_on(index):
    age = index + np.arange(soak._PEOPLE) * (soak._LIFE // soak._PEOPLE)
    seen = age % soak._LIFE < soak._LIFE - 60
    return (age // soak._LIFE * soak._PEOPLE + np.arange(soak._PEOPLE))[seen]


def test_short_soak_of_the_whole_stream_leaves_nothing_open(model_folder, tmp_path):
    found = soak_example(120, tmp_path, report=lambda line: None, model=str(model_folder), size=(64, 96))
    assert found["frames"] == 120
    assert found["checks"]["no_file_left_open"] and found["checks"]["no_thread_left"]
    assert found["memory_last_over_second_tenth"] < 1.1


@pytest.mark.parametrize("grows", ["memory", "files", "threads", "seconds"])
def test_what_grows_is_noticed(monkeypatch, grows):
    now = {"memory": 100.0, "files": 5, "threads": 2, "seconds": 0.0}
    monkeypatch.setattr(soak, "resident_mib", lambda: now["memory"])
    monkeypatch.setattr(soak, "open_files", lambda: now["files"])
    monkeypatch.setattr(soak, "running_threads", lambda: now["threads"])
    monkeypatch.setattr(soak.time, "process_time", lambda: now["seconds"])
    watch = Watch(1000)
    for index in range(1000):
        now["seconds"] += 1.0 + (index / 500 if grows == "seconds" else 0)
        if grows != "seconds":
            now[grows] += 0.1
        watch.add(np.array([3]))
    checks = watch.summary(3)["checks"]
    failed = {name for name, good in checks.items() if not good}
    expected = {"memory": "memory_flat", "files": "no_file_left_open", "threads": "no_thread_left"}
    assert failed == {expected.get(grows, "time_flat")}


def test_identity_that_was_never_given_is_noticed():
    watch = Watch(40)
    for _ in range(40):
        watch.add(np.array([9]))
    assert not watch.summary(8)["checks"]["identities_exact"]


def test_interrupted_soak_says_so_and_counts():
    watch = Watch(1000)
    with watch:
        for _ in range(100):
            watch.add(np.array([1]))
        raise KeyboardInterrupt
    found = watch.summary(1)
    assert found["frames"] == 100 and not found["checks"]["complete"] and not found["passed"]


def test_people_come_and_go_and_are_never_mistaken():
    first, later = people_at(0), people_at(250)
    assert len(first) and first.data["embedding"].shape == (len(first), 16)
    assert not np.allclose(first.data["embedding"], later.data["embedding"][: len(first)])


def test_report_is_written_and_the_exit_code_tells(tmp_path, capsys):
    code = main(["--part", "synthetic", "--frames", "400", "--output", str(tmp_path)])
    (run,) = json.loads((tmp_path / "soak.json").read_text())["runs"]
    assert run["frames"] == 400 and code == (0 if run["passed"] else 1)
    assert "synthetic: 400 of 400 frames" in capsys.readouterr().out
