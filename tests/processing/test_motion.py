"""The batched motion model against the textbook's dense Kalman filter."""

import numpy as np
import pytest
from kinetrack.processing.motion_kinetrack import BoxMotion, cxcywh_to_xyxy, xyxy_to_cxcywh

BOXES = np.array([[10.0, 20.0, 50.0, 140.0], [-30.0, 5.0, 15.0, 60.0], [400.0, 300.0, 424.0, 349.0]])


def dense_covariance(packed):
    """(3, 4) variances as the 8×8 matrix of the papers."""
    full = np.zeros((8, 8))
    for k in range(4):
        full[k, k], full[k + 4, k + 4] = packed[0, k], packed[2, k]
        full[k, k + 4] = full[k + 4, k] = packed[1, k]
    return full


def dense_noise(motion, mean, seconds):
    size = np.sqrt(max(mean[2] * mean[3], 1.0))
    share = np.array([1, 1, motion.size_motion, motion.size_motion])
    walk, drift = (motion.position_noise * share * size) ** 2, (motion.velocity_noise * share * size) ** 2
    noise = np.zeros((8, 8))
    for k in range(4):
        noise[k, k] = walk[k] * seconds + drift[k] * seconds**3 / 3
        noise[k, k + 4] = noise[k + 4, k] = drift[k] * seconds**2 / 2
        noise[k + 4, k + 4] = drift[k] * seconds
    return noise


def test_equals_a_dense_filter():
    motion = BoxMotion()
    rng = np.random.default_rng(0)
    mean, packed = motion.initiate(BOXES)
    dense_mean, dense = mean.copy(), [dense_covariance(row) for row in packed]
    look = np.eye(4, 8)
    for _ in range(25):
        seconds = rng.uniform(0.01, 0.3)
        observed = BOXES + rng.normal(0, 2, BOXES.shape)
        scores = rng.uniform(0.2, 1.0, len(BOXES))
        step = np.eye(8) + seconds * np.eye(8, k=4)
        for n in range(len(BOXES)):
            dense[n] = step @ dense[n] @ step.T + dense_noise(motion, dense_mean[n], seconds)
            dense_mean[n] = step @ dense_mean[n]
            size = np.sqrt(max(dense_mean[n][2] * dense_mean[n][3], 1.0)) * (1 + motion.doubt * (1 - scores[n]))
            noise = np.diag([motion.measurement_noise] * 2 + [motion.size_noise] * 2) ** 2 * size**2
            gain = dense[n] @ look.T @ np.linalg.inv(look @ dense[n] @ look.T + noise)
            dense_mean[n] = dense_mean[n] + gain @ (xyxy_to_cxcywh(observed[n : n + 1])[0] - look @ dense_mean[n])
            dense[n] = (np.eye(8) - gain @ look) @ dense[n]
        mean, packed = motion.update(*motion.predict(mean, packed, seconds), observed, scores)
    np.testing.assert_allclose(mean, dense_mean, rtol=1e-9, atol=1e-9)
    for n in range(len(BOXES)):
        np.testing.assert_allclose(dense_covariance(packed[n]), dense[n], rtol=1e-8, atol=1e-12)


def test_two_short_steps_equal_one_long_step():
    motion = BoxMotion()
    mean, covariance = motion.initiate(BOXES)
    mean[:, 4:6] = 30.0
    once = motion.predict(mean, covariance, 0.4)
    twice = motion.predict(*motion.predict(mean, covariance, 0.1), 0.3)
    np.testing.assert_allclose(twice[0], once[0])
    np.testing.assert_allclose(twice[1], once[1])


def test_a_box_never_shrinks_through_zero():
    motion = BoxMotion()
    mean, covariance = motion.initiate(BOXES)
    mean[:, 6:] = -500.0
    for _ in range(50):
        mean, covariance = motion.predict(mean, covariance, 0.1)
    assert (mean[:, 2:4] > 0).all()
    corners = cxcywh_to_xyxy(mean[:, :4])
    assert (corners[:, 2:] >= corners[:, :2]).all()


def test_variances_stay_positive_and_bounded_for_ever():
    motion = BoxMotion()
    mean, covariance = motion.initiate(BOXES)
    scores = np.ones(len(BOXES))
    for _ in range(5000):
        mean, covariance = motion.update(*motion.predict(mean, covariance, 1 / 30), BOXES, scores)
    assert (covariance[:, 0] > 0).all() and (covariance[:, 2] > 0).all()
    assert (covariance[:, 0] * covariance[:, 2] >= covariance[:, 1] ** 2).all()
    np.testing.assert_allclose(cxcywh_to_xyxy(mean[:, :4]), BOXES, atol=1e-6)


def test_learns_a_constant_velocity():
    motion = BoxMotion()
    mean, covariance = motion.initiate(BOXES[:1])
    for frame in range(1, 60):
        moved = BOXES[:1] + np.array([60.0, 0.0, 60.0, 0.0]) * frame / 30
        mean, covariance = motion.update(*motion.predict(mean, covariance, 1 / 30), moved, np.ones(1))
    assert mean[0, 4] == pytest.approx(60.0, abs=1.0)


def test_a_doubtful_detection_moves_a_track_less():
    motion = BoxMotion()
    start = motion.predict(*motion.initiate(BOXES), 0.1)
    shifted = BOXES + 5.0
    sure, _ = motion.update(*start, shifted, np.ones(3))
    doubtful, _ = motion.update(*start, shifted, np.full(3, 0.2))
    assert (np.abs(doubtful[:, :2] - start[0][:, :2]) < np.abs(sure[:, :2] - start[0][:, :2])).all()


def test_distance_is_mahalanobis():
    motion = BoxMotion()
    mean, covariance = motion.predict(*motion.initiate(BOXES), 0.5)
    others = BOXES[:2] + 7.0
    ours = motion.distance(mean, covariance, others)
    for m in range(3):
        area = mean[m, 2] * mean[m, 3]
        spread = np.diag(covariance[m, 0, :2] + motion.measurement_noise**2 * area)
        for n in range(2):
            away = xyxy_to_cxcywh(others)[n, :2] - mean[m, :2]
            assert ours[m, n] == pytest.approx(away @ np.linalg.inv(spread) @ away)
