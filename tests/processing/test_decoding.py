"""Reading video: as displayed, at the right times, and what happens when a file is bad."""

import gc
import io
import logging
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from kinetrack.processing.container_kinetrack import PyAVVideo
from kinetrack.processing.decoding_kinetrack import (
    VideoDecodeError,
    iter_video_frames,
    probe_video,
    read_video,
    select_frames,
)

GAPS = (0.04, 0.1, 0.02)  # of the fixture with a variable rate


def is_close_to(image, color, tolerance=24):
    return np.abs(image.astype(int) - color).max() <= tolerance


BLUE, GREY = (40, 70, 220), (120, 120, 120)


def test_frames_come_in_order_with_their_times(video_path, frames):
    read = list(iter_video_frames(video_path))
    assert [frame.index for frame in read] == list(range(12))
    assert [frame.time for frame in read] == pytest.approx([i / 25 for i in range(12)])
    for frame, original in zip(read, frames, strict=True):
        assert frame.image.dtype == np.uint8
        assert frame.image.flags.c_contiguous
        assert np.abs(frame.image.astype(int) - original).mean() < 4


def test_probe_says_what_the_file_holds(sound_video_path, video_path):
    info = probe_video(sound_video_path)
    assert (info.width, info.height, info.frame_rate, info.num_frames) == (96, 64, 25.0, 12)
    assert info.duration == pytest.approx(0.48, abs=0.02)
    assert info.has_audio
    assert info.codec == "h264"
    assert not probe_video(video_path).has_audio


@pytest.mark.parametrize("kind", ["str", "path", "bytes", "file", "bytesio", "file_url"])
def test_any_kind_of_source_gives_the_same_frames(kind, video_path):
    source = {
        "str": lambda: str(video_path),
        "path": lambda: video_path,
        "bytes": video_path.read_bytes,
        "file": lambda: video_path.open("rb"),
        "bytesio": lambda: io.BytesIO(video_path.read_bytes()),
        "file_url": video_path.as_uri,
    }[kind]()
    expected = read_video(video_path).frames
    assert np.array_equal(read_video(source).frames, expected)
    assert np.array_equal(read_video(source, num_frames=5).frames, read_video(video_path, num_frames=5).frames)
    if kind == "file":
        assert not source.closed
        source.close()


def test_a_url_is_read_over_http(video_path, video_server):
    url = f"{video_server}/{video_path.name}"
    assert np.array_equal(read_video(url).frames, read_video(video_path).frames)
    with pytest.raises(FileNotFoundError, match="nothing.mp4"):
        probe_video(f"{video_server}/nothing.mp4")


def test_a_name_with_a_colon_is_a_file_and_no_protocol(video_path, tmp_path):
    path = tmp_path / "concat:12:30 #1.mp4"
    path.write_bytes(video_path.read_bytes())
    assert probe_video(path).num_frames == 12


def test_rotation_metadata_is_applied(rotated_video_path, video_path):
    turned, stored = read_video(rotated_video_path), read_video(video_path)
    assert (turned.info.width, turned.info.height, turned.info.rotation) == (64, 96, 90)
    # Clockwise: what was the top left corner is now at the top right.
    assert is_close_to(turned.frames[0, 2, -3], BLUE)
    assert np.array_equal(turned.frames, np.rot90(stored.frames, -1, axes=(1, 2)))


@pytest.mark.parametrize(("degrees", "turns"), [(180, 2), (270, 3)])
def test_every_quarter_turn_is_clockwise(degrees, turns, tmp_path, make_video, video_path):
    turned = read_video(make_video(tmp_path / "turned.mp4", rotation=degrees))
    assert np.array_equal(turned.frames, np.rot90(read_video(video_path).frames, -turns, axes=(1, 2)))


@pytest.mark.parametrize(
    ("aspect", "rotation", "shape"),
    [(Fraction(2, 1), 0, (64, 192)), (Fraction(1, 2), 0, (128, 96)), (Fraction(2, 1), 90, (192, 64))],
)
def test_sample_aspect_makes_pixels_square(aspect, rotation, shape, tmp_path, make_video):
    path = make_video(tmp_path / "anamorphic.mp4", sample_aspect=aspect, rotation=rotation)
    clip = read_video(path)
    assert clip.frames.shape[1:3] == shape
    assert (clip.info.height, clip.info.width) == shape


