"""One answer for a video of any length: which ticks end a window, and what their mean is."""

import numpy as np
import pytest
from kinetrack.processing.clip_score_kinetrack import ClipScore


def answers(count):
    """(count, 2) probabilities, all different."""
    first = np.linspace(0.1, 0.9, count, dtype=np.float32)
    return np.stack([first, 1 - first], axis=1)


def spans(score):
    return [(window.begin, window.end) for window in score.windows()]


@pytest.mark.parametrize(
    ("window", "ticks", "expected"),
    [
        (4, 0, []),
        (4, 1, [(0, 1)]),  # all there is, however short
        (4, 4, [(0, 4)]),
        (4, 5, [(0, 4)]),  # a rest of less than half a window does not count
        (4, 6, [(0, 4), (4, 6)]),
        (4, 8, [(0, 4), (4, 8)]),
        (5, 7, [(0, 5)]),
        (5, 8, [(0, 5), (5, 8)]),
        (1, 3, [(0, 1), (1, 2), (2, 3)]),
        (None, 7, [(0, 7)]),
    ],
)
def test_windows_end_every_so_many_ticks_and_a_long_rest_counts(window, ticks, expected):
    score = ClipScore(window)
    rows = answers(ticks)
    for row in rows:
        score.add(row, {"fight": row[::-1]})
    assert spans(score) == expected
    if expected:
        ends = [end - 1 for _, end in expected]
        found = score.mean()
        np.testing.assert_array_equal(found["actions"], rows[ends].mean(0))
        np.testing.assert_array_equal(found["fight"], rows[ends, ::-1].mean(0))
    else:
        assert score.mean() is None


def test_asking_early_does_not_end_a_window():
    asked, silent = ClipScore(4), ClipScore(4)
    for row in answers(11):
        asked.add(row)
        asked.windows()
        silent.add(row)
    assert spans(asked) == spans(silent) == [(0, 4), (4, 8), (8, 11)]
    np.testing.assert_array_equal(asked.mean()["actions"], silent.mean()["actions"])


def test_the_newest_answer_of_a_window_stands():
    rows = answers(8)
    score = ClipScore(4)
    for row in (rows[0], rows[1], None, None, None, None, None, None, rows[2], None):
        score.add(row)
    # Seen in the first window and in the last; the one between has nothing to say.
    assert spans(score) == [(0, 4), (8, 10)]
    np.testing.assert_array_equal(score.mean()["actions"], rows[[1, 2]].mean(0))


def test_ticks_without_any_answer_give_none():
    score = ClipScore(4)
    for _ in range(6):
        score.add(None)
    assert score.windows() == [] and score.mean() is None and score.num_ticks == 6
