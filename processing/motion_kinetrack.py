"""Motion of boxes between frames: many constant-velocity Kalman filters stepped as one array operation.

The model is the one of SORT (arXiv 1602.00763) with the box's own width and height as state (BoT-SORT, arXiv
2206.14651) and two changes. Time is in seconds, so that a gap in the video or a change of frame rate is a longer
prediction and not a different filter. And the four coordinates, whose noises are independent, are four filters of two
states each: the 8×8 covariance of the papers is then block diagonal at all times and only its 12 distinct numbers are
kept. The result is the same, not an approximation.
"""

from dataclasses import dataclass

import numpy as np


def xyxy_to_cxcywh(boxes: np.ndarray) -> np.ndarray:
    """Corners to centre and size; `(N, 4)` to `(N, 4)`, pixels."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=1)


def cxcywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """Centre and size to corners; `(N, 4)` to `(N, 4)`, pixels."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


@dataclass(frozen=True)
class BoxMotion:
    """Noise of the constant-velocity model, relative to the size of each box (the root of its area).

    The defaults lie within what public detections of the MOTChallenge training sequences measure against their ground
    truth: centres off by 0.02 to 0.08 box sizes, widths and heights by 0.04 to 0.2.

    Attributes:
        measurement_noise: standard deviation of a detected centre, in box sizes.
        size_noise: standard deviation of a detected width or height, in box sizes.
        position_noise: random walk of the centre, in box sizes per square root of a second.
        velocity_noise: random walk of its velocity, in box sizes per second per square root of a second.
        initial_velocity: standard deviation of the unknown velocity of a new track, in box sizes per second.
        size_motion: the last three for width and height, as a share of those for the centre.
        doubt: how much further off a detection of score s is, as a factor `1 + doubt · (1 − s)` on both detection
            noises
            (the idea of NSA Kalman in GIAOTracker, arXiv 2202.11983).
    """

    measurement_noise: float = 0.05
    size_noise: float = 0.1
    position_noise: float = 0.2
    velocity_noise: float = 0.5
    initial_velocity: float = 2.0
    size_motion: float = 0.5
    doubt: float = 1.0

    def __post_init__(self):
        share = np.array([1.0, 1.0, self.size_motion, self.size_motion])
        detection = np.array([self.measurement_noise] * 2 + [self.size_noise] * 2)
        # Squared once, here; frozen, so by the back door.
        object.__setattr__(self, "_detection", np.square(detection))
        object.__setattr__(self, "_walk", np.square(self.position_noise * share))
        object.__setattr__(self, "_drift", np.square(self.velocity_noise * share))
        object.__setattr__(self, "_start", np.square(self.initial_velocity * share))

    def initiate(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start one filter per box.

        Args:
            boxes: `(N, 4)` xyxy, pixels.

        Returns:
            `mean (N, 8)`: centre x, centre y, width, height in pixels and their velocities in pixels per second;
            `covariance (N, 3, 4)`: for each coordinate the variance of the position, its covariance with the velocity,
            and the variance of the velocity.
        """
        mean = np.zeros((len(boxes), 8))
        mean[:, :4] = xyxy_to_cxcywh(boxes)
        covariance = np.zeros((len(boxes), 3, 4))
        area = _area(mean)
        covariance[:, 0] = area * self._detection
        covariance[:, 2] = area * self._start
        return mean, covariance

    def predict(self, mean: np.ndarray, covariance: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Move every filter forward in time.

        With `F = [[1, t], [0, 1]]` and continuous white noise on position (`a`) and velocity (`b`) per coordinate:
        `P ← F P Fᵀ + [[a t + b t³/3, b t²/2], [b t²/2, b t]]`.

        Args:
            mean: `(N, 8)`.
            covariance: `(N, 3, 4)`.
            seconds: elapsed time.

        Returns:
            The new `mean (N, 8)` and `covariance (N, 3, 4)`.
        """
        area = _area(mean)
        moved = mean.copy()
        moved[:, :4] += seconds * mean[:, 4:]
        # A box that shrinks through zero would come out the other side with a negative size.
        moved[:, 2:4] = np.maximum(moved[:, 2:4], 0.25 * mean[:, 2:4])
        grown = covariance.copy()
        grown[:, 0] += seconds * (2 * covariance[:, 1] + seconds * covariance[:, 2])
        grown[:, 0] += area * (seconds * self._walk + seconds**3 / 3 * self._drift)
        grown[:, 1] += seconds * covariance[:, 2] + area * (seconds**2 / 2 * self._drift)
        grown[:, 2] += area * (seconds * self._drift)
        return moved, grown

    def lose_sight(self, mean: np.ndarray, covariance: np.ndarray, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Every filter after a time in which nothing could be seen: at the same place, its velocity unknown again.

        Arguments and what is returned as for `predict`.
        """
        still = mean.copy()
        still[:, 4:] = 0.0
        still, widened = self.predict(still, self._with_unknown_velocity(mean, covariance), seconds)
        return still, self._with_unknown_velocity(mean, widened)

    def _with_unknown_velocity(self, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """`covariance (N, 3, 4)` as if every velocity were that of a new filter."""
        forgotten = covariance.copy()
        forgotten[:, 1] = 0.0
        forgotten[:, 2] = _area(mean) * self._start
        return forgotten

    def update(
        self, mean: np.ndarray, covariance: np.ndarray, boxes: np.ndarray, scores: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Correct every filter with its own observed box.

        Args:
            mean: `(N, 8)`.
            covariance: `(N, 3, 4)`.
            boxes: `(N, 4)` xyxy, pixels; row n belongs to filter n.
            scores: `(N,)` of the boxes, between 0 and 1.

        Returns:
            The new `mean (N, 8)` and `covariance (N, 3, 4)`.
        """
        position, cross = covariance[:, 0], covariance[:, 1]  # (N, 4) each
        doubt = np.square(1 + self.doubt * np.maximum(1 - scores, 0.0))[:, None]  # (N, 1)
        noise = _area(mean) * doubt * self._detection  # (N, 4)
        total = position + noise
        gain, velocity_gain = position / total, cross / total
        innovation = xyxy_to_cxcywh(boxes) - mean[:, :4]
        corrected = mean.copy()
        corrected[:, :4] += gain * innovation
        corrected[:, 4:] += velocity_gain * innovation
        shrunk = covariance.copy()
        shrunk[:, 0] = gain * noise  # equal to (1 − gain) · position, without its cancellation
        shrunk[:, 1] -= gain * cross
        shrunk[:, 2] -= velocity_gain * cross
        return corrected, shrunk

    def distance(self, mean: np.ndarray, covariance: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of the centres; `(M, 8), (M, 3, 4), (N, 4)` to `(M, N)`."""
        spread = covariance[:, 0, :2] + _area(mean) * self._detection[:2]  # (M, 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2)
        away = np.square(centres[None] - mean[:, None, :2]) / spread[:, None]  # (M, N, 2)
        return away.sum(axis=-1)


def _area(mean: np.ndarray) -> np.ndarray:
    """Area of each box, at least one pixel; `(N, 8)` to `(N, 1)`."""
    return np.maximum(mean[:, 2:3] * mean[:, 3:4], 1.0)