def test_variable_frame_rate_keeps_the_times(variable_rate_video_path):
    times = read_video(variable_rate_video_path).times
    assert times == pytest.approx([sum(GAPS[i % 3] for i in range(n)) for n in range(12)], abs=1e-3)


def test_ten_bit_video_has_the_same_colors(ten_bit_video_path, frames):
    read = read_video(ten_bit_video_path).frames
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - frames).mean() < 5
    assert is_close_to(read[0, 60, 2], GREY, 8)


def test_gray_video_becomes_rgb_with_equal_channels(gray_video_path, frames):
    read = read_video(gray_video_path).frames
    assert read.shape == frames.shape
    assert np.array_equal(read[..., 0], read[..., 2])
    luma = frames @ [0.299, 0.587, 0.114]
    assert np.abs(read[..., 0] - luma).mean() < 3


def test_interlaced_video_is_deinterlaced(interlaced_video_path):
    read = list(iter_video_frames(interlaced_video_path))
    assert len(read) == 12
    assert [frame.time for frame in read] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)

    def comb(image):  # how much more neighbouring lines differ than lines of one field
        gray = image.astype(float).mean(-1)
        return np.abs(np.diff(gray, axis=0)).mean() - np.abs(gray[2:] - gray[:-2]).mean() / 2

    import av

    with av.open(str(interlaced_video_path)) as container:
        woven = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    ours, raw = (np.mean([comb(image) for image in images[2:-2]]) for images in ([f.image for f in read], woven))
    assert ours < raw / 2


def test_progressive_video_is_not_touched_by_the_deinterlacer(video_path):
    import av

    with av.open(str(video_path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.array_equal(read_video(video_path).frames, np.stack(plain))


def test_odd_sizes_are_kept(odd_size_video_path):
    assert read_video(odd_size_video_path).frames.shape == (8, 63, 97, 3)


def test_a_recording_that_starts_late_starts_at_zero(tmp_path, make_video):
    read = list(iter_video_frames(make_video(tmp_path / "broadcast.ts")))  # MPEG-TS starts at 1.4 s or so
    assert [frame.time for frame in read] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)


def test_a_frame_without_a_time_follows_the_one_before(tmp_path, make_video, monkeypatch):
    decoded = PyAVVideo._decoded

    def without(self):
        for index, frame in enumerate(decoded(self)):
            if index == 5:
                frame.pts = None
            yield frame

    monkeypatch.setattr(PyAVVideo, "_decoded", without)
    read = list(iter_video_frames(make_video(tmp_path / "late.ts")))
    assert [frame.time for frame in read] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 0.04, 0.04, 0.12, 0.16, 0.16, 0.24, 0.28], [0, 0.04, 0.05, 0.12, 0.16, 0.17, 0.24, 0.28]),
        ([0, 0.04, 0.12, 0.08, 0.16, 0.2], [0, 0.04, 0.12, 0.13, 0.16, 0.2]),
        ([0, *[0.04] * 6, 0.08, 0.12], [0, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12]),
        ([0, 0.4, 0.8, 0, 0.4, 0.4, 0.8], [0, 0.4, 0.8, 0.84, 1.24, 1.25, 1.64]),
    ],
    ids=["repeated", "out of order", "repeated for long", "joined"],
)
def test_a_time_that_is_no_later_moves_that_frame_alone(
    times, expected, tmp_path, make_video, draw_frames, monkeypatch
):
    decoded = PyAVVideo._decoded

    def at_times(self):
        for frame, time in zip(decoded(self), times, strict=True):
            frame.pts = round(time / frame.time_base)
            yield frame

    monkeypatch.setattr(PyAVVideo, "_decoded", at_times)
    read = list(iter_video_frames(make_video(tmp_path / "clock.mp4", draw_frames(len(times)))))
    assert [frame.time for frame in read] == pytest.approx(expected, abs=1e-3)


def test_a_bare_stream_without_times_gets_equal_steps(tmp_path, make_video):
    path = make_video(tmp_path / "bare.h264", container="h264")
    assert read_video(path).times == pytest.approx([i / 25 for i in range(12)])
    assert read_video(path, num_frames=3, frame_rate=12.5).indices.tolist() == [2, 4, 6]


