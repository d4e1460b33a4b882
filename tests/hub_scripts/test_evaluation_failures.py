"""Which errors of tracking are found in which frames, and which of them are shown."""

import io

import numpy as np
import pytest
from kinetrack.hub_scripts.evaluation_failures import draw_failures, main, read_errors, worst_moments
from kinetrack.hub_scripts.evaluation_items import Sequence
from PIL import Image

LENGTH = 60


@pytest.fixture
def sequence(tmp_path):
    """Two people who stand still, and somebody who does not count."""
    folder = tmp_path / "STREET"
    (folder / "gt").mkdir(parents=True)
    (folder / "img1").mkdir()
    people = {1: (10, 10, 10, 30, 1), 2: (40, 10, 10, 30, 1), 3: (70, 10, 10, 30, 0)}
    rows = [
        f"{t},{i},{x},{y},{w},{h},{mark},-1,-1,-1"
        for t in range(1, LENGTH + 1)
        for i, (x, y, w, h, mark) in people.items()
    ]
    (folder / "gt/gt.txt").write_text("\n".join(rows))
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nseqLength={LENGTH}\nimWidth=96\nimHeight=64\nframeRate=25\nimDir=img1\n"
    )
    for number in range(1, LENGTH + 1):
        Image.new("RGB", (96, 64), (90, number, 90)).save(folder / f"img1/{number:06d}.png")
    return Sequence(folder)


def follow(boxes):
    """Rows of `{identity: box}` in every frame, changed by `boxes(t)`."""
    return np.array([[t, i, *box] for t in range(1, LENGTH + 1) for i, box in boxes(t).items()], float)


def answer(t):
    """Right but for: a swap of identities at 20, nobody found at 40, a box of nobody at 50, a sign that is ignored."""
    first, second, ignored = (11, 10, 10, 30), (40, 12, 10, 30), (70, 10, 10, 30)
    if t == 40:
        return {}
    names = (7, 8) if t < 20 else (8, 7)
    return {names[0]: first, names[1]: second, 9: ignored} | ({99: (10, 45, 10, 15)} if t == 50 else {})


def test_errors_of_every_kind_are_found_where_they_are(sequence):
    errors = read_errors(sequence, follow(answer))
    assert [entry.frame for entry in errors] == list(range(1, LENGTH + 1))
    counts = {
        kind: {entry.frame: len(getattr(entry, kind)) for entry in errors if len(getattr(entry, kind))}
        for kind in ("changed", "missed", "false")
    }
    assert counts == {"changed": {20: 2}, "missed": {40: 2}, "false": {50: 1}}
    assert errors[19].identities.tolist() == [[7, 8], [8, 7]]
    assert errors[0].found.tolist() == [[10, 10, 20, 40], [40, 10, 50, 40]]


def test_who_was_matched_before_stays_so_while_boxes_overlap(sequence):
    rows = follow(lambda t: {1: (10, 10, 10, 30)} | ({2: (10, 11, 10, 30)} if t > 5 else {}))
    rows[rows[:, 1] == 1, 2] += 1 * (rows[rows[:, 1] == 1, 0] > 5)  # the new box fits better, the old one well enough
    assert not any(len(entry.changed) for entry in read_errors(sequence, rows))


def test_a_part_has_the_frames_of_the_whole(sequence):
    part = Sequence(sequence.folder, (30, 45))
    errors = read_errors(part, follow(answer))
    assert (errors[0].frame, errors[-1].frame) == (30, 45)
    (moment,) = worst_moments(errors)
    assert moment.frame == 40


def test_moments_that_are_shown_lie_apart(sequence):
    nobody = follow(lambda t: {1: (10, 10, 10, 30)} if t < 55 else {})
    moments = worst_moments(read_errors(sequence, nobody))
    assert [entry.frame for entry in moments] == [1, 55]  # 55 to 60 are equally bad, all others alike and less so


def test_the_worst_moments_are_drawn_and_nothing_where_all_is_well(sequence):
    with Image.open(io.BytesIO(draw_failures(sequence, follow(answer)))) as picture:
        assert picture.format == "JPEG" and picture.width > 1000
    right = follow(lambda t: {1: (10, 10, 10, 30), 2: (40, 10, 10, 30)})
    assert draw_failures(sequence, right) is None
    with Image.open(io.BytesIO(draw_failures(sequence, right[:0]))) as picture:
        assert picture.format == "JPEG"


def test_the_command_draws_tracks_of_a_part(sequence, tmp_path, monkeypatch, capsys):
    tracks, picture = tmp_path / "tracks.txt", tmp_path / "failures.jpg"
    rows = follow(answer)
    rows = rows[(rows[:, 0] >= 30) & (rows[:, 0] <= 45)] - np.array([29, 0, 0, 0, 0, 0])
    np.savetxt(tracks, rows, delimiter=",", fmt="%g")
    command = ["evaluation_failures", str(sequence.folder), str(tracks), "--output", str(picture)]
    monkeypatch.setattr("sys.argv", [*command, "--first", "30"])
    main()
    with Image.open(picture) as drawn:
        assert drawn.width < 800, "only one frame is wrong"
    monkeypatch.setattr("sys.argv", [*command, "--first", "55"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "STREET has frames 1 to 60; part (55, 70) does not fit" in capsys.readouterr().err
