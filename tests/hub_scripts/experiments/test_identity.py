"""Switches are TrackEval's, causes follow from boxes, and the finding follows from both."""

import json
from pathlib import Path

import numpy as np
import pytest
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.identity import FULL, Identity
from kinetrack.hub_scripts.experiments.identity_events import IdentityHistory, read_people
from kinetrack.hub_scripts.metrics.mot_metrics import score_tracks
from typer.testing import CliRunner


def rows(*boxes):
    """(frame, identity, left) of people 20 wide and 40 high."""
    return np.array([(frame, name, left, 10, 20, 40, 1, -1, -1, -1) for frame, name, left in boxes], float)


def history(people, tracks):
    return IdentityHistory(people[:, :6], tracks, (1, int(people[:, 0].max())))


def walk(name, lefts, skip=()):
    return [(frame, name, left) for frame, left in enumerate(lefts, start=1) if frame not in skip]


def write_sequence(folder: Path, people: np.ndarray, length: int) -> Path:
    (folder / "gt").mkdir(parents=True)
    np.savetxt(folder / "gt" / "gt.txt", people, delimiter=",", fmt="%g")
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nimDir=img1\nframeRate=25\nseqLength={length}\nimWidth=96\nimHeight=64\n"
    )
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_switches_are_those_of_trackeval(tmp_path, seed):
    rng = np.random.default_rng(seed)
    people, tracks = [], []
    for frame in range(1, 61):
        for person in range(1, 6):
            left = 100 * person + 40 * np.sin(frame / 7 + person)
            people.append((frame, person, left))
            for _ in range(int(rng.integers(0, 3))):  # often two tracks about one person
                name = len(tracks) if rng.random() < 0.1 else int(rng.integers(1, 3))
                tracks.append((frame, name * 100 + person, left + rng.normal(0, 3)))
    tracks = list({track[:2]: track for track in tracks}.values())  # an identity is seen once a frame
    people, tracks = rows(*people), rows(*tracks)
    folder = write_sequence(tmp_path / "CROWD", people, 60)
    expected = score_tracks({"CROWD": tracks[:, :7]}, {"CROWD": folder})["CROWD"]["IDSW"]
    found = IdentityHistory(read_people(folder), tracks, (1, 60)).switches()
    assert len(found) == expected > 10


def test_a_cause_follows_from_what_went_before():
    length = 12
    still, passing = [0] * length, [100 - 18 * n for n in range(length)]
    people = rows(*walk(1, still), *walk(2, passing), *walk(3, [300] * length), *walk(4, [400] * length))
    tracks = rows(
        *[(f, 1 if f < 6 else 9, 0) for f in range(1, length + 1) if f != 6],  # covered by 2 about frame 6
        *walk(2, passing),
        *[(f, 3 if f < 5 else 33, 300) for f in range(1, length + 1) if f not in (5, 6)],  # not detected for a while
        *[(f, 4 if f < 5 else 44, 400) for f in range(1, length + 1)],  # seen all the time
    )
    causes = {switch.person: (switch.cause, switch.gap) for switch in history(people, tracks).switches()}
    assert causes[1][0] == "occlusion"
    assert causes[3] == ("missed", 3)
    assert causes[4] == ("fresh", 1)


def test_exchanged_identities_are_told_from_fresh_ones():
    people = rows(*walk(1, [0] * 8), *walk(2, [200] * 8))
    swapped = rows(
        *[(f, 1 if f < 5 else 2, 0) for f in range(1, 9)], *[(f, 2 if f < 5 else 1, 200) for f in range(1, 9)]
    )
    assert [switch.cause for switch in history(people, swapped).switches()] == ["exchange", "exchange"]


def test_an_occlusion_is_outlived_or_not():
    lefts = [60, 50, 40, 10, 5, 0, -5, -10, -40, -60, -80]
    people = rows(*walk(1, [0] * 11), *walk(2, lefts))
    kept = history(people, rows(*walk(1, [0] * 11, skip=(5, 6)), *walk(2, lefts)))
    assert {(person, same) for _, person, same in kept.occlusions()} == {(1, True), (2, True)}
    lost = history(people, rows(*[(f, 1 if f < 5 else 7, 0) for f in range(1, 12)], *walk(2, lefts)))
    assert {(person, same) for _, person, same in lost.occlusions()} == {(1, False), (2, True)}