def test_sound_covers_are_no_video(tmp_path, audio_only_path):
    with pytest.raises(VideoDecodeError, match="sound only"):
        probe_video(audio_only_path)


def test_start_and_stop_cut_in_seconds(long_video_path):
    part = list(iter_video_frames(long_video_path, start=1.0, stop=1.2))
    assert [frame.index for frame in part] == [25, 26, 27, 28, 29]


@pytest.mark.parametrize(
    ("settings", "indices"),
    [
        ({"frame_rate": 12.5}, list(range(0, 75, 2))),
        ({"frame_rate": 50}, list(range(75))),
        ({"num_frames": 4, "frame_rate": 12.5}, [34, 36, 38, 40]),
        ({"num_frames": 3}, [12, 37, 62]),
        ({"num_frames": 200}, list(range(75))),
    ],
)
def test_frames_are_chosen_by_time(settings, indices, long_video_path):
    clip = read_video(long_video_path, **settings)
    whole = read_video(long_video_path)
    assert clip.indices.tolist() == indices
    assert clip.times == pytest.approx(whole.times[indices])
    assert np.array_equal(clip.frames, whole.frames[indices])


def test_a_clip_from_far_inside_equals_decoding_from_the_start(tmp_path, make_video, draw_frames):
    path = make_video(tmp_path / "long.mp4", draw_frames(250, 64, 48), options={"g": "50"})
    clip = read_video(path, num_frames=6, frame_rate=12.5)
    assert np.array_equal(clip.frames, read_video(path).frames[clip.indices])
    assert clip.times == pytest.approx(clip.indices / 25)


