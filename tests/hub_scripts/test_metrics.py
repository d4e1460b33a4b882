"""Tracking scores against TrackEval's own run on the same files, and action scores against arithmetic by hand."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from kinetrack.hub_scripts.metrics.action_metrics import score_actions

pytest.importorskip("trackeval")
pytest.importorskip("evaluate")

from kinetrack.hub_scripts.metrics import mot_metrics  # noqa: E402
from kinetrack.hub_scripts.metrics.mot_metrics import detect_style, read_mot_rows, score_tracks  # noqa: E402

LENGTH = 30


def walkers(rng, count=5, length=LENGTH):
    """Rows frame, id, left, top, width, height of people who walk."""
    rows = []
    for identity in range(1, count + 1):
        place, speed = rng.uniform(50, 400, 2), rng.normal(0, 4, 2)
        first, last = rng.integers(1, length // 3), rng.integers(2 * length // 3, length + 1)
        rows += [[t, identity, *(place + speed * t), 40, 90] for t in range(first, last + 1)]
    return np.array(rows, float)


def guess(rng, truth):
    """A tracker's answer: boxes off by some pixels, some missed, some invented, identities that change midway."""
    rows = truth[rng.random(len(truth)) > 0.15, :6].copy()
    rows[:, 2:6] += rng.normal(0, 5, (len(rows), 4))
    rows[:, 1] += 10 * (rows[:, 0] > LENGTH / 2) * (rows[:, 1] % 2)
    extra = np.column_stack([np.arange(1, 11), np.full(10, 99), rng.uniform(0, 400, (10, 2)), np.full((10, 2), 60)])
    return np.concatenate([rows, extra])


def write_rows(path: Path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, rows, delimiter=",", fmt="%.3f")
    return path


def write_sequence(folder: Path, truth, length=LENGTH):
    write_rows(folder / "gt" / "gt.txt", truth)
    (folder / "seqinfo.ini").write_text(
        f"[Sequence]\nname={folder.name}\nframeRate=25\nseqLength={length}\nimWidth=640\nimHeight=480\n"
    )
    return folder


def mot15(rng):
    rows = walkers(rng)
    marks = (rng.random(len(rows)) > 0.1).astype(float)
    return np.column_stack([rows, marks, np.full((len(rows), 3), -1.0)])


def mot17(rng):
    """Pedestrians, and one each of a distractor, a car and someone marked 0."""
    rows = walkers(rng, 8)
    classes = np.where(rows[:, 1] == 6, 8, np.where(rows[:, 1] == 7, 3, 1))
    marks = np.where((rows[:, 1] == 8) | (classes != 1), 0, 1)
    return np.column_stack([rows, marks, classes, np.ones(len(rows))])


@pytest.fixture(params=["MOT15", "MOT17"])
def dataset(request, tmp_path):
    """Two sequences of one style with a tracker's answers, in the layout TrackEval wants: style, names, root."""
    rng = np.random.default_rng(3)
    for number in (1, 2):
        name = f"{request.param}-{number:02d}"
        truth = {"MOT15": mot15, "MOT17": mot17}[request.param](rng)
        write_sequence(tmp_path / "gt" / name, truth)
        answer = guess(rng, truth)
        rows = np.column_stack([answer, np.full(len(answer), 0.8), np.full((len(answer), 3), -1.0)])
        write_rows(tmp_path / "results" / "ours" / "data" / f"{name}.txt", rows)
    return request.param, [f"{request.param}-{number:02d}" for number in (1, 2)], tmp_path


def ours(names, root, **options):
    return score_tracks(
        {name: root / "results" / "ours" / "data" / f"{name}.txt" for name in names},
        {name: root / "gt" / name for name in names},
        **options,
    )


def trackeval_run(style, names, root):
    """TrackEval as its own command line drives it."""
    import trackeval

    quiet = {"PRINT_CONFIG": False}
    evaluator = trackeval.Evaluator(
        {
            **quiet,
            "PRINT_RESULTS": False,
            "OUTPUT_SUMMARY": False,
            "OUTPUT_DETAILED": False,
            "PLOT_CURVES": False,
            "TIME_PROGRESS": False,
            "LOG_ON_ERROR": None,
        }
    )
    dataset = trackeval.datasets.MotChallenge2DBox(
        {
            **quiet,
            "GT_FOLDER": str(root / "gt"),
            "TRACKERS_FOLDER": str(root / "results"),
            "BENCHMARK": style,
            "SEQ_INFO": dict.fromkeys(names),
            "SKIP_SPLIT_FOL": True,
        }
    )
    scorers = [
        trackeval.metrics.HOTA(),
        trackeval.metrics.CLEAR({"THRESHOLD": 0.5, **quiet}),
        trackeval.metrics.Identity({"THRESHOLD": 0.5, **quiet}),
    ]
    results, _ = evaluator.evaluate([dataset], scorers)
    return {name: value["pedestrian"] for name, value in results["MotChallenge2DBox"]["ours"].items()}


