"""What an experiment is: variants, seeds and minutes planned beforehand, cells that are run one by one, and a report.

A cell is one variant with one seed. Everything that a report says is computed from the cells' measures in
`results.json`, so that it can be written again without running anything, and so that a finding cannot say what was not
measured.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path

import numpy as np

from .statistics import Interval, bootstrap_difference, bootstrap_mean


@dataclass(frozen=True)
class Variant:
    """One side of a comparison.

    Attributes:
        about: what it is, in a line.
        minutes: planned for one cell on one core.
        most_seeds: how many say anything: 1 where nothing is drawn. None: as many as are asked for.
    """

    about: str
    minutes: float
    most_seeds: int | None = None

    def seeds(self, asked: int) -> int:
        """How many of so many seeds are run."""
        return asked if self.most_seeds is None else min(asked, self.most_seeds)


@dataclass(frozen=True)
class Inputs:
    """What an experiment reads.

    Attributes:
        data: root with `mot/` and `actions/`.
        weights: ImageNet weights of EfficientNet-Lite0, for experiments that train.
        model: a KineTrack model, for experiments that do not.
        cache: folder for features and detections.
        quick: a run of seconds whose figures mean nothing, to see that everything works.
    """

    data: Path
    weights: Path | None
    model: str
    cache: Path
    quick: bool = False


@dataclass(frozen=True)
class Table:
    """A table of the report: a caption, a header and rows of text."""

    caption: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Plot:
    """A picture of the report: file name and caption."""

    file: str
    caption: str


@dataclass(frozen=True)
class Summary:
    """An answer in a line: what was measured, and what that says of the claim."""

    measured: str
    verdict: str


@dataclass
class Results:
    """All that was measured so far, as `results.json` has it.

    Attributes:
        cells: `{"variant", "seed", "run", "seconds", "processor_seconds", "measures"}` each.
        data: what the experiment found in the data.
        protocol: the settings that the cells have in common.
    """

    cells: list[dict] = field(default_factory=list)
    data: dict = field(default_factory=dict)
    protocol: dict = field(default_factory=dict)

    def variants(self) -> list[str]:
        """Those with at least one finished cell, in the order they were first run."""
        return list(dict.fromkeys(cell["variant"] for cell in self.cells))

    def measures(self, variant: str) -> list[dict]:
        """Of every finished seed, in the order of seeds."""
        cells = sorted((cell for cell in self.cells if cell["variant"] == variant), key=lambda cell: cell["seed"])
        return [cell["measures"] for cell in cells]

    def values(self, variant: str, *path: str) -> np.ndarray:
        """A number of every seed, `(S,)`: `values("gru", "milliseconds")`."""
        return np.array(self._found(variant, path), np.float64)

    def hits(self, variant: str, *path: str) -> np.ndarray:
        """Right or wrong for every seed and unit, `(S, N)`, from text such as `"0110"`."""
        return np.array([[int(letter) for letter in text] for text in self._found(variant, path)], np.float64)

    def _found(self, variant: str, path: tuple[str, ...]) -> list:
        """What every seed's measures have at the end of a path of keys."""
        return [reduce(getitem, path, measures) for measures in self.measures(variant)]

    def accuracy(self, variant: str, *path: str) -> Interval:
        """Per cent right, with an interval over films and seeds; `data["films"]` names the films."""
        return bootstrap_mean(self.hits(variant, *path), self.data["films"])

    def difference(self, first: tuple, second: tuple, level: float = 0.95) -> Interval:
        """Points of accuracy between two paths (variant first), paired on films."""
        return bootstrap_difference(self.hits(*first), self.hits(*second), self.data["films"], level)


def hits_text(right) -> str:
    """Right or wrong, `(N,)`, as text that `Results.hits` reads."""
    return "".join("1" if value else "0" for value in np.asarray(right).tolist())


def spread(values: np.ndarray, digits: int = 1) -> str:
    """`41.3 ± 0.8`: mean and standard deviation over seeds; the mean alone of one seed."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


class Experiment(ABC):
    """One question, and all that is needed to answer it.

    Attributes:
        name: as on the command line.
        question: what is asked.
        claim: what the paper says, or that it says nothing.
        variants: by name, in the order they are run.
        seeds: how many by default.
        needs_weights: whether `Inputs.weights` are needed.
    """

    name: str
    question: str
    claim: str
    variants: dict[str, Variant]
    seeds: int = 3
    needs_weights: bool = False

    @abstractmethod
    def protocol(self, quick: bool) -> dict:
        """Settings that all cells share; cells of another protocol are never mixed with these."""

    @abstractmethod
    def prepare(self, inputs: Inputs) -> dict:
        """Reads the data; returns what the report says of it."""

    @abstractmethod
    def run_cell(self, variant: str, seed: int) -> dict:
        """Runs one cell; returns its measures, which JSON can hold."""

    @abstractmethod
    def tables(self, results: Results) -> list[Table]:
        """The figures, spreads over seeds included."""

    @abstractmethod
    def conclude(self, results: Results) -> list[str]:
        """The finding, in paragraphs written from the numbers by rule: what was shown and what was not."""

    @abstractmethod
    def summarise(self, results: Results) -> Summary:
        """The finding in a line, for the table in the README, by the same rules."""

    @abstractmethod
    def draw(self, results: Results, folder: Path) -> list[Plot]:
        """Writes pictures into a folder and says what they show."""

    def summary_row(self, results: Results) -> str:
        """The experiment's row of that table."""
        summary = self.summarise(results)
        return f"| `{self.name}`: {self.claim} | {summary.measured} | {summary.verdict} |"

    def planned_minutes(self, seeds: int | None = None) -> float:
        """Of all cells."""
        return sum(variant.minutes * variant.seeds(seeds or self.seeds) for variant in self.variants.values())
