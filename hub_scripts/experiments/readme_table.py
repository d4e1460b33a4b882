"""Writes the README's table of claims, measurements and verdicts from the committed results.

    python -m kinetrack.hub_scripts.experiments.readme_table

Run it after results were added to `results/`; a row is there only for an experiment that was run.
"""

import json
import sys
from pathlib import Path

from ..atomic_files import write_atomically
from ..marked_text import replace_marked
from .experiment import Results
from .registry import NAMES, load_experiment
from .report import write_report

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = (
    "<!-- EXPERIMENTS: begin. Written by hub_scripts/experiments/readme_table.py -->",
    "<!-- EXPERIMENTS: end -->",
)


def committed_rows(folder: Path = RESULTS, rewrite: bool = False) -> list[str]:
    """Rows of the table, in the order of the registry.

    Args:
        folder: holds `NAME/results.json`.
        rewrite: writes the experiments' reports again as well, after a change of their wording.
    """
    rows = []
    for name in NAMES:
        file = folder / name / "results.json"
        if not file.is_file():
            continue
        content = json.loads(file.read_text(encoding="utf-8"))
        results = Results(content["cells"], content["data"], content["protocol"])
        experiment = load_experiment(name)
        if rewrite:
            write_report(experiment, content, results, file.parent)
        rows.append(experiment.summary_row(results))
    return rows


def replace_table(text: str, rows: list[str]) -> str:
    """The README's text with the table between the markers replaced.

    Raises:
        ValueError: the markers are not there.
    """
    return replace_marked(
        text, BEGIN, END, ["| what the paper says | what we measured | verdict |", "|---|---|---|", *rows]
    )


def main() -> None:
    """Writes the reports and the table again."""
    rows = committed_rows(rewrite=True)
    write_atomically(README, replace_table(README.read_text(encoding="utf-8"), rows))
    print(f"{len(rows)} rows in {README}", file=sys.stderr)


if __name__ == "__main__":
    main()
