"""Transformers' `ConfigTester` on `KineTrackConfig`."""

import unittest

from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from transformers_tests.test_configuration_common import ConfigTester


class KineTrackConfigTest(unittest.TestCase):
    def test_config(self):
        tester = ConfigTester(
            self,
            config_class=KineTrackConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_labels", "embedding_size", "num_propagation_layers"],
            hidden_size=32,
            attention_window=8,
            object_classes=["person", "ball"],
        )
        tester.run_common_tests()