def made_up(entropy_at_switch: float) -> Results:
    """Four hundred frames with a switch in the middle of every hundred."""
    frames = [50, 150, 250, 350]
    series = np.full((400, 2), 0.9)
    series[:, 0] += np.random.default_rng(0).normal(0, 0.01, 400)
    for frame in frames:
        series[frame - 7 : frame + 6, 0] += entropy_at_switch
    switches = [{"frame": frame, "person": 1, "gap": 1, "cause": "occlusion"} for frame in frames]
    full = {
        "stretches": {"HOTA": [50, 51, 49, 50], "IDF1": [60] * 4, "IDSW": [1] * 4},
        "events": {"S": {"switches": switches, "occlusions": [[10, 1, True], [60, 1, False]], "covered": 0.1}},
        "beta": {"S": series.tolist()},
    }
    full["whole"] = {"COMBINED": {"IDF1": 60.0, "HOTA": 50.0}}
    worse = {"whole": full["whole"], "stretches": {"HOTA": [30, 31, 29, 30], "IDF1": [60] * 4, "IDSW": [1] * 4}}
    cells = [{"variant": FULL, "seed": 0, "measures": full}, {"variant": "no-memory", "seed": 0, "measures": worse}]
    return Results(cells)


def test_finding_says_whether_beta_differs_and_what_parts_do():
    text = " ".join(Identity().conclude(made_up(0.08)))
    assert "no-memory changes HOTA by -20.0 points" in text and "most often occlusion" in text
    assert "Of all boxes, 10 % of S are covered to 30% by another's" in text
    assert "outlived 1 of 2 occlusions" in text
    assert "β does look different around switches, and flatter there" in text
    assert "was not borne out" in " ".join(Identity().conclude(made_up(0.0)))


def test_the_usual_cause_is_named_only_where_it_leads():
    results = made_up(0.0)
    switches = results.cells[0]["measures"]["events"]["S"]["switches"]
    switches[0]["cause"] = switches[1]["cause"] = "exchange"
    text = " ".join(Identity().conclude(results))
    assert "none was shown to be the most frequent" in text and "most often" not in text


def test_a_sequence_with_more_switches_and_another_beta_shows_nothing():
    results = made_up(0.0)
    full = results.cells[0]["measures"]
    full["beta"]["CALM"] = [[0.5, 0.9]] * 400  # far sharper, and without a switch
    full["events"]["CALM"] = {"switches": [], "occlusions": [], "covered": 0.0}
    assert "was not borne out" in " ".join(Identity().conclude(results))


def test_a_quick_run_goes_from_video_to_report(clips_root, draw_frames, make_video, model_folder, tmp_path):
    root = tmp_path / "data"
    frames = draw_frames(40, 96, 64)
    people = rows(*walk(1, [4 + n for n in range(40)]), *walk(2, [76 - n for n in range(40)]))
    make_video(write_sequence(root / "mot" / "val" / "WALKERS", people, 40) / "video.mp4", frames)
    arguments = ["experiment", "identity", "--data", root, "-o", tmp_path / "out", "--quick", "--model", model_folder]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [cell["variant"] for cell in content["cells"]] == [FULL, "no-embeddings", "no-memory", "neither"]
    assert len(content["cells"][0]["measures"]["beta"]["WALKERS"]) == 40
    assert (tmp_path / "out" / "identity.png").read_bytes().startswith(b"\x89PNG")


def test_data_without_sequences_is_one_clear_error(clips_root, tmp_path):
    result = CliRunner().invoke(app, ["experiment", "identity", "--data", str(clips_root), "-o", str(tmp_path / "out")])
    assert result.exit_code != 0 and "mot/val" in str(result.exception)
