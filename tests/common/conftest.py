"""Runs Transformers' own common tests, and fails what skips without being in the table of `mixin_table.py`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import mixin_source  # noqa: E402
from mixin_table import LIBRARY_SKIPS, SKIPS  # noqa: E402

mixin_source.install()


def _function_name(item):
    return getattr(item, "originalname", None) or item.name


def pytest_collection_modifyitems(items):
    for item in items:
        name = _function_name(item)
        if Path(__file__).parent in item.path.parents and name in SKIPS:
            item.add_marker(pytest.mark.skip(reason=SKIPS[name]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report, name = outcome.get_result(), _function_name(item)
    if report.skipped and Path(__file__).parent in item.path.parents and name not in SKIPS | LIBRARY_SKIPS:
        report.outcome = "failed"
        report.longrepr = f"{name} was skipped ({report.longrepr[2]}) and is not in mixin_table.py."
