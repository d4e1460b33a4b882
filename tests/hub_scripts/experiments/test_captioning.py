"""Sentences follow from labels and boxes, answers are scored slot by slot, and a finding says what was shown."""

import json

import numpy as np
import pytest
from kinetrack.hub_scripts.captioning.video_tokens import PLACES, VideoTokens
from kinetrack.hub_scripts.cli import app
from kinetrack.hub_scripts.experiments.caption_corpus import (
    CAPTION,
    DOES,
    GOES,
    HOW_MANY,
    MOST,
    Scene,
    compose,
    read_scenes,
    said_slots,
)
from kinetrack.hub_scripts.experiments.caption_findings import findings, in_a_line
from kinetrack.hub_scripts.experiments.caption_scores import (
    majority_answers,
    rule_answers,
    score_answers,
    unit_films,
)
from kinetrack.hub_scripts.experiments.experiment import Results
from typer.testing import CliRunner

LEFT_DOES, RIGHT_DOES, LEFT_GOES, RIGHT_GOES = (
    text.format(side) for text in (DOES, GOES) for side in ("left", "right")
)


def pair(verbs=("throws", "walks"), ways=("nowhere", "left"), films=("a", "b")) -> Scene:
    answers = {LEFT_DOES: verbs[0], LEFT_GOES: ways[0], RIGHT_DOES: verbs[1], RIGHT_GOES: ways[1]}
    owner = {LEFT_DOES: films[0], LEFT_GOES: films[0], RIGHT_DOES: films[1], RIGHT_GOES: films[1], CAPTION: films[0]}
    return Scene("pair", answers | {CAPTION: compose(answers)}, owner, list)


def street(count="three", most="left") -> Scene:
    answers = {HOW_MANY: count, MOST: most}
    answers[CAPTION] = compose(answers)
    return Scene("street", answers, dict.fromkeys(answers, "s"), list)


def write_street(root, make_video, draw_frames, part="val", people=2, length=40):
    """People who walk to the right, a quarter of the frame in sixteen frames, behind one who stands."""
    folder = root / "mot" / part / "STREET"
    (folder / "gt").mkdir(parents=True)
    lines = [f"{frame},1,40,10,10,30,1,-1,-1,-1" for frame in range(1, length + 1)]
    for person in range(2, people + 1):
        lines += [f"{frame},{person},{20 + 1.5 * frame},10,10,30,1,-1,-1,-1" for frame in range(1, length + 1)]
    (folder / "gt" / "gt.txt").write_text("\n".join(lines))
    (folder / "seqinfo.ini").write_text(f"[Sequence]\nframeRate=12.5\nseqLength={length}\nimWidth=96\nimHeight=64\n")
    make_video(folder / "video.mp4", draw_frames(length, 96, 64), frame_rate=25)


def test_a_pair_is_told_from_labels_and_boxes(clips_root):
    scenes = read_scenes(clips_root, "val")
    assert sorted(scene.answers[LEFT_DOES] for scene in scenes) == ["plays golf", "runs"]
    for scene in scenes:  # boxes move by 11 of 96 pixels to the right
        assert scene.answers[LEFT_GOES] == scene.answers[RIGHT_GOES] == "right"
        verbs = [scene.answers[question] for question in (LEFT_DOES, RIGHT_DOES)]
        assert scene.answers[CAPTION] == f"a person {verbs[0]} moving right while another {verbs[1]} moving right"
        frames = list(scene.frames())
        assert frames[0].image.shape == (64, 192, 3)
        assert np.allclose(np.diff([frame.time for frame in frames]), 1 / 12.5, atol=0.02)


def test_a_street_is_told_from_tracks(clips_root, make_video, draw_frames, tmp_path):
    root = tmp_path / "data"
    (root / "mot").mkdir(parents=True)
    (root / "actions").symlink_to(clips_root / "actions")
    write_street(root, make_video, draw_frames, people=4)
    streets = [scene for scene in read_scenes(root, "val") if HOW_MANY in scene.answers]
    assert len(streets) == 4  # two windows, two parts of each
    for scene in streets:
        shown = list(scene.frames())
        assert len(shown) == 16 and shown[0].image.shape == (61, 81, 3)
    assert {scene.answers[HOW_MANY] for scene in streets} <= {"one", "two", "three", "four"}
    assert "four people in the street mostly going right" in {scene.answers[CAPTION] for scene in streets}


@pytest.mark.parametrize(
    "scene", [pair(), pair(ways=("right", "nowhere")), street(), street("one", "nowhere"), street("many", "right")]
)
def test_a_sentence_says_what_the_answers_say(scene):
    slots, answers = said_slots(scene.answers[CAPTION]), scene.answers
    if HOW_MANY in answers:
        assert slots == (answers[HOW_MANY], answers[MOST])
    else:
        assert slots == (answers[LEFT_DOES], answers[LEFT_GOES], answers[RIGHT_DOES], answers[RIGHT_GOES])


@pytest.mark.parametrize(
    "sentence", ["", "a person throws", "people in the street", "a person while another walks up "]
)
def test_another_form_says_nothing(sentence):
    assert said_slots(sentence) is None or sentence.endswith("up ")


