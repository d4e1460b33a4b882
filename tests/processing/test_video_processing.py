"""KineTrackVideoProcessor: every kind of input, one canvas, and outputs back in pixels of the original frames."""

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from PIL import Image
from transformers.video_utils import VideoMetadata

SIZE = {"height": 64, "width": 96}


@pytest.fixture
def processor():
    return KineTrackVideoProcessor(size=SIZE)


def pixels(processor, videos, **kwargs):
    return processor(videos, **kwargs)["pixel_values_videos"]


class TestCanvas:
    def test_the_canvas_is_the_processors_and_never_the_batchs(self, processor):
        for shape in ((3, 20, 30, 3), (2, 300, 200, 3), (1, 64, 96, 3)):
            assert pixels(processor, np.zeros(shape, np.uint8)).shape[-2:] == (64, 96)
        assert pixels(processor, np.zeros((1, 20, 30, 3), np.uint8), size=(32, 64)).shape[-2:] == (32, 64)

    def test_a_batch_of_different_lengths_and_sizes_equals_its_videos_alone(self, processor, draw_frames):
        videos = [draw_frames(5, 200, 90), draw_frames(9, 61, 97), draw_frames(1, 40, 30)]
        batch = processor(videos)
        assert batch["pixel_values_videos"].shape == (3, 9, 3, 64, 96)
        assert batch["frame_mask"].dtype == batch["pixel_mask"].dtype == torch.bool
        for index, video in enumerate(videos):
            alone = processor(video)
            length = len(video)
            assert torch.equal(batch["pixel_values_videos"][index, :length], alone["pixel_values_videos"][0])
            assert torch.equal(batch["pixel_mask"][index], alone["pixel_mask"][0])
            assert batch["frame_mask"][index].tolist() == [True] * length + [False] * (9 - length)
            assert not batch["pixel_values_videos"][index, length:].any()

    @pytest.mark.parametrize(
        ("frame", "content"),
        [((128, 128), (64, 64)), ((128, 384), (32, 96)), ((30, 40), (30, 40)), ((65, 97), (64, 96))],
    )
    def test_aspect_is_kept_nothing_is_enlarged_and_padding_is_zero(self, processor, frame, content):
        inputs = processor(np.full((1, *frame, 3), 255, np.uint8))
        image, mask = inputs["pixel_values_videos"][0, 0], inputs["pixel_mask"][0]
        assert mask.sum() == content[0] * content[1]
        assert mask[: content[0], : content[1]].all()
        assert (image[:, mask] == 1).all()
        assert (image[:, ~mask] == 0).all()

    def test_upscaling_is_asked_for(self):
        processor = KineTrackVideoProcessor(size=SIZE, do_upscale=True)
        assert processor(np.zeros((1, 32, 48, 3), np.uint8))["pixel_mask"].all()

    @pytest.mark.parametrize("frame", [(576, 768), (720, 1280), (1080, 1920), (97, 63), (1920, 1080)])
    def test_boxes_map_by_the_one_scale(self, frame):
        processor = KineTrackVideoProcessor()
        height, width = frame
        image = np.zeros((1, height, width, 3), np.uint8)
        box = np.array([0.2 * width, 0.3 * height, 0.7 * width, 0.8 * height]).round().astype(int)
        image[:, box[1] : box[3], box[0] : box[2]] = 255
        canvas = processor.fit_size(height, width)
        rows, columns = np.nonzero(pixels(processor, image, size=canvas)[0, 0, 0].numpy() > 0)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(found - box * processor.resize_scale(height, width, canvas)).max() <= 1

    @pytest.mark.parametrize(
        ("frame", "canvas"),
        [
            ((576, 768), (384, 512)),  # the example video
            ((720, 1280), (352, 640)),
            ((1080, 1920), (352, 640)),
            ((1920, 1080), (640, 352)),
            ((240, 320), (256, 320)),
            ((1, 1), (32, 32)),
        ],
    )
    def test_fit_size_shows_a_video_as_large_as_the_budget_allows(self, frame, canvas):
        assert KineTrackVideoProcessor().fit_size(*frame) == canvas

    def test_fit_size_stays_in_the_budget_for_any_shape(self):
        processor, generator = KineTrackVideoProcessor(), np.random.default_rng(0)
        for height, width in generator.integers(1, 4000, (40, 2)).tolist():
            rows, columns = processor.fit_size(height, width)
            content = processor.content_size(height, width, (rows, columns))
            assert rows % 32 == columns % 32 == 0
            assert rows * columns <= 352 * 640
            assert rows - content[0] < 32
            assert columns - content[1] < 32

    @pytest.mark.parametrize("size", [{"height": 350, "width": 640}, {"height": 0, "width": 64}, {"shortest_edge": 64}])
    def test_a_canvas_that_the_model_cannot_take_is_refused(self, size, processor, frames):
        with pytest.raises(ValueError, match="multiples of 32"):
            KineTrackVideoProcessor(size=size)
        with pytest.raises(ValueError, match="multiples of 32"):
            processor(frames, size=size)


