"""Pixels and boxes of an augmented clip go the same way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from kinetrack.hub_scripts.data.augmentation import (
    ClipForm,
    Window,
    centred_frames,
    draw_colours,
    draw_frames,
    draw_window,
    render,
    whole_window,
)
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor

FORM = ClipForm(num_frames=4, canvas=(96, 128), scale=(0.4, 1.6))


def picture_with(box, height=150, width=200, frames=1) -> np.ndarray:
    """A dark picture with one bright rectangle."""
    picture = np.full((frames, height, width, 3), 30, np.uint8)
    x1, y1, x2, y2 = box
    picture[:, y1:y2, x1:x2] = 230
    return picture


def bright_extent(image: torch.Tensor) -> tuple[float, float, float, float]:
    """Corners of what is bright in (3, H, W), to a part of a pixel: a cut pixel counts by its brightness."""
    low, high = 2 * 30 / 255 - 1, 2 * 230 / 255 - 1
    share = ((image.mean(0) - low) / (high - low)).clamp(0, 1)
    columns, rows = share.amax(0), share.amax(1)
    x = int((columns > 0.5).nonzero()[0]), int((columns > 0.5).nonzero()[-1]) + 1
    y = int((rows > 0.5).nonzero()[0]), int((rows > 0.5).nonzero()[-1]) + 1
    return x[0], y[0], x[1], y[1]


@pytest.mark.parametrize("seed", range(12))
def test_a_box_follows_its_pixels(seed):
    box = (70, 50, 110, 100)
    rng = np.random.default_rng(seed)
    window = draw_window(FORM, rng, 150, 200, np.array(box, np.float32))
    left, top, right, bottom = window.source
    pixels, mask = render(FORM, picture_with(box)[:, top:bottom, left:right], window)
    moved = window.map_boxes(np.array([box], np.float32))[0]
    limit = np.array([window.size[1], window.size[0]] * 2)
    np.testing.assert_allclose(bright_extent(pixels[0]), np.clip(moved, 0, limit), atol=1.01)
    assert mask[: window.size[0], : window.size[1]].all() and mask.sum() == window.size[0] * window.size[1]
    assert (pixels[:, :, ~mask] == 0).all() and (pixels[1:] == 0).all()


def test_both_mirrorings_and_scales_up_and_down_are_drawn():
    windows = [draw_window(FORM, np.random.default_rng(seed), 150, 200) for seed in range(200)]
    assert {window.flip for window in windows} == {False, True}
    scales = np.array([window.size[1] / (window.source[2] - window.source[0]) for window in windows])
    assert scales.min() < 0.45 and scales.max() > 1.5
    assert abs(np.median(np.log(scales)) - np.log(0.8)) < 0.15  # log-uniform between 0.4 and 1.6
    assert all(0 <= w.source[0] < w.source[2] <= 200 and 0 <= w.source[1] < w.source[3] <= 150 for w in windows)
    assert all(w.size[0] <= 96 and w.size[1] <= 128 for w in windows)


def test_the_window_holds_the_box_it_shall_hold():
    form = replace(FORM, scale=(1.0, 1.2))
    focus = np.array([10, 60, 60, 120], np.float32)
    for seed in range(50):
        window = draw_window(form, np.random.default_rng(seed), 150, 200, focus)
        assert window.visible_share(window.map_boxes(focus[None]))[0] > 0.99
    beyond = np.array([-40, -40, 400, 400], np.float32)  # larger than the frame: any place will do
    assert draw_window(form, np.random.default_rng(0), 150, 200, beyond).source[0] >= 0


def test_mirroring_twice_is_no_mirroring():
    box = np.array([[5, 10, 40, 60], [-10, 0, 20, 300]], np.float32)
    plain, mirrored = (Window((0, 0, 100, 80), (40, 50), flip) for flip in (False, True))
    once = mirrored.map_boxes(box)
    assert (once[:, 0] <= once[:, 2]).all()
    np.testing.assert_allclose(50 - once[:, [2, 0]], plain.map_boxes(box)[:, [0, 2]])


def test_share_of_a_box_within_the_content():
    window = Window((0, 0, 100, 100), (100, 100))
    boxes = np.array([[10, 10, 20, 20], [-10, 0, 10, 20], [-30, 0, 10, 20], [200, 0, 220, 5]], np.float32)
    np.testing.assert_allclose(window.visible_share(boxes), [1, 0.5, 0.25, 0], atol=1e-6)


def test_all_frames_of_a_clip_change_colour_alike():
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8), 4, axis=0)
    window = Window((0, 0, 128, 96), (96, 128))
    pixels, _ = render(FORM, frames, window, np.random.default_rng(1))
    plain, _ = render(FORM, frames, window)
    assert (pixels == pixels[:1]).all()
    assert (pixels - plain).abs().mean() > 0.01
    assert pixels.min() >= -1 and pixels.max() <= 1


def test_changed_colours_keep_grey_grey_and_stay_near():
    grey = torch.full((3,), 0.5)
    for seed in range(50):
        matrix, offset = draw_colours(FORM, np.random.default_rng(seed), 0.5)
        changed = matrix @ grey + offset
        assert changed.std() < 1e-3  # neither hue nor saturation tints grey
        assert 0.5 * 0.7 * 0.99 < changed.mean() < 0.5 * 1.3 * 1.01  # contrast turns about the clip's own mean
    none = replace(FORM, brightness=0, contrast=0, saturation=0, hue=0, grayscale=0)
    matrix, offset = draw_colours(none, np.random.default_rng(0), 0.5)
    torch.testing.assert_close(matrix, torch.eye(3), atol=1e-5, rtol=0)
    assert (offset == 0).all()


@pytest.mark.parametrize(("frame_rate", "length"), [(30, 600), (30, 40), (10, 145), (14, 354), (30, 9), (12, 30)])
def test_drawn_moments_lie_within_the_video_at_an_allowed_rate(frame_rate, length):
    form = ClipForm(num_frames=8, frame_rate=(6, 30))
    for seed in range(40):
        frames = draw_frames(
            form, np.random.default_rng(seed), 100, 100 + length, frame_rate, anchor=100 + seed % length
        )
        assert len(frames) == 8
        assert frames.min() >= 100 and frames.max() < 100 + length
        assert (np.diff(frames) >= 1).all()  # no moment twice
        assert (frames[-1] - frames[0]) / frame_rate <= 7 / 6 + 2 / frame_rate
        assert frames[0] - 1 <= 100 + seed % length <= frames[-1] + 1


def test_a_video_shorter_than_the_clip_gives_what_it_has():
    form = ClipForm(num_frames=8, frame_rate=(6, 30))
    assert draw_frames(form, np.random.default_rng(0), 0, 5, 30).tolist() == [0, 1, 2, 3, 4]
    assert draw_frames(form, np.random.default_rng(0), 0, 1, 30).tolist() == [0]
    at_12_5 = replace(form, frame_rate=(12.5, 12.5), num_frames=16)
    assert len(centred_frames(at_12_5, 0, 15, 30)) == 6  # 14/30 s hold 5.8 steps of 1/12.5 s
    assert centred_frames(at_12_5, 0, 1, 30).tolist() == [0]


def test_evaluation_moments_are_even_and_centred():
    form = ClipForm(num_frames=8, frame_rate=(10, 10))
    assert centred_frames(form, 0, 40, 30).tolist() == [9, 12, 15, 18, 21, 24, 27, 30]
    assert centred_frames(form, 0, 40, 30, centre=0).tolist()[0] == 0
    assert centred_frames(form, 0, 40, 30, centre=39).tolist()[-1] == 39


@pytest.mark.parametrize(
    ("height", "width", "canvas"), [(60, 90, (96, 128)), (270, 480, (96, 128)), (97, 131, (64, 64))]
)
def test_evaluation_pixels_are_those_of_the_video_processor(height, width, canvas):
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    form = ClipForm(num_frames=2, canvas=canvas)
    pixels, mask = render(form, frames, whole_window(form, height, width))
    processor = KineTrackVideoProcessor(size={"height": canvas[0], "width": canvas[1]})
    expected = processor([frames], return_tensors="pt", do_sample_frames=False)
    torch.testing.assert_close(pixels, expected["pixel_values_videos"][0], atol=2 / 255, rtol=0)
    assert (mask == expected["pixel_mask"][0]).all()


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        ClipForm(canvas=(100, 128))
    with pytest.raises(ValueError, match="num_frames=0"):
        ClipForm(num_frames=0)
    with pytest.raises(ValueError, match="scale"):
        ClipForm(scale=(1.5, 0.5))
