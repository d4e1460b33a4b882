"""Runs Transformers' own common tests, and fails what skips without being in the table of `mixin_table.py`."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import mixin_source  # noqa: E402
from mixin_table import LIBRARY_SKIPS, SKIPS  # noqa: E402

mixin_source.install()


def _listed(item, table):
    """The name in the table that an item goes by, if any; parametrised ones are <name>_<number>_<case>."""
    names = [name for name in table if re.fullmatch(rf"{name}(_\d+(_.*)?)?", item.name)]
    return names[0] if names else None


def _is_here(item):
    return Path(__file__).parent in item.path.parents


def pytest_collection_modifyitems(items):
    for item in items:
        name = _listed(item, SKIPS)
        if _is_here(item) and name:
            item.add_marker(pytest.mark.skip(reason=SKIPS[name]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.skipped and _is_here(item) and not _listed(item, {**SKIPS, **LIBRARY_SKIPS}):
        report.outcome = "failed"
        report.longrepr = f"{item.name} was skipped ({report.longrepr[2]}) and is not in mixin_table.py."
