"""Motion of boxes between frames: many constant-velocity Kalman filters stepped as one array operation.

The model is the one of SORT (arXiv 1602.00763) and BoT-SORT (arXiv 2206.14651, the box's own width and height as
state), with two changes:
time is in seconds, so that a gap in the video or a change of frame rate is a longer prediction and not a different
filter;
and the four coordinates, whose noises are independent, are four filters of two states each. The 8×8 covariance of the
papers is
then block diagonal at all times and only its 12 distinct numbers are kept; the result is the same, not an
approximation.
"""

from dataclasses import dataclass

import numpy as np


def xyxy_to_cxcywh(boxes: np.ndarray) -> np.ndarray:
    """Corners to centre and size; `(N, 4)` to `(N, 4)`, pixels."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def cxcywh_to_xyxy(boxes: np.ndarray) -> np.ndarray:
    """Centre and size to corners; `(N, 4)` to `(N, 4)`, pixels. A negative size counts as zero."""
    half = np.maximum(boxes[:, 2:], 0.0) / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


@dataclass(frozen=True)
class BoxMotion:
    """Noise of the constant-velocity model, relative to the size of each box (the root of its area).

    Attributes:
        measurement_noise: standard deviation of a detector's box coordinate, in box sizes.
        position_noise: random walk of the coordinates, in box sizes per square root of a second.
        velocity_noise: random walk of the velocities, in box sizes per second per square root of a second.
        initial_velocity: standard deviation of the unknown velocity of a new track, in box sizes per second.
    """

    measurement_noise: float = 0.05
    position_noise: float = 0.2
    velocity_noise: float = 1.0
    initial_velocity: float = 2.0

    def initiate(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Start one filter per box.

        Args:
            boxes: `(N, 4)` xyxy, pixels.

        Returns:
            `mean (N, 8)`: centre x, centre y, width, height in pixels and their velocities in pixels per second;
            `covariance (N, 3, 4)`: for each coordinate the variance of the position, its covariance with the velocity,
            and
            the variance of the velocity.
        """
        mean = np.zeros((len(boxes), 8))
        mean[:, :4] = xyxy_to_cxcywh(boxes)
        covariance = np.zeros((len(boxes), 3, 4))
        size = _box_size(mean)
        covariance[:, 0] = np.square(self.measurement_noise * size)
        covariance[:, 2] = np.square(self.initial_velocity * size)
        return mean, covariance

    def predict(self, mean: np.ndarray, covariance: np.ndarray, seconds) -> tuple[np.ndarray, np.ndarray]:
        """Move every filter forward in time.

        With `F = [[1, t], [0, 1]]` and continuous white noise on position (`a`) and velocity (`b`) per coordinate:
        `P ← F P Fᵀ + [[a t + b t³/3, b t²/2], [b t²/2, b t]]`. Two steps of half the time equal one step.

        Args:
            mean: `(N, 8)`.
            covariance: `(N, 3, 4)`.
            seconds: elapsed time, one number or `(N, 1)`.

        Returns:
            The new `mean (N, 8)` and `covariance (N, 3, 4)`.
        """
        size = _box_size(mean)
        walk = np.square(self.position_noise * size)  # (N, 1)
        drift = np.square(self.velocity_noise * size)  # (N, 1)
        moved = mean.copy()
        moved[:, :4] += seconds * mean[:, 4:]
        position, cross, velocity = covariance[:, 0], covariance[:, 1], covariance[:, 2]  # (N, 4) each
        grown = np.empty_like(covariance)
        grown[:, 0] = position + 2 * seconds * cross + seconds**2 * velocity + walk * seconds + drift * seconds**3 / 3
        grown[:, 1] = cross + seconds * velocity + drift * seconds**2 / 2
        grown[:, 2] = velocity + drift * seconds
        # A box that shrinks through zero would come out the other side with a negative size.
        moved[:, 2:4] = np.maximum(moved[:, 2:4], 0.25 * np.maximum(mean[:, 2:4], 0.0))
        return moved, grown

    def update(self, mean: np.ndarray, covariance: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correct every filter with its own observed box.

        Args:
            mean: `(N, 8)`.
            covariance: `(N, 3, 4)`.
            boxes: `(N, 4)` xyxy, pixels; row n belongs to filter n.

        Returns:
            The new `mean (N, 8)` and `covariance (N, 3, 4)`.
        """
        position, cross, velocity = covariance[:, 0], covariance[:, 1], covariance[:, 2]  # (N, 4) each
        noise = np.square(self.measurement_noise * _box_size(mean))  # (N, 1)
        gain = position / (position + noise)  # (N, 4)
        velocity_gain = cross / (position + noise)
        innovation = xyxy_to_cxcywh(boxes) - mean[:, :4]
        corrected = np.concatenate([mean[:, :4] + gain * innovation, mean[:, 4:] + velocity_gain * innovation], axis=1)
        shrunk = np.empty_like(covariance)
        shrunk[:, 0] = gain * noise  # equal to (1 − gain) · position, without its cancellation
        shrunk[:, 1] = (1 - gain) * cross
        shrunk[:, 2] = velocity - velocity_gain * cross
        return corrected, shrunk

    def rejoin(
        self,
        mean: np.ndarray,
        covariance: np.ndarray,
        last_boxes: np.ndarray,
        boxes: np.ndarray,
        seconds: np.ndarray,
        steps: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Observation-centric re-update after an occlusion (OC-SORT, arXiv 2203.14360, section 4.1).

        A filter that has run blind carries the error of its last velocity. From the state at the last observation it
        is run
        again along the straight line to the new one, as if the object had been seen on the way.

        Args:
            mean: `(N, 8)`, as it was after the last observation.
            covariance: `(N, 3, 4)`, likewise.
            last_boxes: `(N, 4)` xyxy of the last observation.
            boxes: `(N, 4)` xyxy of the new observation.
            seconds: `(N, 1)`, time between the two.
            steps: number of equal steps on the way; the last one is the new observation.

        Returns:
            `mean (N, 8)` and `covariance (N, 3, 4)` at the time of the new observation.
        """
        for step in range(1, steps + 1):
            share = step / steps
            mean, covariance = self.predict(mean, covariance, seconds / steps)
            mean, covariance = self.update(mean, covariance, (1 - share) * last_boxes + share * boxes)
        return mean, covariance

    def distance(self, mean: np.ndarray, covariance: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of the centres; `(M, 8), (M, 3, 4), (N, 4)` to `(M, N)`."""
        noise = np.square(self.measurement_noise * _box_size(mean))  # (M, 1)
        spread = covariance[:, 0, :2] + noise  # (M, 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2  # (N, 2)
        away_x = np.square(centres[None, :, 0] - mean[:, None, 0]) / spread[:, None, 0]
        away_y = np.square(centres[None, :, 1] - mean[:, None, 1]) / spread[:, None, 1]
        return away_x + away_y


def _box_size(mean: np.ndarray) -> np.ndarray:
    """Root of the area, at least one pixel; `(N, 8)` to `(N, 1)`."""
    return np.sqrt(np.maximum(mean[:, 2:3] * mean[:, 3:4], 1.0))
