"""Every form of video a person brings is read as the same frames, and what is no video is named."""

import numpy as np
import pytest
import torch
from kinetrack.processing.decoding_kinetrack import VideoDecodeError, iter_video_frames, read_video
from kinetrack.processing.video_input_kinetrack import list_videos, rgb_frame
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
from PIL import Image

SIZE = {"height": 64, "width": 96}


@pytest.fixture
def processor():
    return KineTrackVideoProcessor(size=SIZE)


@pytest.fixture(scope="module")
def image_paths(tmp_path_factory, frames):
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for index, frame in enumerate(frames):
        paths.append(folder / f"{index:06d}.png")
        Image.fromarray(frame).save(paths[-1])
    return paths


def pixels(processor, videos, **kwargs):
    return processor(videos, **kwargs)["pixel_values_videos"]


class TestInputs:
    @pytest.mark.parametrize(
        "convert",
        [
            lambda f: f,
            lambda f: f.astype(np.float32) / 255,
            lambda f: f.astype(np.float64),
            lambda f: f.astype(np.int64),
            lambda f: f.transpose(0, 3, 1, 2),
            lambda f: np.asfortranarray(f)[:, ::-1][:, ::-1],
            lambda f: torch.from_numpy(f),
            lambda f: torch.from_numpy(f).permute(0, 3, 1, 2),
            lambda f: torch.from_numpy(f).permute(0, 3, 1, 2).float() / 255,
            lambda f: (torch.from_numpy(f).float() / 255).half(),
            lambda f: list(f),
            lambda f: tuple(torch.from_numpy(f)),
            lambda f: [Image.fromarray(x) for x in f],
            lambda f: [Image.fromarray(x).convert("RGBA") for x in f],
            lambda f: np.concatenate([f, np.full_like(f[..., :1], 7)], -1),
            lambda f: f[None],
            lambda f: [f],
            lambda f: [[Image.fromarray(x) for x in f]],
        ],
    )
    def test_every_form_of_the_same_frames_gives_the_same_pixels(self, convert, processor, frames):
        assert torch.equal(pixels(processor, convert(frames)), pixels(processor, frames))

    @pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "dict"])
    def test_every_form_of_a_file_gives_the_same_pixels(self, kind, processor, video_path):
        source = {
            "str": lambda: str(video_path),
            "path": lambda: video_path,
            "bytes": video_path.read_bytes,
            "file": lambda: video_path.open("rb"),
            "dict": lambda: {"path": str(video_path), "bytes": None},
        }[kind]()
        assert torch.equal(pixels(processor, source), pixels(processor, read_video(video_path).frames))

    def test_paths_of_images_are_frames_of_one_video(self, processor, image_paths, frames):
        expected = pixels(processor, frames)
        assert torch.equal(pixels(processor, image_paths), expected)
        assert torch.equal(pixels(processor, [str(path) for path in image_paths]), expected)
        assert pixels(processor, [image_paths, image_paths[:4]]).shape[:2] == (2, 12)

    def test_decoded_frames_go_in_as_they_come(self, processor, video_path):
        assert torch.equal(pixels(processor, list(iter_video_frames(video_path))), pixels(processor, video_path))

    def test_one_picture_is_a_video_of_one_frame(self, processor, frames):
        expected = pixels(processor, frames[:1])
        assert torch.equal(pixels(processor, frames[0]), expected)
        assert torch.equal(pixels(processor, Image.fromarray(frames[0])), expected)

    def test_gray_is_repeated_over_the_channels(self, processor, frames):
        gray = frames[..., 0]
        expected = pixels(processor, np.repeat(gray[..., None], 3, -1))
        for video in (gray[..., None], gray[:, None], list(gray), [Image.fromarray(frame) for frame in gray]):
            assert torch.equal(pixels(processor, video), expected)

    def test_lists_of_paths_are_batches(self, processor, video_path, long_video_path):
        inputs = processor([video_path, str(long_video_path)])
        assert inputs["frame_mask"].sum(1).tolist() == [12, 75]

    def test_a_url_is_a_video(self, processor, video_path, video_server):
        assert torch.equal(pixels(processor, f"{video_server}/{video_path.name}"), pixels(processor, video_path))

    def test_a_batch_may_mix_every_form_and_each_is_as_it_is_alone(self, processor, frames, video_path, image_paths):
        tall = np.ascontiguousarray(frames[:5].transpose(0, 2, 1, 3))  # (5, 96, 64, 3)
        videos = [
            video_path,
            str(video_path),
            video_path.read_bytes(),
            frames,
            torch.from_numpy(tall).permute(0, 3, 1, 2).float() / 255,
            [Image.fromarray(frame) for frame in frames[:3]],
            [str(path) for path in image_paths[:4]],
        ]
        batch = processor(videos)
        assert batch["frame_mask"].sum(1).tolist() == [12, 12, 12, 12, 5, 3, 4]
        for index, video in enumerate(videos):
            alone = processor(video)
            length = alone["frame_mask"].shape[1]
            assert torch.equal(batch["pixel_values_videos"][index, :length], alone["pixel_values_videos"][0])
            assert torch.equal(batch["pixel_mask"][index], alone["pixel_mask"][0])

    def test_input_data_format_settles_an_ambiguous_shape(self, processor):
        video = torch.zeros(2, 3, 40, 3, dtype=torch.uint8)
        last = processor(video, input_data_format="channels_last")["pixel_mask"]
        first = processor(video, input_data_format="channels_first")["pixel_mask"]
        assert (last[0].any(1).sum(), last[0].any(0).sum()) == (3, 40)
        assert (first[0].any(1).sum(), first[0].any(0).sum()) == (40, 3)

    def test_a_cameras_orientation_tag_is_applied(self, tmp_path, frames):
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees clockwise
        Image.fromarray(frames[0]).save(tmp_path / "phone.png", exif=exif)
        (source,) = list_videos(tmp_path / "phone.png")
        (frame,) = source.read(times=[0.0])
        assert np.array_equal(frame.image, np.rot90(frames[0], -1))

    def test_sixteen_bit_gray_images_keep_their_range(self, processor, tmp_path):
        ramp = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
        Image.fromarray(ramp).save(tmp_path / "deep.png")
        values = pixels(processor, [tmp_path / "deep.png"])
        assert values.min() == -1
        assert values.max() == 1
        assert values.mean().abs() < 0.02

    def test_images_of_floats_and_of_large_integers_keep_their_range(self, processor, tmp_path):
        ramp = np.linspace(0, 1, 96 * 64, dtype=np.float32).reshape(64, 96)
        Image.fromarray(ramp).save(tmp_path / "floats.tiff")
        expected = pixels(processor, ramp[None, ..., None])
        assert torch.equal(pixels(processor, tmp_path / "floats.tiff"), expected)
        assert torch.equal(pixels(processor, [Image.fromarray(ramp)]), expected)
        with pytest.raises(ValueError, match="0 to 255"):
            processor([Image.fromarray(np.full((8, 8), 70000, np.int32))])


