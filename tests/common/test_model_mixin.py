"""Transformers' `ModelTesterMixin` on all four model classes."""

import unittest

import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import (
    KineTrackForObjectTracking,
    KineTrackForVideoAnalysis,
    KineTrackForVideoClassification,
    KineTrackModel,
)
from transformers.testing_utils import torch_device
from transformers_tests import test_modeling_common
from transformers_tests.test_modeling_common import ModelTesterMixin, floats_tensor

# The mixin recognises models by the library's own names: these tell it which model is the bare one.
test_modeling_common.MODEL_MAPPING_NAMES = test_modeling_common.MODEL_MAPPING_NAMES | {"kinetrack": "KineTrackModel"}
test_modeling_common.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES = (
    test_modeling_common.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES | {"kinetrack": "KineTrackForVideoClassification"}
)


class KineTrackModelTester:
    """A configuration of a few thousand parameters and a batch of clips for it."""

    batch_size = 3
    num_frames = 4
    height, width = 64, 96
    hidden_size = 8
    num_hidden_layers = 2  # propagation blocks
    is_training = True

    def get_config(self):
        return KineTrackConfig(
            backbone_config={
                "model_type": "resnet",
                "embedding_size": 8,
                "hidden_sizes": [8, 8, 12, 16],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage2", "stage3", "stage4"],
            },
            hidden_size=self.hidden_size,
            motion_channels=4,
            embedding_size=6,
            num_propagation_layers=self.num_hidden_layers,
            attention_window=self.num_frames,  # a window that is not full yet holds -inf
            id2label={0: "walk", 1: "run", 2: "sit"},
            label_groups={"fight": ["noFight", "fight"]},
        )

    def prepare_config_and_inputs_for_common(self):
        shape = [self.batch_size, self.num_frames, 3, self.height, self.width]
        return self.get_config(), {"pixel_values_videos": floats_tensor(shape)}

    def labels(self, model_class):
        if model_class is KineTrackModel:
            return {}
        if model_class is KineTrackForVideoClassification:
            labels = torch.zeros(self.batch_size, dtype=torch.long, device=torch_device)
            return {"labels": labels, "group_labels": {"fight": labels}}
        frame = {
            "boxes": torch.tensor([[4.0, 4.0, 30.0, 50.0], [40.0, 10.0, 80.0, 60.0]], device=torch_device),
            "class_labels": torch.zeros(2, dtype=torch.long, device=torch_device),
            "track_ids": torch.tensor([1, 2], device=torch_device),
        }
        actions = self.labels(KineTrackForVideoClassification) if model_class is KineTrackForVideoAnalysis else {}
        return {"frame_labels": [[frame] * self.num_frames] * self.batch_size, **actions}


class KineTrackCommonTests(ModelTesterMixin):
    has_attentions = False
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = KineTrackModelTester()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        return {**inputs, **self.model_tester.labels(model_class)} if return_labels else inputs

    def test_hidden_states_output(self):
        tester = self.model_tester
        for model_class in self.all_model_classes:
            for by_config in (False, True):
                config, inputs = tester.prepare_config_and_inputs_for_common()
                config.output_hidden_states = by_config
                model = model_class(config).to(torch_device).eval()
                asked = {} if by_config else {"output_hidden_states": True}
                with torch.no_grad():
                    states = model(**self._prepare_for_class(inputs, model_class), **asked).hidden_states
                self.assertEqual(len(states), tester.num_hidden_layers + 1)
                shape = (
                    tester.batch_size,
                    tester.num_frames,
                    tester.hidden_size,
                    tester.height // 16,
                    tester.width // 16,
                )
                self.assertTrue(all(state.shape == shape for state in states))

    def test_model_get_set_embeddings(self):
        for model_class in self.all_model_classes:
            model = model_class(self.model_tester.get_config())
            with self.assertRaisesRegex(NotImplementedError, "get_input_embeddings"):
                model.get_input_embeddings()


class KineTrackModelTest(KineTrackCommonTests, unittest.TestCase):
    all_model_classes = (KineTrackModel,)


class KineTrackForVideoClassificationTest(KineTrackCommonTests, unittest.TestCase):
    all_model_classes = (KineTrackForVideoClassification,)


class KineTrackForObjectTrackingTest(KineTrackCommonTests, unittest.TestCase):
    all_model_classes = (KineTrackForObjectTracking,)
    test_all_params_have_gradient = False


class KineTrackForVideoAnalysisTest(KineTrackCommonTests, unittest.TestCase):
    all_model_classes = (KineTrackForVideoAnalysis,)
