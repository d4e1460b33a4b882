"""Temperature and thresholds: right on data whose answer is known."""

import numpy as np
import pytest
from kinetrack.hub_scripts.calibrate import fit_temperature, precision_threshold
from scipy.special import log_softmax


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_of_overconfident_logits_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 5)) * 2
    honest = np.exp(log_softmax(logits, axis=-1))
    targets = np.array([rng.choice(5, p=row) for row in honest])
    assert fit_temperature(logits * temperature, targets) == pytest.approx(temperature, rel=0.08)


def test_threshold_is_the_lowest_that_keeps_the_precision():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    probabilities = np.stack([confidence, 1 - confidence - 0.01, np.full(5, 0.01)], axis=1)
    targets = np.array([0, 0, 1, 0, 2])  # right, right, wrong, right, wrong
    threshold, answered = precision_threshold(probabilities, targets, 0.75)
    assert (threshold, answered) == (0.6, 0.8)


def test_threshold_where_nothing_is_precise_enough_keeps_only_the_surest():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    assert precision_threshold(probabilities, np.array([1, 1]), 0.5) == (0.9, 0.5)