class TestPixels:
    def test_scaling_equals_pils(self, processor, draw_frames):
        frame = draw_frames(1, 200, 130)[0]
        size = (96, 62)
        expected = np.asarray(Image.fromarray(frame).resize(size, Image.BILINEAR)).astype(np.float32) / 127.5 - 1
        values = pixels(processor, frame)[0, 0, :, :62, :96].permute(1, 2, 0).numpy()
        assert np.abs(values - expected).max() < 1e-6

    @pytest.mark.parametrize("shape", [(64, 96), (576, 768), (97, 63), (1080, 1920)])
    def test_the_fast_path_of_a_frame_equals_the_call_exactly(self, shape, draw_frames):
        processor = KineTrackVideoProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
        frame = draw_frames(1, shape[1], shape[0])[0]
        for canvas in (None, (96, 128)):
            assert torch.equal(processor.preprocess_frame(frame, canvas), pixels(processor, frame, size=canvas))

    def test_the_fast_path_takes_read_only_and_flipped_frames(self, processor, frames):
        flipped = frames[0][:, ::-1]
        read_only = flipped.copy()
        read_only.flags.writeable = False
        assert torch.equal(processor.preprocess_frame(flipped), processor.preprocess_frame(read_only))
        with pytest.raises(ValueError, match="uint8"):
            processor.preprocess_frame(frames[0].astype(np.float32))

    def test_a_frame_of_the_example_video_takes_less_than_four_milliseconds_on_one_thread(self):
        processor, threads = KineTrackVideoProcessor(), torch.get_num_threads()
        frame = np.random.default_rng(0).integers(0, 256, (576, 768, 3), dtype=np.uint8)
        torch.set_num_threads(1)
        try:
            taken = []
            for _ in range(40):
                start = time.perf_counter()
                processor.preprocess_frame(frame, (384, 512))
                taken.append(time.perf_counter() - start)
        finally:
            torch.set_num_threads(threads)
        assert min(taken) < 0.004

    def test_mean_and_deviation_are_per_channel(self, frames):
        processor = KineTrackVideoProcessor(size=SIZE, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 1.0, 2.0])
        expected = (frames[0] / 255 - [0.1, 0.2, 0.3]) / [0.5, 1.0, 2.0]
        assert np.abs(pixels(processor, frames[0])[0, 0].permute(1, 2, 0).numpy() - expected).max() < 1e-6

    def test_steps_can_be_switched_off(self, processor, frames):
        raw = pixels(processor, frames, do_rescale=False, do_normalize=False)
        assert torch.equal(raw[0].permute(0, 2, 3, 1), torch.from_numpy(frames).float())
        unit = pixels(processor, frames / 255, do_rescale=False, do_normalize=False)
        torch.testing.assert_close(unit, raw / 255)
        assert pixels(processor, frames[:, :10, :20], do_resize=False, do_normalize=False).max() <= 1
        with pytest.raises(ValueError, match="do_resize"):
            processor(np.zeros((1, 65, 96, 3), np.uint8), do_resize=False)

    def test_options_that_would_do_nothing_are_refused(self, processor, frames):
        for option in ({"do_center_crop": True}, {"data_format": "channels_last"}, {"resample": 1}):
            with pytest.raises(ValueError, match=next(iter(option))):
                processor(frames, **option)

    def test_numpy_comes_out_when_asked(self, processor, frames):
        inputs = processor(frames, return_tensors="np")
        assert all(isinstance(value, np.ndarray) for value in inputs.values())


