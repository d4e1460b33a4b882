"""Transformers' `VideoProcessingTestMixin` on `KineTrackVideoProcessor`."""

import unittest

from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from transformers_tests.test_video_processing_common import VideoProcessingTestMixin, prepare_video_inputs


class KineTrackVideoProcessorTester:
    batch_size = 3
    num_frames = 4
    num_channels = 3
    size = {"height": 64, "width": 96}

    def prepare_video_processor_dict(self):
        return {"size": self.size, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7], "do_normalize": True}

    def expected_output_video_shape(self, videos):
        return self.num_frames, self.num_channels, self.size["height"], self.size["width"]

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return prepare_video_inputs(
            batch_size=self.batch_size,
            num_frames=self.num_frames,
            num_channels=self.num_channels,
            min_resolution=30,
            max_resolution=150,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )


class KineTrackVideoProcessorTest(VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = KineTrackVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = KineTrackVideoProcessorTester()

    @property
    def video_processor_dict(self):
        return self.video_processor_tester.prepare_video_processor_dict()

    def test_video_processor_from_dict_with_kwargs(self):
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict)
        self.assertEqual(dict(processor.size), {"height": 64, "width": 96})
        other = {"height": 32, "width": 64}
        processor = self.fast_video_processing_class.from_dict(self.video_processor_dict, size=other, num_frames=8)
        self.assertEqual(dict(processor.size), other)
        self.assertEqual(processor.num_frames, 8)

    def test_call_sample_frames(self):
        tester, processor = self.video_processor_tester, self.fast_video_processing_class(**self.video_processor_dict)
        tester.num_frames = 8
        videos = tester.prepare_video_inputs(return_tensors="torch")
        processor.do_sample_frames = False
        for given in (videos[0], videos):
            self.assertEqual(processor(given, num_frames=3)[self.input_name].shape[1], 8)
        processor.do_sample_frames = True
        for given in (videos[0], videos):
            self.assertEqual(processor(given, num_frames=3)[self.input_name].shape[1], 3)
        clock = [{"duration": 2.0, "total_num_frames": 8, "fps": 4}]
        for given, metadata in ((videos[0], clock), (videos, clock * len(videos))):
            self.assertEqual(processor(given, fps=3, video_metadata=metadata)[self.input_name].shape[1], 6)
        longer = processor(videos[0], num_frames=10)
        self.assertEqual(longer["frame_mask"].tolist(), [[True] * 8 + [False] * 2])
