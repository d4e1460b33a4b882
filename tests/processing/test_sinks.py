"""Files of an analysis: whole or absent, playable anywhere, at the source's times and with its sound."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from kinetrack.processing.sinks import ANALYSIS, ANNOTATED_VIDEO, TRACKS, ResultFolder, VideoSink, _AudioTrack


def write_sink(path, frames, times, frame_rate=25.0, audio_source=None):
    with VideoSink(path, *frames[0].shape[:2], frame_rate, audio_source) as sink:
        for frame, moment in zip(frames, times, strict=True):
            sink.write(frame, moment)
    return path


def read_times(path) -> list[float]:
    with av.open(str(path)) as video:
        return [frame.time for frame in video.decode(video=0)]


def read_sound(path) -> tuple[np.ndarray, float]:
    """Samples at 16 kHz, mono, and the second at which they start."""
    with av.open(str(path)) as video:
        resampler = av.AudioResampler("fltp", "mono", 16000)
        pieces, start = [], None
        for frame in video.decode(audio=0):
            start = frame.time if start is None else start
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    return np.concatenate(pieces), start


def test_video_is_h264_yuv420p_with_its_index_in_front(tmp_path, frames):
    path = write_sink(tmp_path / "out.mp4", frames, np.arange(12) / 25)
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (96, 64)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_colours_survive_the_round_trip(tmp_path):
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[:, :32], frame[:, 32:64], frame[:, 64:] = (200, 30, 30), (30, 200, 30), (30, 30, 200)
    path = write_sink(tmp_path / "out.mp4", [frame] * 3, [0, 0.04, 0.08])
    with av.open(str(path)) as video:
        decoded = next(video.decode(video=0))
        assert decoded.colorspace == 1 and decoded.color_range == 1  # BT.709, limited: said, not guessed by players
        shown = decoded.to_ndarray(format="rgb24", src_colorspace="ITU709")
    for column in (16, 48, 80):
        np.testing.assert_allclose(shown[32, column].astype(int), frame[32, column].astype(int), atol=8)


def test_variable_frame_times_are_kept(tmp_path, frames):
    times = np.cumsum([0, 0.04, 0.1, 0.02, 0.04, 0.1, 0.02, 0.5, 0.033, 0.033, 0.033, 0.01])
    path = write_sink(tmp_path / "out.mp4", frames, times)
    np.testing.assert_allclose(read_times(path), times, atol=2e-5)


def test_a_first_frame_after_zero_stays_there(tmp_path, frames):
    times = 0.5 + np.arange(12) / 25
    np.testing.assert_allclose(read_times(write_sink(tmp_path / "out.mp4", frames, times)), times, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), [(63, 97), (64, 97), (63, 96), (1, 1), (2, 2)])
def test_odd_sizes_gain_a_copied_edge(tmp_path, height, width):
    frames = np.full((3, height, width, 3), 90, np.uint8)
    frames[:, -1:, :] = frames[:, :, -1:] = 220
    path = write_sink(tmp_path / "out.mp4", frames, [0, 0.04, 0.08])
    with av.open(str(path)) as video:
        shown = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert shown.shape[:2] == (height + height % 2, width + width % 2)
    assert shown[-1, -1].mean() > 180


def test_frames_that_change_size_are_fitted_into_the_first(tmp_path):
    frames = [np.full((64, 96, 3), 200, np.uint8), np.full((128, 96, 3), 200, np.uint8)]
    path = tmp_path / "out.mp4"
    with VideoSink(path, 64, 96, 25.0) as sink:
        sink.write(frames[0], 0.0)
        sink.write(frames[1], 0.04)
    with av.open(str(path)) as video:
        shown = list(video.decode(video=0))[1].to_ndarray(format="rgb24")
    assert shown.shape == (64, 96, 3)
    assert shown[32, 48].mean() > 180 and shown[32, 4].mean() < 40


def test_sound_is_copied_and_stays_in_time(tmp_path, long_video_path, draw_frames):
    times = np.arange(75) / 25
    path = write_sink(tmp_path / "out.mp4", draw_frames(75, 160, 96), times, 25.0, long_video_path)
    (expected, expected_start), (found, start) = read_sound(long_video_path), read_sound(path)
    assert abs(start - expected_start) < 1e-3
    length = min(len(found), len(expected))
    assert length > 2.9 * 16000
    np.testing.assert_allclose(found[:length], expected[:length], atol=1e-4)


def test_sound_of_bytes_is_found_too(tmp_path, sound_video_path, frames):
    path = write_sink(tmp_path / "out.mp4", frames, np.arange(12) / 25, 25.0, Path(sound_video_path).read_bytes())
    assert np.abs(read_sound(path)[0]).max() > 0.1


def test_sound_ends_with_the_pictures(tmp_path, long_video_path, draw_frames):
    path = write_sink(tmp_path / "out.mp4", draw_frames(25, 160, 96), np.arange(25) / 25, 25.0, long_video_path)
    sound, _ = read_sound(path)
    assert 0.9 < len(sound) / 16000 < 1.15


@pytest.mark.parametrize("codec", ["pcm_s16le", "flac", "ac3"])
def test_sound_that_browsers_do_not_play_in_mp4_becomes_aac(tmp_path, frames, codec):
    source = tmp_path / "in.mkv"
    with av.open(str(source), "w") as container:
        stream = container.add_stream(codec, rate=44100, layout="mono")
        picture = container.add_stream("ffv1", rate=25)
        picture.width, picture.height, picture.pix_fmt = 96, 64, "yuv420p"
        kind = {"pcm_s16le": "s16", "flac": "s16", "ac3": "fltp"}[codec]
        tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(22050) / 44100)
        for start in range(0, 22016, 1024):
            part = tone[None, start : start + 1024]
            part = (part * 32767).astype(np.int16) if kind == "s16" else part.astype(np.float32)
            sound = av.AudioFrame.from_ndarray(part, format=kind, layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 44100, start, Fraction(1, 44100)
            container.mux(stream.encode(sound))
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(picture.encode(frame))
        container.mux(stream.encode(None))
        container.mux(picture.encode(None))
    path = write_sink(tmp_path / "out.mp4", frames, np.arange(12) / 25, 25.0, source)
    with av.open(str(path)) as video:
        assert video.streams.audio[0].codec_context.name == "aac"
    sound, _ = read_sound(path)
    spectrum = np.abs(np.fft.rfft(sound[1600:6400]))
    assert abs(spectrum.argmax() * 16000 / 4800 - 440) < 10


def test_sound_of_joined_recordings_goes_on(tmp_path, draw_frames, make_video):
    """Its clock jumps back where the second begins."""
    images = draw_frames(25)
    parts = [make_video(tmp_path / f"{part}.ts", images, audio=True, container="mpegts") for part in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    path = write_sink(tmp_path / "out.mp4", [*images, *images], np.arange(50) / 25, 25.0, joined)
    sound, _ = read_sound(path)
    assert 1.8 < len(sound) / 16000 < 2.2 and np.abs(sound[-8000:-4000]).max() > 0.1


def test_sound_that_cannot_be_written_is_no_reason_to_lose_the_pictures(
    tmp_path, sound_video_path, frames, monkeypatch, caplog
):
    def mux(self, packet):
        raise av.error.InvalidDataError(22, "Invalid argument")

    monkeypatch.setattr(_AudioTrack, "_convert", mux)
    path = write_sink(tmp_path / "out.mp4", frames, np.arange(12) / 25, 25.0, sound_video_path)
    with av.open(str(path)) as video:
        assert sum(1 for _ in video.decode(video=0)) == 12
    assert "The sound ends at" in caplog.text


def test_source_without_sound_gives_video_without_sound(tmp_path, video_path, frames):
    path = write_sink(tmp_path / "out.mp4", frames, np.arange(12) / 25, 25.0, video_path)
    with av.open(str(path)) as video:
        assert not video.streams.audio


def test_sound_that_cannot_be_read_does_not_cost_the_pictures(tmp_path, corrupt_video_path, frames):
    path = write_sink(tmp_path / "out.mp4", frames, np.arange(12) / 25, 25.0, corrupt_video_path)
    assert len(read_times(path)) == 12


def test_missing_pyav_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match="pip install av.*--no-video"):
        VideoSink(tmp_path / "out.mp4", 64, 96, 25.0)


def test_nothing_is_visible_before_the_commit(tmp_path):
    with ResultFolder(tmp_path / "a" / "b") as files:
        files.stage(TRACKS).write_text("new")
        assert not (files.path / TRACKS).exists()
        files.commit()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [TRACKS]


def test_failure_leaves_the_earlier_files_and_nothing_else(tmp_path):
    (tmp_path / TRACKS).write_text("old")
    with pytest.raises(RuntimeError), ResultFolder(tmp_path) as files:
        files.stage(TRACKS).write_text("half of the n")
        files.stage(ANALYSIS).write_text("{")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == [TRACKS]
    assert (tmp_path / TRACKS).read_text() == "old"


def test_failure_removes_the_folders_that_were_made(tmp_path):
    with pytest.raises(RuntimeError), ResultFolder(tmp_path / "a" / "b") as files:
        files.stage(TRACKS).write_text("half")
        raise RuntimeError
    assert not (tmp_path / "a").exists()


def test_an_old_video_does_not_stay_beside_a_new_analysis(tmp_path):
    (tmp_path / ANNOTATED_VIDEO).write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    with ResultFolder(tmp_path) as files:
        files.stage(ANALYSIS).write_text("{}")
        files.commit()
    assert sorted(path.name for path in tmp_path.iterdir()) == [ANALYSIS, "notes.txt"]


def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path):
    (tmp_path / "taken").write_text("a file")
    for path in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(OSError, match="cannot be written.*--output"), ResultFolder(path):
            pass
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_folder_where_a_file_should_be_is_a_clear_error(tmp_path):
    (tmp_path / ANNOTATED_VIDEO).mkdir()
    with pytest.raises(IsADirectoryError, match="annotated.mp4 there is a folder"), ResultFolder(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_to_is_a_clear_error(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(PermissionError, match="cannot be written to .*Permission denied"), ResultFolder(tmp_path / "x"):
        pass
    assert not (tmp_path / "x").exists()


# Writes noise as fast as it can; the frames are large enough to reach any limit within a second.
_WRITER = """
import resource, signal, sys
import numpy as np
from kinetrack.processing.sinks import ANNOTATED_VIDEO, ResultFolder, VideoSink
limit = int(sys.argv[2])
if limit:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rng = np.random.default_rng(0)
with ResultFolder(sys.argv[1]) as files, VideoSink(files.stage(ANNOTATED_VIDEO), 240, 320, 25.0) as sink:
    for index in range(400):
        sink.write(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), index / 25)
        if index == 5:
            print("writing", flush=True)
    sink.close()
    files.commit()
"""


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", _WRITER, str(tmp_path / "out"), "200000"], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 1
    assert "File too large" in run.stderr and "OSError" in run.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_interruption_leaves_nothing(tmp_path):
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "out"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (tmp_path / "out").exists()


def test_frames_waiting_in_the_encoder_are_bounded(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    with VideoSink(tmp_path / "out.mp4", 64, 96, 25.0) as sink:
        given = 0
        for index in range(200):
            for packet in sink._stream.encode(_picture(noise, index)):
                given += 1
                buffer.write(bytes(packet))
            assert index + 1 - given < 40  # at 1080p, 3 MB each


def _picture(image, index):
    picture = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p")
    picture.pts, picture.time_base = index * 3600, Fraction(1, 90000)
    return picture
