"""Writes the README's figures on speed from the benchmark that lies beside the shipped checkpoint.

kinetrack benchmark --exported exported-int8 --output hub_scripts/checkpoints/kinetrack-nano
python -m kinetrack.hub_scripts.benchmark_table
"""

import json
import sys
from pathlib import Path

from .atomic_files import write_atomically
from .benchmark_report import format_report
from .marked_text import replace_marked

REPORT = Path(__file__).parent / "checkpoints" / "kinetrack-nano" / "benchmark.json"
README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- SPEED: begin. Written by hub_scripts/benchmark_table.py -->", "<!-- SPEED: end -->"
PARTS = ("speed", "backends", "comparisons", "trackers")


def speed_lines(report: dict) -> list[str]:
    """The tables of the parts that the README shows."""
    shown = {name: value for name, value in report.items() if name in ("model", "machine", *PARTS)}
    return ["", *format_report(shown).splitlines(), ""]


def main() -> None:
    """Writes the README again."""
    report = json.loads(REPORT.read_text(encoding="utf-8"))
    text = replace_marked(README.read_text(encoding="utf-8"), BEGIN, END, speed_lines(report))
    write_atomically(README, text)
    print(f"Speed of {report['machine']['date'][:10]} in {README}", file=sys.stderr)


if __name__ == "__main__":
    main()
