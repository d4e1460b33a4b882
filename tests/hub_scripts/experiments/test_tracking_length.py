"""A session in clips forgets after every T steps and no sooner; findings follow the numbers."""

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.experiments.experiment import Results
from kinetrack.hub_scripts.experiments.tracking_length import STREAM, TrackingLength
from kinetrack.hub_scripts.experiments.watching import in_clips
from kinetrack.processing.loading import load_model
from kinetrack.processing.session_kinetrack import KineTrackSession


@pytest.fixture(scope="module")
def loaded(model_folder):
    return load_model(model_folder, "cpu", backend="torch")


def seen_states(loaded, frames, rate: float, length: int | None) -> list[torch.Tensor]:
    """The recurrent state that the model hands on after every frame of a session."""
    model, processor = loaded
    states = []
    hook = model.register_forward_hook(lambda module, inputs, output: states.append(output.state.hidden[0].clone()))
    try:
        with in_clips(model, length):
            session = KineTrackSession(model, processor, task="tracking")
            for number, frame in enumerate(frames):
                session.step(frame, time=number / rate)
    finally:
        hook.remove()
    return states


@pytest.mark.parametrize("length", [1, 3])
def test_each_clip_of_a_session_begins_anew(loaded, draw_frames, length):
    frames = draw_frames(8, 96, 64)
    found = seen_states(loaded, frames, 10.0, length)
    for number in range(8):
        begin = number - number % length
        alone = seen_states(loaded, frames[begin : number + 1], 10.0, None)[-1]
        assert torch.equal(found[number], alone)
    assert not torch.equal(found[-1], seen_states(loaded, frames, 10.0, None)[-1])


def test_frames_between_two_steps_are_no_steps(loaded, draw_frames):
    frames = draw_frames(9, 96, 64)
    rate = 2 * loaded[0].config.frame_rate
    steps = seen_states(loaded, frames, rate, 2)[::2]  # every second frame is a step
    fresh = seen_states(loaded, frames[4:], rate, None)[::2]
    assert torch.equal(steps[2], fresh[0]) and torch.equal(steps[3], fresh[1])
    assert not torch.equal(steps[4], fresh[2])


def test_the_window_of_temporal_attention_does_not_move_boxes(loaded, draw_frames):
    model, processor = loaded

    def detections(window):
        before, model.kinetrack.attention.window = model.kinetrack.attention.window, window
        model.config.attention_window = window
        try:
            session = KineTrackSession(model, processor, task="tracking", threshold=1e-6)
            return [session.step(frame, time=n / 10).boxes for n, frame in enumerate(draw_frames(6, 96, 64))]
        finally:
            model.kinetrack.attention.window = model.config.attention_window = before

    assert max(len(boxes) for boxes in detections(6)) > 0
    for short, long in zip(detections(2), detections(6), strict=True):
        assert np.array_equal(short, long)


def made_up(short: float, stream: float) -> Results:
    def cell(variant, value):
        whole = {name: {"HOTA": value, "IDF1": value, "MOTA": value, "IDSW": 2} for name in ("A", "COMBINED")}
        stretches = {key: [value] * 10 for key in ("HOTA", "IDF1", "IDSW")}
        return {"variant": variant, "seed": 0, "measures": {"whole": whole, "stretches": stretches}}

    return Results([cell("8", short), cell(STREAM, stream)], {})


def test_finding_says_what_was_shown(tmp_path):
    experiment, results = TrackingLength(), made_up(40.0, 50.0)
    text = " ".join(experiment.conclude(results))
    assert "T = 8 changes HOTA by -10.0 (-10.0 to -10.0) points, shown" in text and "stream has HOTA 50.0" in text
    assert experiment.summarise(results).verdict == "forgetting costs HOTA at T = 8, IDF1 at T = 8"
    assert experiment.draw(results, tmp_path)[0].file == "tracking-length.png"


def test_finding_says_what_was_not_shown():
    results = made_up(50.0, 50.0)
    assert "T = 8 changes HOTA by +0.0 (+0.0 to +0.0) points, not shown" in " ".join(TrackingLength().conclude(results))
    assert TrackingLength().summarise(results).verdict == "no need for a longer past was shown"
