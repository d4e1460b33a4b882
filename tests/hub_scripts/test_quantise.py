"""What the quantiser is shown."""

import shutil

import kinetrack
import numpy as np
import pytest
from kinetrack.hub_scripts.quantise import calibration_steps, list_videos
from kinetrack.processing.decoding_kinetrack import iter_video_frames
from kinetrack.processing.graphs.exportable import exportable_copy
from kinetrack.processing.graphs.graph_modules import step_graph
from kinetrack.processing.graphs.onnx_files import write_onnx


def test_calibration_sees_the_first_frames_of_every_video_once_and_in_order(model_folder, long_video_path, tmp_path):
    model, processor = kinetrack.load_model(model_folder, "cpu")
    prepared = exportable_copy(model)
    write_onnx(step_graph(prepared), tmp_path / "step.onnx")
    steps = list(calibration_steps(prepared, processor, tmp_path / "step.onnx", "onnx", [long_video_path] * 2))
    images = [frame.image for frame in iter_video_frames(long_video_path)][:25]
    canvas = processor.fit_size(*images[0].shape[:2])
    wanted = [processor.preprocess_frame(image, canvas)[:, 0].numpy() for image in images]
    assert len(steps) == 50
    for step, pixels in zip(steps, wanted * 2, strict=True):
        np.testing.assert_array_equal(step["pixel_values"], pixels)
    for begun in (steps[0], steps[25]):
        assert not begun["hidden.0"].any()


def test_file_that_is_named_is_a_video_whatever_its_ending(video_path, tmp_path):
    for name in ("my.ts", "recording", "a.mp4", "notes.txt"):
        shutil.copy(video_path, tmp_path / name)
    assert list_videos([tmp_path / "my.ts", tmp_path / "recording"]) == [tmp_path / "my.ts", tmp_path / "recording"]
    assert list_videos([tmp_path]) == [tmp_path / "a.mp4"]
    with pytest.raises(FileNotFoundError, match=r"no video in .*gone\.mp4"):
        list_videos([tmp_path / "gone.mp4"])
