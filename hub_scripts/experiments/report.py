"""An experiment's report: Markdown and pictures, from the measures in `results.json` and nothing else."""

from pathlib import Path

from ..atomic_files import write_atomically
from .experiment import Experiment, Results, Table


def write_report(experiment: Experiment, content: dict, results: Results, folder: Path) -> Path:
    """Writes the pictures and `README.md`.

    Args:
        experiment: which knows how to read its measures.
        content: of `results.json`.
        results: the same, for reading.
        folder: where they go.

    Returns:
        Path of the Markdown file.

    Raises:
        ValueError: nothing was measured yet.
    """
    if not results.cells:
        raise ValueError(f"{folder} holds no finished cell of {experiment.name} yet.")
    folder.mkdir(parents=True, exist_ok=True)
    plots = experiment.draw(results, folder)
    parts = [
        f"# {experiment.name}",
        experiment.question,
        f"**The paper says:** {experiment.claim}",
        "## Finding",
        *([_QUICK] if content["quick"] else []),
        *experiment.conclude(results),
        "In a line, for the README:",
        f"    {experiment.summary_row(results)}",
        "## Figures",
        *(markdown_table(table) for table in experiment.tables(results)),
        *(f"![{plot.caption}]({plot.file})\n\n*{plot.caption}*" for plot in plots),
        "## How it was made",
        _provenance(content),
    ]
    path = folder / "README.md"
    write_atomically(path, "\n\n".join(parts) + "\n")
    return path


_QUICK = "**A quick run on a few clips, made to see that everything works: its figures mean nothing.**"


def markdown_table(table: Table) -> str:
    """A caption and a pipe table; the first column is text, the others are numbers."""
    lines = [
        "| " + " | ".join(table.header) + " |",
        "|" + "|".join(["---", *["---:"] * (len(table.header) - 1)]) + "|",
        *("| " + " | ".join(row) + " |" for row in table.rows),
    ]
    return f"{table.caption}\n\n" + "\n".join(lines)


def _provenance(content: dict) -> str:
    cells, runs = content["cells"], content["runs"]
    seeds = {cell["variant"]: [] for cell in cells}
    for cell in cells:
        seeds[cell["variant"]].append(cell)
    plan = Table(
        "Cells: planned and measured time on one core, in minutes (processor time, since the machine had other work; "
        "costs are measured in processes of their own, whose time is not in it).",
        ["variant", "what it is", "seeds", "planned a cell", "measured a cell"],
        [
            [
                name,
                entry["about"],
                ", ".join(str(cell["seed"]) for cell in sorted(seeds.get(name, []), key=lambda cell: cell["seed"]))
                or "not run",
                f"{entry['minutes']:g}",
                _mean_minutes(seeds.get(name, [])),
            ]
            for name, entry in content["plan"].items()
        ],
    )
    machine = runs[cells[-1]["run"]]["machine"]
    commands = "\n".join(f"    {command}" for command in dict.fromkeys(run["command"] for run in runs))
    facts = [
        f"Run from {min(cell['date'] for cell in cells)[:16]} to {max(cell['date'] for cell in cells)[:16]} UTC on "
        f"{machine['processor']} ({machine['threads']} thread), Python {machine['python']}, "
        f"PyTorch {machine['torch']}, Transformers {machine['transformers']}, by",
        commands,
        "Settings: "
        + "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in content["protocol"].items())
        + ".",
        "Data: " + "; ".join(f"{k}: {v}" for k, v in content["data"].items() if not isinstance(v, list | dict)) + ".",
    ]
    return "\n\n".join([facts[0], facts[1], *facts[2:], markdown_table(plan)])


def _mean_minutes(cells: list[dict]) -> str:
    if not cells:
        return "–"
    # What was read from a cache took its time when it was made, which its measures say.
    minutes = [cell["measures"].get("minutes", cell["processor_seconds"] / 60) for cell in cells]
    return f"{sum(minutes) / len(minutes):.2g}"
