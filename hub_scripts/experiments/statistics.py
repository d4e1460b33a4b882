"""How sure a figure is: means with percentile intervals by bootstrap over clips and seeds (Efron, 1979).

Clips that were cut from one film are not independent, so whole films are drawn, not clips. Seeds are drawn as well.
With few seeds the interval covers their spread only roughly; the spread itself stands beside it in every table.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

DRAWS = 4000


@dataclass(frozen=True)
class Interval:
    """A figure and where it may lie.

    Attributes:
        mean: of what was measured.
        low, high: ends of the interval.
        level: its confidence, such as 0.95.
    """

    mean: float
    low: float
    high: float
    level: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval of a difference leaves no room for none."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)

    def brief(self, digits: int = 1) -> str:
        """Where the confidence was said before: `+2.1 (-0.4 to +4.6)`."""
        return f"{self.mean:+.{digits}f} ({self.low:+.{digits}f} to {self.high:+.{digits}f})"

    def judged(self, unit: str = "") -> str:
        """`brief` and whether that shows a difference: `+2.1 (-0.4 to +4.6) points, not shown`."""
        return f"{self.brief()}{unit and ' ' + unit}, {'shown' if self.excludes_zero else 'not shown'}"

    def text(self, unit: str = "points", digits: int = 1) -> str:
        """For a sentence: `+2.1 points (95 % interval -0.4 to +4.6)`."""
        percent = f"{100 * self.level:.4g} % interval"
        return f"{self.mean:+.{digits}f} {unit} ({percent} {self.low:+.{digits}f} to {self.high:+.{digits}f})"


def simultaneous_level(comparisons: int, level: float = 0.95) -> float:
    """The confidence each of several intervals needs so that all of them hold together (Bonferroni)."""
    return 1 - (1 - level) / max(comparisons, 1)


def bootstrap_mean(
    values: np.ndarray, groups: Sequence | None = None, level: float = 0.95, scale: float = 100.0
) -> Interval:
    """The mean of one variant.

    Args:
        values: `(S, N)`, one row a seed, one column a clip (or another unit of data).
        groups: `(N,)`, what a unit belongs to; units of a group are drawn together. None: each is its own.
        level: confidence.
        scale: what the mean is multiplied by; 100 makes shares per cent.
    """
    values = _checked(values, groups)
    units, rng = _draw_units(values.shape[1], groups)
    return _interval(values.mean(), _means(values, units, rng), level, scale)


def bootstrap_difference(
    first: np.ndarray, second: np.ndarray, groups: Sequence | None = None, level: float = 0.95, scale: float = 100.0
) -> Interval:
    """The mean of the first less that of the second, on the same units of data, seeds drawn for each.

    Args:
        first: `(S, N)`.
        second: `(S', N)`.
        groups: as for `bootstrap_mean`.
        level: confidence.
        scale: as for `bootstrap_mean`.

    Raises:
        ValueError: other numbers of units.
    """
    first, second = _checked(first, groups), _checked(second, groups)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"Two variants were measured on {first.shape[1]} and {second.shape[1]} units.")
    units, rng = _draw_units(first.shape[1], groups)
    draws = _means(first, units, rng) - _means(second, units, rng)
    return _interval(first.mean() - second.mean(), draws, level, scale)


def bootstrap_contrast(
    values: np.ndarray, marked: np.ndarray, groups: Sequence, level: float = 0.95, scale: float = 1.0
) -> Interval:
    """The mean where `marked` holds less the mean elsewhere, groups of units drawn together.

    Args:
        values: `(N,)`.
        marked: `(N,)` bool.
        groups: `(N,)`, such as stretches of a video, whose frames are not independent.
        level: confidence.
        scale: as for `bootstrap_mean`.

    Raises:
        ValueError: everything or nothing is marked.
    """
    values, marked = np.asarray(values, np.float64), np.asarray(marked, bool)
    if marked.all() or not marked.any():
        raise ValueError(f"{marked.sum()} of {len(marked)} units are marked: there is nothing to compare with.")
    units, _ = _draw_units(len(values), groups)
    with np.errstate(invalid="ignore"):  # draws without a marked unit say nothing
        draws = (units[:, marked] @ values[marked]) / units[:, marked].sum(1)
        draws = draws - (units[:, ~marked] @ values[~marked]) / units[:, ~marked].sum(1)
    mean = values[marked].mean() - values[~marked].mean()
    return _interval(mean, draws[np.isfinite(draws)], level, scale)


def share_by_unit(right: Sequence[bool], units: Sequence[int], count: int) -> list[float]:
    """Share right of each unit's appearances.

    Args:
        right: whether each appearance was right, `(M,)`.
        units: whose appearance it was, `(M,)`.
        count: N, number of units; each appears at least once.

    Returns:
        N shares, to four digits.
    """
    times = np.bincount(units, minlength=count)
    return np.round(np.bincount(units, weights=np.array(right, float), minlength=count) / times, 4).tolist()


def _checked(values: np.ndarray, groups: Sequence | None) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"Expected values of shape (seeds, units), got {values.shape}.")
    if groups is not None and len(groups) != values.shape[1]:
        raise ValueError(f"{len(groups)} groups for {values.shape[1]} units.")
    return values


def _draw_units(count: int, groups: Sequence | None) -> tuple[np.ndarray, np.random.Generator]:
    """How often each unit was drawn, `(DRAWS, N)`."""
    rng = np.random.default_rng(0)
    index = np.unique(np.arange(count) if groups is None else np.asarray(groups), return_inverse=True)[1]
    total = int(index.max()) + 1
    return rng.multinomial(total, np.full(total, 1 / total), size=DRAWS)[:, index], rng


def _means(values: np.ndarray, units: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    seeds = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=DRAWS) / len(values)  # (DRAWS, S)
    return ((seeds @ values) * units).sum(1) / units.sum(1)


def _interval(mean: float, draws: np.ndarray, level: float, scale: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(*(float(scale * value) for value in (mean, low, high)), level)
