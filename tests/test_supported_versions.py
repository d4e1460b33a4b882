"""The versions of Transformers that the README states are those that are declared and tested."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_states_the_oldest_and_newest_tested_transformers():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (oldest,) = (m[1] for item in project["dependencies"] if (m := re.fullmatch(r"transformers>=(.+)", item)))
    extras = project["optional-dependencies"]
    (newest,) = (m[1] for item in extras["dev"] if (m := re.fullmatch(r"transformers==(\d+\.\d+)\.\d+", item)))
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"oldest supported Transformers, {oldest}, and {newest} are tested" in readme