class TestOneFrame:
    @pytest.mark.parametrize(
        "convert",
        [
            lambda f: f,
            lambda f: f.transpose(2, 0, 1),
            lambda f: f.astype(np.float32) / 255,
            lambda f: torch.from_numpy(f).permute(2, 0, 1).to(torch.float64),
            lambda f: np.dstack([f, f[..., 0]]),
            Image.fromarray,
        ],
    )
    def test_every_form_of_a_picture_is_the_same_rgb(self, convert, frames):
        assert np.array_equal(rgb_frame(convert(frames[0])), frames[0])

    def test_gray_is_repeated(self, frames):
        assert np.array_equal(rgb_frame(frames[0][..., 0]), np.repeat(frames[0][..., :1], 3, -1))

    @pytest.mark.parametrize(
        ("frame", "error", "message"),
        [
            ("frame.png", TypeError, "str"),
            (np.zeros((2, 4, 4, 3), np.uint8), ValueError, "shape"),
            (np.zeros((0, 4, 3), np.uint8), ValueError, "0x4"),
            (np.zeros((8, 9, 10), np.uint8), ValueError, "channels"),
            (np.full((4, 4, 3), np.nan), ValueError, "Frame 5 .* not finite"),
        ],
    )
    def test_what_is_no_picture_is_named(self, frame, error, message):
        with pytest.raises(error, match=message):
            rgb_frame(frame, 5)


class TestBadInput:
    @pytest.mark.parametrize(
        ("videos", "message"),
        [
            (np.zeros((0, 8, 8, 3), np.uint8), "no frames"),
            ([], "empty"),
            (np.zeros((2, 8, 8, 5), np.uint8), "channels"),
            (np.zeros((2, 8, 8, 2), np.uint8), "channels"),
            (np.zeros((2, 0, 8, 3), np.uint8), "0x8"),
            (np.zeros(5), "no video"),
            (np.full((2, 8, 8, 3), np.nan, np.float32), "not finite"),
            (np.full((2, 8, 8, 3), np.inf), "not finite"),
            (np.full((2, 8, 8, 3), -0.5), "normalisation"),
            (np.full((2, 8, 8, 3), 300), "0 to 255"),
            ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "one size"),
        ],
    )
    def test_each_gives_one_clear_error(self, videos, message, processor):
        with pytest.raises(ValueError, match=message):
            processor(videos)

    def test_one_bad_frame_is_named(self, processor, frames):
        broken = frames.astype(np.float32)
        broken[7, 3, 3, 1] = np.nan
        with pytest.raises(ValueError, match="Frame 7"):
            processor(broken)

    def test_things_that_are_no_video_are_named(self, processor):
        with pytest.raises(TypeError, match="int"):
            processor(3)
        with pytest.raises(TypeError, match="dict"):
            processor([{"pixels": 1}])

    def test_a_broken_picture_is_named(self, processor, tmp_path):
        """To Pillow, a PNG whose chunks are damaged is a syntax error."""
        file = tmp_path / "broken.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)).save(file)
        content = bytearray(file.read_bytes())
        second = content.index(b"IDAT", content.index(b"IDAT") + 4)
        content[second : second + 4] = b"\xff\x00\xff\x00"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
            processor([file])

    def test_bad_files_raise_as_the_decoder_does(self, processor, corrupt_video_path, tmp_path):
        with pytest.raises(VideoDecodeError, match="corrupt.mp4"):
            processor(corrupt_video_path)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            processor(tmp_path / "nowhere.mp4")
        with pytest.raises(FileNotFoundError, match="nowhere"):
            processor([tmp_path / "nowhere.jpg"])
        (tmp_path / "broken.jpg").write_bytes(b"no picture")
        with pytest.raises(ValueError, match="broken.jpg"):
            processor([tmp_path / "broken.jpg"])

    def test_odd_sizes_work(self, processor, odd_size_video_path):
        assert processor(odd_size_video_path)["frame_mask"].shape == (1, 8)