def test_scores_are_by_slot_and_by_film():
    scenes = [pair(), street()]
    right = [dict(scene.answers) for scene in scenes]
    assert score_answers(scenes, right) == {
        "answers": {"verb": "11", "way": "11", "count": "1", "most": "1"},
        "sentences": {"sentence": "11", "verb": "11", "way": "11", "count": "1"},
    }
    right[0] |= {LEFT_DOES: "claps", CAPTION: "a person throws while another claps moving left"}
    right[1] |= {HOW_MANY: "two", CAPTION: "a person throws while another walks"}
    assert score_answers(scenes, right) == {
        "answers": {"verb": "01", "way": "11", "count": "0", "most": "1"},
        "sentences": {"sentence": "00", "verb": "10", "way": "11", "count": "0"},
    }
    films = unit_films(scenes)
    assert films == {"verb": ["a", "b"], "way": ["a", "b"], "count": ["s"], "most": ["s"], "sentence": ["a", "s"]}


def test_the_majority_says_what_is_commonest_in_training():
    train = [pair(), pair(), pair(verbs=("claps", "claps"), ways=("left", "left"))]
    [answers] = majority_answers(train, [pair(verbs=("sits", "sits"))])
    assert answers[LEFT_DOES] == "throws" and answers[CAPTION] == "a person throws while another walks moving left"


class _Head:
    """An action head that reads the class from the first feature."""

    class config:
        id2label = {0: "throw", 1: "walk"}
        summary_size = 1

    @staticmethod
    def action_head(features):
        return (features[:, :1] * features.new_tensor([[-1.0, 1.0]]),)


def test_rules_read_the_track_of_a_side_and_where_it_went():
    places = np.zeros((3, len(PLACES)), np.float32)
    places[:, PLACES.index("first x")] = 0.8, 0.2, 0.9  # the surest on the right first
    places[:, PLACES.index("moved x")] = -0.2, 0.01, 0.3
    places[:, PLACES.index("share of frames")] = 1, 1, 0.2
    tracks = np.array([[1.0], [-1.0], [-1.0]], np.float16)
    tokens = VideoTokens(np.zeros((2, 1), np.float16), tracks, places)
    [answers] = rule_answers(_Head, [pair()], [tokens], majority_answers([pair(("claps", "claps"))], [pair()]))
    assert answers[CAPTION] == "a person throws while another walks moving left"
    [answers] = rule_answers(_Head, [street()], [tokens], majority_answers([street()], [street()]))
    assert (answers[HOW_MANY], answers[MOST]) == ("two", "different ways")
    nobody = VideoTokens(tokens.frames, tracks[:0], places[:0])
    [answers] = rule_answers(_Head, [pair()], [nobody], majority_answers([pair(("claps", "claps"))], [pair()]))
    assert answers[LEFT_DOES] == "claps"


def made_up(**right: str) -> Results:
    """Decoders on 40 answers of 40 films."""

    def cell(variant, hits):
        slots = {slot: hits for slot in ("verb", "way")}
        measures = {"answers": slots, "sentences": slots | {"sentence": hits}, "parameters": 9}
        return {"variant": variant, "seed": 0, "measures": measures}

    films = {slot: list(range(40)) for slot in ("verb", "way", "sentence")}
    facts = {"words": 9, "train_pairs": 5, "train_streets": 0, "val_stretches_of_streets": 0}
    facts |= {"val_sentences_not_in_training": "50 %", "verbs_right_by_rule_in_training": "90 %", "films": films}
    return Results([cell(variant, hits) for variant, hits in right.items()], facts)


def test_finding_says_what_was_shown():
    results = made_up(
        majority="0" * 40, rules="1" * 40, blind="0" * 40, frames="0" * 40, tracks="1" * 40, both="1" * 40
    )
    text = " ".join(findings(results))
    assert "what a person does, 100.0 %" in text and "blind 0.0 %, a difference of +100.0" in text
    assert "Tokens of tracks beside those of frames change answers about what a person does +100.0" in text
    assert "Tokens of frames are not shown to change those about what a person does" in text
    assert "it can put into words what a person does, which way a person goes" in in_a_line(results).verdict


def test_finding_says_what_was_not_shown():
    results = made_up(majority="10" * 20, blind="01" * 20, both="10" * 20)
    assert "blind 50.0 %, no difference shown" in " ".join(findings(results))
    assert in_a_line(results).verdict == "not shown that the decoder says more than it would without video"
    assert "was not run" in findings(made_up(blind="1" * 40))[0]


def test_a_quick_run_goes_from_video_to_report(clips_root, model_folder, tmp_path):
    out = tmp_path / "out"
    options = ["--data", clips_root, "-o", out, "--cache", tmp_path / "cache", "--quick", "--seeds", "1"]
    command = ["experiment", "captioning", *options, "--model", model_folder]
    result = CliRunner().invoke(app, list(map(str, command)))
    assert result.exit_code == 0, result.output
    content = json.loads((out / "results.json").read_text())
    cells = {cell["variant"]: cell["measures"] for cell in content["cells"]}
    assert list(cells) == ["majority", "rules", "blind", "frames", "tracks", "both"]
    for measures in cells.values():
        assert {slot: len(hits) for slot, hits in measures["answers"].items()} == {"verb": 4, "way": 4}
    assert cells["both"]["parameters"] == cells["blind"]["parameters"] and len(cells["both"]["shown"]) == 2
    report = (out / "README.md").read_text()
    assert "its figures mean nothing" in report and "two of its answers" in report
    assert (out / "answers.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "cache").rglob("*.npz"))) == 8  # every pair is watched once