def test_equals_trackevals_own_run(dataset):
    style, names, root = dataset
    expected, scores = trackeval_run(style, names, root), ours(names, root)
    for name, reference in zip([*names, "COMBINED"], [*names, "COMBINED_SEQ"], strict=True):
        theirs = expected[reference]
        for key in ("HOTA", "DetA", "AssA"):
            assert scores[name][key] == pytest.approx(100 * theirs["HOTA"][key].mean(), abs=1e-9)
        for key, field in {"MOTA": "MOTA", "MOTP": "MOTP"}.items():
            assert scores[name][key] == pytest.approx(100 * theirs["CLEAR"][field], abs=1e-9)
        for key, field in {"IDSW": "IDSW", "Frag": "Frag", "FP": "CLR_FP", "FN": "CLR_FN"}.items():
            assert scores[name][key] == theirs["CLEAR"][field]
        assert scores[name]["IDF1"] == pytest.approx(100 * theirs["Identity"]["IDF1"], abs=1e-9)
    assert 0 < scores["COMBINED"]["HOTA"] < 100 and scores["COMBINED"]["IDSW"] > 0


def test_the_evaluate_module_gives_the_same(dataset):
    import evaluate

    _, names, root = dataset
    metric = evaluate.load(mot_metrics.__file__)
    result = metric.compute(
        predictions=[str(root / "results" / "ours" / "data" / f"{name}.txt") for name in names],
        references=[str(root / "gt" / name) for name in names],
    )
    expected = ours(names, root)
    assert {name: result["sequences"][name] for name in names} == {name: expected[name] for name in names}
    assert {key: result[key] for key in expected["COMBINED"]} == expected["COMBINED"]


def test_a_perfect_answer_scores_a_hundred(tmp_path):
    truth = mot15(np.random.default_rng(0))
    truth[:, 6] = 1
    scores = score_tracks({"S": truth[:, :7]}, {"S": write_sequence(tmp_path / "S", truth)})["S"]
    for key in ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1"):
        assert scores[key] == pytest.approx(100, abs=0.01)  # the files hold three decimals
    assert [scores[key] for key in ("IDSW", "Frag", "FP", "FN")] == [0, 0, 0, 0]


def test_mot17_distractors_count_neither_way(tmp_path):
    person = np.array([[t, 1, 10 + t, 10, 40, 90, 1, 1, 1] for t in range(1, 11)], float)
    statue = np.array([[t, 2, 300, 10, 40, 90, 0, 7, 1] for t in range(1, 11)], float)
    folder = write_sequence(tmp_path / "S", np.concatenate([person, statue]), 10)
    both = np.concatenate([person, statue])[:, :6]
    assert score_tracks({"S": both}, {"S": folder})["S"]["FP"] == 0
    assert score_tracks({"S": both}, {"S": folder})["S"]["MOTA"] == pytest.approx(100)
    # Without preprocessing (as for MOT15) the statue would be ten false positives.
    assert score_tracks({"S": both}, {"S": folder}, style="MOT15")["S"]["FP"] == 10


def test_style_is_read_from_the_file():
    rng = np.random.default_rng(0)
    assert detect_style(mot15(rng)) == "MOT15"
    assert detect_style(mot17(rng)) == "MOT17"
    assert detect_style(mot17(rng), "MOT20-01") == "MOT20"
    world = mot15(rng)
    world[:, 7:] = rng.normal(0, 5, (len(world), 3))
    assert detect_style(world) == "MOT15"


def test_a_part_of_a_sequence_is_scored_as_if_it_were_cut_out(tmp_path):
    rng = np.random.default_rng(1)
    truth = mot15(rng)
    answer = guess(rng, truth)
    part = score_tracks({"S": answer}, {"S": write_sequence(tmp_path / "S", truth)}, frames={"S": (8, 24)})["S"]

    def cut(rows):
        rows = rows[(rows[:, 0] >= 8) & (rows[:, 0] <= 24)].copy()
        rows[:, 0] -= 7
        return rows

    alone = score_tracks({"S": cut(answer)}, {"S": write_sequence(tmp_path / "cut" / "S", cut(truth), 17)})["S"]
    assert part == alone


@pytest.fixture
def simple(tmp_path):
    truth = np.array([[t, 1, 300 + t, 200, 40, 90, 1, -1, -1, -1] for t in range(1, 21)], float)
    return write_sequence(tmp_path / "S", truth, 20), truth[:, :6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows - np.array([1, 0, 0, 0, 0, 0]), "starts at frame 0.*counts from 1"),
        (lambda rows: rows + np.array([5, 0, 0, 0, 0, 0]), "reaches frame 25, the sequence has 20"),
        (lambda rows: rows[:, :4], "need frame, id"),
        (lambda rows: np.concatenate([rows, rows[:1]]), "refused"),
        (lambda rows: rows * np.nan, "not finite"),
    ],
)
def test_results_that_do_not_fit_are_named(simple, change, message):
    folder, rows = simple
    with pytest.raises(ValueError, match=message):
        score_tracks({"S": change(rows)}, {"S": folder})


