"""The table of overrides and skips is complete, has no stale entry, and does not grow unnoticed."""

import inspect

import test_model_mixin as model_mixin
import test_video_processor_mixin as video_processor_mixin
from mixin_table import LIBRARY_SKIPS, OVERRIDES, SKIPS, SWITCHES
from transformers_tests import test_modeling_common, test_video_processing_common

PAIRS = [
    (model_mixin.KineTrackCommonTests, test_modeling_common.ModelTesterMixin),
    (model_mixin.KineTrackForObjectTrackingTest, test_modeling_common.ModelTesterMixin),
    (video_processor_mixin.KineTrackVideoProcessorTest, test_video_processing_common.VideoProcessingTestMixin),
]
# What a test class has to fill in, by the mixins' design.
FILLED_IN = {"all_model_classes", "model_tester", "fast_video_processing_class", "test_cast_dtype", "setUp"}


def changed_names():
    """(functions, values) of the mixins that KineTrack's test classes define themselves."""
    functions, values = set(), set()
    for ours, mixin in PAIRS:
        for name in vars(ours).keys() & set(dir(mixin)):
            if name.startswith("__") or name in FILLED_IN:
                continue
            value = getattr(ours, name)
            if not callable(value):
                values.add(name)
            elif inspect.unwrap(value).__module__ != mixin.__module__:
                functions.add(name)
    return functions, values


def test_everything_that_is_changed_is_in_the_table_and_nothing_else():
    functions, values = changed_names()
    assert functions == set(OVERRIDES)
    assert values == set(SWITCHES)


def test_every_skip_names_a_test_of_the_library():
    for name in (*SKIPS, *LIBRARY_SKIPS):
        known = {test for _, mixin in PAIRS for test in dir(mixin)}
        assert any(test == name or test.startswith(f"{name}_0") for test in known), name


def test_the_table_has_as_many_entries_as_were_agreed():
    assert (len(SWITCHES), len(OVERRIDES), len(SKIPS), len(LIBRARY_SKIPS)) == (4, 5, 0, 67)
    assert all(reason for table in (SWITCHES, OVERRIDES, SKIPS, LIBRARY_SKIPS) for reason in table.values())
