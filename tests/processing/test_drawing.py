"""Drawing: what is on the frame, where, and in which colour."""

import numpy as np
import pytest
from kinetrack.processing.drawing import (
    IDENTITY_COLORS,
    FrameAnnotator,
    identity_color,
    overlay_attention,
    text_color,
)
from kinetrack.processing.session_kinetrack import KineTrackFrameResult

NAMES = ["walk", "run", "swing baseball"]


def rgb(color: str) -> np.ndarray:
    return np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])


def result_with(boxes, height=240, width=320, track_ids=None, actions=None, clip=None, groups=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return KineTrackFrameResult(
        frame=np.full((height, width, 3), 100, np.uint8),
        frame_index=0,
        time=0.0,
        height=height,
        width=width,
        track_ids=np.arange(1, len(boxes) + 1) if track_ids is None else np.array(track_ids),
        boxes=boxes,
        scores=np.ones(len(boxes), np.float32),
        labels=np.zeros(len(boxes), np.int64),
        actions=actions,
        clip_action=clip,
        group_actions=groups or {},
    )


def drawn(result, annotator=None):
    annotator = annotator or FrameAnnotator(result.height, result.width, action_names=NAMES, action_threshold=0.5)
    return annotator.annotate(result.frame, result)


@pytest.mark.parametrize("track_id", range(1, 9))
def test_box_has_the_colour_of_its_identity(track_id):
    picture = drawn(result_with([[100, 80, 180, 200]], track_ids=[track_id]))
    np.testing.assert_array_equal(picture[150, 100], rgb(identity_color(track_id)))
    np.testing.assert_array_equal(picture[150, 140], (100, 100, 100))


def test_colours_stay_apart_for_colour_blind_people():
    # Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
    protanopia = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    deuteranopia = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    colors = np.array([rgb(color) for color in IDENTITY_COLORS]) / 255
    for matrix in (protanopia, deuteranopia):
        seen = np.clip(colors**2.2 @ np.array(matrix).T, 0, 1) ** (1 / 2.2) * 255
        distances = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1e9 * np.eye(len(seen))
        assert distances.min() > 25


@pytest.mark.parametrize("color", IDENTITY_COLORS)
def test_text_stands_out_from_its_background(color):
    def luminance(value):
        channels = rgb(value) / 255
        return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ (
            0.2126,
            0.7152,
            0.0722,
        )

    light, dark = sorted([luminance(color), luminance(text_color(color))], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2, level AA


def test_the_frame_itself_is_not_changed():
    result = result_with([[10, 40, 60, 100]])
    drawn(result)
    assert (result.frame == 100).all()


@pytest.mark.parametrize(
    "box",
    [[-200, -200, -100, -100], [400, 50, 500, 100], [50, 300, 90, 400], [np.nan, 0, 10, 10], [np.inf, 0, np.inf, 10]],
)
def test_box_wholly_outside_the_frame_draws_nothing(box):
    assert (drawn(result_with([box])) == 100).all()


def test_box_partly_outside_is_drawn_where_it_is_inside():
    picture = drawn(result_with([[-1e6, -1e6, 60, 1e6]]))
    np.testing.assert_array_equal(picture[120, 60], rgb(identity_color(1)))
    assert (picture[:, 100:] == 100).all()


@pytest.mark.parametrize(("height", "width"), [(16, 16), (48, 64), (97, 63), (1080, 1920), (2160, 3840), (1920, 1080)])
def test_frames_of_any_size_keep_their_size_and_show_something(height, width):
    clip = np.array([0.8, 0.1, 0.1], np.float32)
    box = [0.3 * width, 0.4 * height, 0.6 * width, 0.9 * height]
    result = result_with([box], height, width, actions=clip[None], clip=clip)
    picture = drawn(result)
    assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
    assert (picture != 100).any()


def test_type_and_lines_grow_with_the_frame():
    small, large = FrameAnnotator(240, 320), FrameAnnotator(2160, 3840)
    assert 9 <= small.font_size < 12 and large.font_size > 36
    assert small.thickness < large.thickness


def test_labels_shorten_with_the_box_and_say_uncertain():
    annotator = FrameAnnotator(240, 320, action_names=NAMES, action_threshold=0.5)
    sure, unsure = np.array([[0.1, 0.1, 0.8]]), np.array([[0.4, 0.3, 0.3]])
    wide, narrow = result_with([[0, 0, 300, 90]], actions=sure), result_with([[0, 0, 20, 90]], actions=sure)
    assert annotator._label(wide, 0, 300) == "#1 swing baseball 80%"
    assert annotator._label(narrow, 0, 20) == "#1 swing baseball"
    assert annotator._label(result_with([[0, 0, 9, 9]], actions=unsure), 0, 300) == "#1 uncertain"
    assert annotator._label(result_with([[0, 0, 9, 9]], actions=unsure), 0, 9) == "#1 ?"
    assert annotator._label(result_with([[0, 0, 9, 9]]), 0, 9) == "#1"


def test_labels_of_neighbours_do_not_cover_each_other():
    annotator = FrameAnnotator(240, 320, action_names=NAMES)
    result = result_with([[100, 100, 140, 200], [110, 102, 150, 205], [120, 98, 160, 202]])
    shown, names = annotator._visible(result, 240, 320)
    places = annotator._label_places(shown, names, 240, 320).xyxy
    line = annotator.font_size
    for first in range(3):
        for second in range(first):
            apart = abs(places[first, 1] - places[second, 1]) >= line
            assert apart or places[first, 2] <= places[second, 0] or places[second, 2] <= places[first, 0]


def test_label_at_the_right_edge_moves_inside():
    actions = np.array([[0.1, 0.1, 0.8]])
    picture = drawn(result_with([[312, 100, 330, 200]], actions=actions))
    assert (picture[85:100, 250:300] != 100).any()


def test_banner_tells_the_clips_action_and_groups():
    annotator = FrameAnnotator(
        240, 320, action_names=NAMES, action_threshold=0.6, group_names={"fight": ["noFight", "fight"]}
    )
    groups = {"fight": np.array([0.9, 0.1])}
    sure = result_with([], clip=np.array([0.7, 0.2, 0.1]), groups=groups)
    assert annotator.banner_text(sure) == "walk 70%  |  fight: no fight 90%"
    unsure = result_with([], clip=np.array([0.4, 0.3, 0.3]), groups={"fight": np.array([0.45, 0.55])})
    assert annotator.banner_text(unsure) == "uncertain (walk 40%)  |  fight: uncertain (fight 55%)"
    assert (drawn(sure, annotator)[:24, :100] != 100).any()


def test_trace_follows_the_feet_and_is_forgotten_after_two_seconds():
    annotator = FrameAnnotator(240, 320, frame_rate=10)
    for step in range(10):
        picture = drawn(result_with([[10 + 20 * step, 50, 40 + 20 * step, 150]]), annotator)
    color = rgb(identity_color(1))
    assert (picture[150, 40:180] == color).all(-1).mean() > 0.8
    for step in range(25):
        picture = drawn(result_with([[200, 50 + step, 230, 150 + step]]), annotator)
    assert not (picture[150, 40:150] == color).all(-1).any()


def test_uniform_attention_shows_no_pattern_and_a_peak_shows_where_it_is():
    frame = np.full((64, 96, 3), 128, np.uint8)
    flat = overlay_attention(frame, np.full((4, 6), 1 / 24))
    assert np.ptp(flat.reshape(-1, 3), axis=0).max() == 0
    peaked = np.full((4, 6), 0.2 / 23)
    peaked[1, 4] = 0.8
    warm = overlay_attention(frame, peaked).astype(int)
    row, column = np.unravel_index((warm[..., 0] - warm[..., 2]).argmax(), (64, 96))
    assert 16 <= row < 32 and 64 <= column < 80