@pytest.fixture
def crowd(tmp_path):
    """Many people all over a wide picture, who walk quickly."""
    rng = np.random.default_rng(0)
    starts = rng.uniform((0, 0), (1800, 850), (12, 2))
    truth = np.array(
        [[t, i, x + 20 * t, y, 80, 200, 1, -1, -1, -1] for t in range(1, 41) for i, (x, y) in enumerate(starts, 1)]
    )
    return write_sequence(tmp_path / "CROWD", truth, 90), truth[:, :6]


@pytest.mark.parametrize("factors", [(0.6, 0.6), (2 / 3, 2 / 3), (0.75, 0.75), (1.5, 1.5), (0.37, 0.37), (0.5, 0.8)])
def test_another_resolution_is_noticed(crowd, factors):
    folder, rows = crowd
    back = [f"{1 / factor:.3g}" for factor in factors]
    with pytest.warns(UserWarning, match=f"with {back[0]} times their x and {back[1]} times.*another resolution"):
        score_tracks({"S": rows * np.array([1, 1, *factors, *factors])}, {"S": folder})


@pytest.mark.parametrize("offset", [2, 3, 7, 15, 20, 29])
def test_a_frame_offset_inside_the_sequence_is_noticed(crowd, offset):
    folder, rows = crowd
    late = rows + np.array([offset, 0, 0, 0, 0, 0])
    with pytest.warns(UserWarning, match=f"better {offset} frames earlier.*without an offset"):
        score_tracks({"S": late}, {"S": folder})


def test_one_class_of_many_is_scored_alone(tmp_path):
    truth = np.array(
        [[t, i, 100 * i + t, 200, 40, 90, 1, i, 1] for t in range(1, 21) for i in (1, 2)], float
    )  # CVAT's classes 1 and 2
    folder = write_sequence(tmp_path / "S", truth, 20)
    second = truth[truth[:, 7] == 2, :6]
    keys = {"one": 1, "two": 2, "three": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = score_tracks(dict.fromkeys(keys, second), dict.fromkeys(keys, folder), classes=keys)
    assert [scores[key]["MOTA"] for key in ("one", "two")] == [-100, 100]
    assert scores["three"]["FP"] == 20 and scores["three"]["FN"] == 0


def test_a_half_numbered_from_one_is_refused(simple):
    folder, rows = simple
    with pytest.raises(
        ValueError, match="frames 11 to 20 are scored, the result has frames 1 to 10.*is 10 to be added"
    ):
        score_tracks({"S": rows[:10]}, {"S": folder}, frames={"S": (11, 20)})


def test_a_result_of_a_shorter_cut_is_noticed(simple):
    folder, rows = simple
    with pytest.warns(UserWarning, match="ends at frame 10, the ground truth at 20.*shorter cut"):
        score_tracks({"S": rows[:10]}, {"S": folder})


def test_an_empty_result_scores_zero_and_says_so(simple, tmp_path):
    folder, rows = simple
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    with pytest.warns(UserWarning, match="result is empty"):
        scores = score_tracks({"S": empty}, {"S": folder})
    assert scores["S"]["MOTA"] == 0 and scores["S"]["HOTA"] == 0 and scores["S"]["FN"] == len(rows)


def test_good_results_warn_about_nothing(simple):
    folder, rows = simple
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_tracks({"S": rows}, {"S": folder})


def test_missing_and_malformed_files(simple, tmp_path):
    folder, rows = simple
    with pytest.raises(FileNotFoundError, match="nowhere.txt"):
        score_tracks({"S": tmp_path / "nowhere.txt"}, {"S": folder})
    with pytest.raises(ValueError, match="same sequences.*'T'"):
        score_tracks({"S": rows, "T": rows}, {"S": folder})
    text = tmp_path / "text.txt"
    text.write_text("one,two\n")
    with pytest.raises(ValueError, match="comma-separated numbers"):
        read_mot_rows(text)


def test_action_scores_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.3, 0.6], [0.9, 0.05, 0.05]])
    scores = score_actions(probabilities, [0, 0, 2, 1], ["a", "b", "c"])
    assert scores["top1"] == 50 and scores["top5"] == 100
    assert scores["per_class"] == {"a": 50, "b": 0, "c": 100}
    assert scores["mean_class_accuracy"] == 50
    assert scores["confusion"] == [[1, 1, 0], [1, 0, 0], [0, 0, 1]]
    # Confidences 0.7, 0.5, 0.6 and 0.9 fall into four bins; right, wrong, right, wrong.
    assert scores["expected_calibration_error"] == pytest.approx((0.3 + 0.5 + 0.4 + 0.9) / 4)


def test_top_five_looks_at_five():
    probabilities = np.linspace(1, 0, 8)[None].repeat(2, axis=0)
    scores = score_actions(probabilities / probabilities.sum(), [4, 5], list("abcdefgh"))
    assert scores["top1"] == 0 and scores["top5"] == 50


def test_action_scores_refuse_nothing_and_wrong_shapes():
    with pytest.raises(ValueError, match="No labelled clips"):
        score_actions(np.zeros((0, 2)), [], ["a", "b"])
    with pytest.raises(ValueError, match="Expected probabilities of shape \\(1, 2\\)"):
        score_actions(np.ones((1, 3)), [0], ["a", "b"])