class TestSampling:
    def test_all_frames_are_kept_unless_asked(self, processor, long_video_path):
        assert processor(long_video_path)["frame_mask"].shape == (1, 75)
        assert processor(long_video_path, do_sample_frames=False, num_frames=8)["frame_mask"].shape == (1, 75)

    @pytest.mark.parametrize(
        ("options", "indices"),
        [
            ({"num_frames": 8}, list(range(30, 46, 2))),
            ({"do_sample_frames": True}, list(range(22, 54, 2))),
            ({"fps": 5}, list(range(0, 75, 5))),
            ({"fps": 5, "num_frames": 3}, [30, 35, 40]),
        ],
    )
    def test_frames_are_chosen_by_time(self, options, indices, processor, long_video_path):
        inputs = processor(long_video_path, return_metadata=True, **options)
        metadata = inputs["video_metadata"][0]
        assert metadata.frames_indices == indices
        assert metadata.timestamps == pytest.approx([index / 25 for index in indices])
        whole = pixels(processor, long_video_path)[:, indices]
        assert torch.equal(inputs["pixel_values_videos"][:, : len(indices)], whole)

    def test_a_clip_shorter_than_num_frames_is_masked_not_repeated(self, processor, video_path, frames):
        inputs = processor([video_path, frames], num_frames=16)
        assert inputs["pixel_values_videos"].shape[1] == 16
        assert inputs["frame_mask"].sum(1).tolist() == [6, 12]  # 25 frames a second, and frames at the model's rate

    def test_frames_in_memory_follow_the_clock_they_are_given(self, processor, frames):
        by_rate = processor(frames, fps=5, video_metadata={"total_num_frames": 12, "fps": 10}, return_metadata=True)
        assert by_rate["video_metadata"][0].frames_indices == [0, 2, 4, 6, 8, 10]
        times = np.concatenate([np.arange(6) * 0.1, 1 + np.arange(6) * 1.0])
        by_time = processor(frames, fps=1, video_metadata=[{"times": times.tolist()}], return_metadata=True)
        assert by_time["video_metadata"][0].frames_indices == [0, 6, 7, 8, 9, 10, 11]
        assert by_time["video_metadata"][0].timestamps == pytest.approx(times[[0, 6, 7, 8, 9, 10, 11]])

    def test_a_rate_without_a_clock_is_refused(self, processor, frames):
        with pytest.raises(ValueError, match="video_metadata"):
            processor(frames, fps=5)
        with pytest.raises(ValueError, match="video_metadata"):
            processor.sample_frames(VideoMetadata(total_num_frames=8), fps=5)
        assert processor.sample_frames(VideoMetadata(total_num_frames=8, fps=4), fps=3).tolist() == [0, 2, 3, 4, 6, 7]

    def test_do_sample_frames_false_on_the_processor_means_never(self, frames):
        never = KineTrackVideoProcessor(size=SIZE, do_sample_frames=False)
        assert never(frames, num_frames=3)["frame_mask"].shape == (1, 12)
        always = KineTrackVideoProcessor(size=SIZE, do_sample_frames=True, num_frames=5)
        assert always(frames)["frame_mask"].shape == (1, 5)

    def test_metadata_tells_the_original_size_and_the_times(self, processor, rotated_video_path, frames):
        inputs = processor([rotated_video_path, frames], return_metadata=True)
        file, memory = inputs["video_metadata"]
        assert (file.height, file.width, file.total_num_frames, file.fps) == (96, 64, 12, 25.0)
        assert (memory.height, memory.width, memory.total_num_frames) == (64, 96, 12)
        assert file.timestamps == pytest.approx([index / 25 for index in range(12)])

    def test_metadata_for_another_number_of_videos_is_refused(self, processor, frames):
        with pytest.raises(ValueError, match="one per video"):
            processor(frames, video_metadata=[{"fps": 5}, {"fps": 5}])

    def test_fetch_videos_reads_with_pyav(self, processor, video_path):
        video, metadata = processor.fetch_videos(video_path, lambda metadata: [0, metadata.total_num_frames - 1])
        assert video.shape == (2, 64, 96, 3)
        assert metadata.timestamps == pytest.approx([0, 11 / 25])
        videos, _ = processor.fetch_videos([str(video_path), video_path])
        assert len(videos) == 2

    def test_a_long_file_is_scaled_as_it_is_read(self, processor, tmp_path, make_video, draw_frames):
        import tracemalloc

        path = make_video(tmp_path / "big.mp4", np.repeat(draw_frames(1, 640, 480), 60, axis=0))
        tracemalloc.start()
        processor(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 * 640 * 480 * 3


class TestSavingAndLoading:
    def test_a_saved_processor_comes_back_equal(self, tmp_path):
        processor = KineTrackVideoProcessor(size=SIZE, image_mean=[0.1, 0.2, 0.3], frame_rate=10, do_upscale=True)
        processor.save_pretrained(tmp_path)
        stored = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
        assert stored["video_processor_type"] == "KineTrackVideoProcessor"
        again = KineTrackVideoProcessor.from_pretrained(tmp_path)
        assert again.to_dict() == processor.to_dict()
        assert KineTrackVideoProcessor.from_pretrained(tmp_path, frame_rate=5).frame_rate == 5

    def test_the_auto_class_finds_it(self, tmp_path):
        from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
        from transformers import AutoVideoProcessor

        AutoVideoProcessor.register(KineTrackConfig, KineTrackVideoProcessor, exist_ok=True)
        KineTrackVideoProcessor(size=SIZE).save_pretrained(tmp_path)
        loaded = AutoVideoProcessor.from_pretrained(tmp_path)
        assert type(loaded).__name__ == "KineTrackVideoProcessor"
        assert loaded.to_dict() == KineTrackVideoProcessor(size=SIZE).to_dict()


def outputs_with(objects, *, batch=1, frames=1, canvas=(64, 96), embedding=4):
    """Maps with boxes given as (video, frame, (cx, cy, half width, half height), logit) in pixels of the input."""
    height, width = canvas[0] // 8, canvas[1] // 8
    heatmap = torch.full((batch, frames, 1, height, width), -8.0)
    distances = torch.zeros(batch, frames, 4, height, width)
    embeddings = torch.nn.functional.normalize(torch.ones(batch, frames, embedding, height, width), dim=2)
    for video, frame, (x, y, half_width, half_height), logit in objects:
        row, column = int(y // 8), int(x // 8)
        heatmap[video, frame, 0, row, column] = logit
        dx, dy = x - (column + 0.5) * 8, y - (row + 0.5) * 8
        distances[video, frame, :, row, column] = torch.tensor(
            [half_width - dx, half_height - dy, half_width + dx, half_height + dy]
        )
    return SimpleNamespace(heatmap_logits=heatmap, distances=distances, embeddings=embeddings)


class TestPostProcessing:
    def test_actions_come_sorted_and_named(self, processor):
        outputs = SimpleNamespace(logits=torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]))
        named = processor.post_process_video_classification(outputs, top_k=2, id2label={0: "a", 1: "b", 2: "c"})
        assert [[entry["label"] for entry in video] for video in named] == [["b", "c"], ["a", "b"]]
        probabilities = outputs.logits.softmax(-1)
        assert named[0][0]["score"] == pytest.approx(probabilities[0, 1].item())
        cooler = processor.post_process_video_classification(outputs, top_k=9, temperature=10.0)
        assert len(cooler[0]) == 3
        assert cooler[0][0]["score"] < named[0][0]["score"]
        assert cooler[0][0]["label"] == 1

    @pytest.mark.parametrize("frame", [(576, 768), (1080, 1920), (200, 40), (30, 40)])
    def test_boxes_come_back_in_pixels_of_the_original_frame(self, frame, processor):
        scale = processor.resize_scale(*frame)
        center = np.array([frame[1], frame[0]]) * 0.5
        half = np.array([frame[1], frame[0]]) * 0.2
        objects = [(0, 0, (*(center * scale), *(half * scale)), 3.0)]
        found = processor.post_process_object_detection(outputs_with(objects), target_sizes=[frame])
        expected = np.concatenate([center - half, center + half])
        assert found[0][0]["boxes"][0].numpy() == pytest.approx(expected, rel=1e-4)
        assert found[0][0]["embeddings"].shape == (1, 4)

    def test_without_target_sizes_boxes_stay_in_pixels_of_the_input(self, processor):
        found = processor.post_process_object_detection(outputs_with([(0, 0, (40, 30, 10, 12), 3.0)]))
        assert found[0][0]["boxes"][0].tolist() == pytest.approx([30, 18, 50, 42])

    def test_padding_gives_no_objects(self, processor):
        objects = [(0, 0, (20, 20, 5, 5), 3.0), (0, 0, (90, 20, 5, 5), 3.0)]  # a square video ends at x = 64
        found = processor.post_process_object_detection(outputs_with(objects), target_sizes=torch.tensor([[100, 100]]))
        assert len(found[0][0]["boxes"]) == 1
        two = processor.post_process_object_detection(
            outputs_with(objects, frames=2), frame_mask=torch.tensor([[1, 0]])
        )
        assert len(two[0]) == 1

    def test_tracks_keep_their_identity_and_every_video_counts_from_one(self, processor):
        objects = []
        for frame in range(8):
            objects.append((0, frame, (20 + 2 * frame, 20, 8, 12), 3.0))
            objects.append((0, frame, (80 - 2 * frame, 48, 8, 12), 3.0))
            objects.append((1, frame, (40, 30, 8, 12), 3.0))
        outputs = outputs_with(objects, batch=2, frames=8)
        times = [[frame / 12.5 for frame in range(8)]] * 2
        tracked = processor.post_process_object_tracking(outputs, target_sizes=[(128, 192)] * 2, times=times)
        assert [len(video) for video in tracked] == [8, 8]
        red = {}
        for frame in tracked[0][2:]:
            for box, identity in zip(frame["boxes"], frame["track_ids"].tolist(), strict=True):
                red.setdefault(identity, []).append(box[1].item() < 50)
        assert sorted(red) == [1, 2]
        assert all(len(set(above)) == 1 for above in red.values())
        assert tracked[1][-1]["track_ids"].tolist() == [1]
        x1, y1, x2, y2 = tracked[1][-1]["boxes"][0].tolist()
        assert [x1, y1, x2, y2] == pytest.approx([64, 36, 96, 84], abs=2)  # the scale of 128x192 is 0.5

    def test_outputs_without_maps_and_wrong_numbers_are_named(self, processor):
        with pytest.raises(ValueError, match="tracking head"):
            processor.post_process_object_detection(SimpleNamespace(logits=torch.zeros(1, 2)))
        with pytest.raises(ValueError, match="target_sizes"):
            processor.post_process_object_detection(outputs_with([]), target_sizes=[(4, 4), (4, 4)])
        with pytest.raises(ValueError, match="times"):
            processor.post_process_object_tracking(outputs_with([], frames=2), times=[[0.0]])