class TestSelectFrames:
    def test_thirty_hertz_to_the_models_rate_keeps_that_rate(self):
        times = np.arange(300) / 30
        chosen = select_frames(times, 12.5)
        assert len(chosen) == 125
        assert np.diff(times[chosen]).max() <= 1 / 12.5 + 1 / 30 + 1e-9

    def test_millisecond_timestamps_do_not_lose_ticks(self):
        times = np.round(np.arange(100) / 29.97, 3)
        assert len(select_frames(times, 29.97)) == 100

    def test_a_variable_rate_is_sampled_in_seconds_not_frames(self):
        times = np.concatenate([np.arange(50) / 50, 1 + np.arange(10) / 5])  # 1 s at 50 Hz, 2 s at 5 Hz
        chosen = times[select_frames(times, 10)]
        assert (chosen < 1).sum() == 10
        assert (chosen >= 1).sum() == 10

    def test_few_frames_are_never_repeated(self):
        assert select_frames(np.arange(3) / 25, 12.5, 16).tolist() == [0, 2]
        assert select_frames(np.arange(3) / 25, None, 16).tolist() == [0, 1, 2]

    @pytest.mark.parametrize("settings", [{"frame_rate": 0}, {"frame_rate": -1}, {"num_frames": 0}])
    def test_impossible_choices_are_refused(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            select_frames(np.arange(3), **settings)


class TestBadSources:
    @pytest.mark.parametrize(
        ("fixture", "message"),
        [
            ("corrupt_video_path", "not a video"),
            ("truncated_video_path", "cut off"),
            ("empty_video_path", "0 bytes"),
            ("zero_frames_video_path", "cut off"),
            ("audio_only_path", "sound only"),
            ("video_folder", "folder"),
        ],
    )
    def test_each_gives_one_clear_error(self, fixture, message, request):
        path = request.getfixturevalue(fixture)
        for read in (probe_video, read_video, lambda p: next(iter_video_frames(p)), lambda p: read_video(p, 4)):
            with pytest.raises(VideoDecodeError, match=message) as caught:
                read(path)
            assert str(path) in str(caught.value)

    def test_a_missing_file_is_file_not_found(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere.mp4"):
            list(iter_video_frames(tmp_path / "nowhere.mp4"))

    def test_no_bytes_and_no_source_are_named(self):
        with pytest.raises(VideoDecodeError, match="0 bytes"):
            probe_video(b"")
        with pytest.raises(TypeError, match="ndarray"):
            probe_video(np.zeros((2, 4, 4, 3)))

    def test_a_damaged_middle_is_skipped_and_the_end_still_comes(self, damaged_video_path):
        times = [frame.time for frame in iter_video_frames(damaged_video_path)]
        assert 20 <= len(times) < 40
        assert (np.diff(times) > 0).all()
        assert times[-1] == pytest.approx(39 / 25, abs=0.05)

    def test_no_frame_waits_for_the_garbage_collector(self, video_path):
        def frames_alive():
            return sum(type(one) is av.VideoFrame for one in gc.get_objects())

        gc.collect()
        gc.disable()
        try:
            before = frames_alive()
            assert len(list(iter_video_frames(video_path))) > 1
            assert frames_alive() == before
        finally:
            gc.enable()

    def test_damage_gives_one_warning_and_what_is_left(self, tmp_path, make_video, draw_frames, caplog):
        path = make_video(tmp_path / "holes.mp4", draw_frames(60))
        content = bytearray(path.read_bytes())
        for part in (0.4, 0.5, 0.6):
            start = int(len(content) * part)
            content[start : start + 300] = bytes(300)
        path.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            read = list(iter_video_frames(path))
        assert 20 <= len(read) <= 60
        assert sum("holes.mp4" in record.message for record in caplog.records) == 1

    def test_a_file_that_ends_before_its_announced_end_is_told(self, tmp_path, make_video, draw_frames, caplog):
        path = make_video(tmp_path / "early.mkv", draw_frames(60))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with caplog.at_level(logging.WARNING):
            assert 5 < len(list(iter_video_frames(path))) < 60
        assert "of the 2.4 s announced" in caplog.text

    def test_a_file_cut_at_its_end_gives_what_is_there(self, tmp_path, make_video, draw_frames):
        path = make_video(tmp_path / "cut.ts", draw_frames(40))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert 5 < len(list(iter_video_frames(path))) < 40
        assert len(read_video(path, num_frames=4, frame_rate=12.5).frames) == 4

    def test_an_unknown_backend_is_named(self, video_path):
        with pytest.raises(ValueError, match="backend"):
            probe_video(video_path, backend="opencv")


def test_reading_needs_no_more_memory_for_a_longer_video(tmp_path, make_video, draw_frames):
    import tracemalloc

    path = make_video(tmp_path / "many.mp4", np.repeat(draw_frames(1, 320, 240), 120, axis=0))

    def peak(stop):
        tracemalloc.start()
        for _ in iter_video_frames(path, stop=stop):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(0.2)
    assert peak(4.8) < peak(0.8) + 320 * 240 * 3


def test_torchcodec_reads_the_same_frames_where_it_loads(video_path, rotated_video_path, tmp_path, make_video):
    from kinetrack.processing.torchcodec_kinetrack import import_torchcodec

    if import_torchcodec() is None:
        pytest.skip("torchcodec is not installed or finds no FFmpeg")
    wide = make_video(tmp_path / "anamorphic.mp4", sample_aspect=Fraction(2, 1), rotation=90)
    for path in (video_path, rotated_video_path, wide):
        ours, other = read_video(path, backend="pyav"), read_video(path, backend="torchcodec")
        assert ours.frames.shape == other.frames.shape
        assert np.abs(ours.frames.astype(int) - other.frames).mean() < 3
        assert other.times == pytest.approx(ours.times)


def test_without_pyav_and_torchcodec_the_error_says_what_to_install(video_path, monkeypatch):
    for name in ("av", "torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install av"):
        probe_video(video_path)
    with pytest.raises(ImportError, match="torchcodec"):
        probe_video(video_path, backend="torchcodec")


def test_without_pyav_torchcodec_takes_over_where_it_loads(video_path, monkeypatch):
    from kinetrack.processing.torchcodec_kinetrack import import_torchcodec

    if import_torchcodec() is None:
        pytest.skip("torchcodec is not installed or finds no FFmpeg")
    monkeypatch.setitem(sys.modules, "av", None)
    assert read_video(video_path, num_frames=3, frame_rate=12.5).indices.tolist() == [2, 4, 6]


def test_reading_video_needs_no_torch():
    code = "import sys, kinetrack.processing.decoding_kinetrack; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
