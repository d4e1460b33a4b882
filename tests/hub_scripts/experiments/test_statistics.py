"""Intervals: against the analytic standard error, with films and seeds as what is drawn."""

import numpy as np
import pytest
from kinetrack.hub_scripts.experiments.statistics import bootstrap_difference, bootstrap_mean, simultaneous_level


def test_interval_of_one_seed_is_the_binomial_one():
    right = np.zeros((1, 400))
    right[0, :160] = 1
    interval = bootstrap_mean(right)
    half = 1.96 * 100 * np.sqrt(0.4 * 0.6 / 400)
    assert interval.mean == pytest.approx(40)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.08)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.08)


def test_clips_of_one_film_count_as_one():
    right = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 10)[None]
    films = np.repeat(np.arange(40), 10)
    alone, together = bootstrap_mean(right), bootstrap_mean(right, films)
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_seeds_that_disagree_widen_the_interval():
    agreeing = np.tile([1, 0], (4, 50))
    disagreeing = np.array([[1] * 100, [1] * 100, [0] * 100, [0] * 100])
    narrow, wide = bootstrap_mean(agreeing), bootstrap_mean(disagreeing)
    assert narrow.mean == wide.mean == 50
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_difference_is_paired_on_clips():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 2, (1, 200))
    second = first.copy()
    second[0, np.flatnonzero(first[0])[:10]] = 0  # ten clips lost, nothing else changed
    gap = bootstrap_difference(first, second)
    assert gap.mean == pytest.approx(5) and gap.excludes_zero
    assert gap.high - gap.low < bootstrap_mean(first).high - bootstrap_mean(first).low


def test_nothing_is_shown_by_no_difference():
    same = np.tile([1, 0, 0], (3, 30))
    assert not bootstrap_difference(same, same).excludes_zero


def test_several_comparisons_need_more_confidence_each():
    assert simultaneous_level(1) == pytest.approx(0.95)
    assert simultaneous_level(10) == pytest.approx(0.995)


def test_units_must_match():
    with pytest.raises(ValueError, match="3 and 4 units"):
        bootstrap_difference(np.ones((1, 3)), np.ones((1, 4)))
    with pytest.raises(ValueError, match="2 groups for 3 units"):
        bootstrap_mean(np.ones((1, 3)), ["a", "b"])
