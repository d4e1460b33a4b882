"""What people call a source: cameras, addresses, folders, patterns, pipes, and lists of these."""

import io
import os
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest
from broadcast import free_port, scene, sender, transport_stream
from kinetrack.processing.container_kinetrack import VideoDecodeError
from kinetrack.processing.feed_kinetrack import FrameFeed
from kinetrack.processing.live_kinetrack import StreamPosition
from kinetrack.processing.sources_kinetrack import (
    address_name,
    camera_address,
    find_source,
    masked,
    read_stream_list,
)
from PIL import Image


def read(source, count=None, policy=None, **options):
    """The frames of a source, at most `count`."""
    frames = []
    with FrameFeed(source, policy, **options) as feed:
        for frame in feed.frames():
            frames.append(frame)
            if len(frames) == count:
                break
    return frames


@pytest.fixture
def frame_folder(tmp_path):
    folder = tmp_path / "walk"
    folder.mkdir()
    for index in range(12):
        Image.fromarray(scene(index)).save(folder / f"frame-{index}.png")
    (folder / "notes.txt").write_text("not a frame")
    return folder


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("0", "camera", "camera-0"),
        (2, "camera", "camera-2"),
        ("/dev/video1", "camera", "camera-1"),
        ("rtsp://user:pw@10.0.0.5:554/door?key=1", "network", "10.0.0.5-door"),
        ("http://127.0.0.1/live/stream.m3u8", "network", "127.0.0.1-live-stream.m3u8"),
        ("-", "pipe", "stdin"),
    ],
)
def test_source_is_told_by_how_it_is_written(text, kind, name, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    source = find_source(text)
    assert (source.kind, source.name) == (kind, name)


def test_cameras_are_opened_as_each_system_wants():
    assert camera_address("0", "linux") == ("/dev/video0", "v4l2")
    assert camera_address("/dev/video3", "linux") == ("/dev/video3", "v4l2")
    assert camera_address("1", "darwin") == ("1", "avfoundation")
    assert camera_address("video=Integrated Camera", "win32") == ("video=Integrated Camera", "dshow")
    with pytest.raises(ValueError, match="video=NAME"):
        camera_address("0", "win32")


def test_camera_is_live_and_read_through_its_input_format(monkeypatch):
    """FFmpeg's own test picture takes the place of a camera, which test machines do not have."""
    address = ("testsrc=size=96x64:rate=25", "lavfi")
    monkeypatch.setattr("kinetrack.processing.sources_kinetrack.camera_address", lambda text: address)
    source = find_source("0")
    assert source.is_live
    frames = read(source, 5, "every")
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert frames[0].image.shape == (64, 96, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="names a Linux device")
def test_camera_that_is_not_there_is_one_clear_error():
    with pytest.raises((FileNotFoundError, VideoDecodeError), match="camera-99"):
        read(find_source("99"))


def test_addresses_are_shown_without_what_is_secret():
    assert masked("rtsp://me:pw@cam.local:554/door?token=x") == "rtsp://cam.local:554/door"
    assert address_name("rtmp://host/live/a b") == "host-live-a-b"
    assert masked("/data/me:pw@x.mp4") == "/data/me:pw@x.mp4"


def test_folder_of_frames_is_a_video_in_natural_order(frame_folder):
    frames = read(find_source(frame_folder, frame_rate=10))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(12) / 10)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.image, scene(index))


def test_pattern_chooses_frames(frame_folder):
    source = find_source(str(frame_folder / "frame-1*.png"))
    assert source.name == "frame-1"
    assert len(read(source)) == 3


def test_image_that_cannot_be_read_is_reported_and_left_out(frame_folder):
    (frame_folder / "frame-5.png").write_bytes(b"not an image")
    events = []
    with FrameFeed(find_source(frame_folder)) as feed:
        times = [frame.time for frame in feed.frames(events.append)]
    assert len(times) == 11 and times[5] == pytest.approx(6 / 25)
    assert [event.kind for event in events] == ["connected", "damaged"] and "frame-5" in events[1].message


def test_recordings_in_a_folder_are_played_one_after_the_other_on_one_clock(tmp_path, make_video, draw_frames):
    for name in ("cam-2.mp4", "cam-10.mp4"):
        make_video(tmp_path / name, draw_frames(10))
    frames = read(find_source(tmp_path / "cam-*.mp4"))
    assert [frame.time for frame in frames] == pytest.approx(np.arange(20) / 25, abs=1e-3)
    assert [frame.index for frame in frames] == list(range(20))


def test_file_goes_on_where_it_was_left(tmp_path, make_video, draw_frames):
    path = make_video(tmp_path / "a.mp4", draw_frames(60))
    whole = read(find_source(path))
    rest = read(find_source(path), position=StreamPosition(whole[39].time, 40))
    assert [(frame.index, frame.time) for frame in rest] == [(frame.index, frame.time) for frame in whole[40:]]
    np.testing.assert_array_equal(rest[0].image, whole[40].image)


def test_live_source_goes_on_later_by_the_time_it_was_left_alone(monkeypatch):
    monkeypatch.setattr(
        "kinetrack.processing.sources_kinetrack.camera_address", lambda text: ("testsrc=size=96x64:rate=25", "lavfi")
    )
    frame = read(find_source("0"), 1, "every", position=StreamPosition(100.0, 7, away=12.0))[0]
    assert frame.index == 7
    assert frame.unseen == pytest.approx(frame.time - 100.04) and 12 < frame.time - 100 < 20


@pytest.mark.parametrize("pixel_format", ["rgb24", "bgr24", "gray", "nv12"])
def test_raw_frames_come_through_a_pipe(monkeypatch, pixel_format):
    reader, writer = os.pipe()
    images = [np.full((64, 96, 3), 40 * index + 20, np.uint8) for index in range(5)]

    def feed():
        with os.fdopen(writer, "wb") as pipe:
            for image in images:
                frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
                pipe.write(frame.to_ndarray().tobytes())

    with os.fdopen(reader, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", type("Standard", (), {"buffer": pipe}))
        thread = threading.Thread(target=feed)
        thread.start()
        frames = read(find_source("-", frame_size=(64, 96), pixel_format=pixel_format, frame_rate=50))
        thread.join()
    assert [frame.time for frame in frames] == pytest.approx(np.arange(5) / 50)
    for frame, image in zip(frames, images, strict=True):
        np.testing.assert_allclose(frame.image.astype(int), image, atol=2)


def test_container_comes_through_a_pipe(monkeypatch):
    monkeypatch.setattr(sys, "stdin", type("Standard", (), {"buffer": io.BytesIO(transport_stream(20))}))
    assert [round(25 * frame.time) for frame in read(find_source("-"))] == list(range(20))


def test_a_silent_pipe_does_not_crash_the_program_that_ends():
    program = (
        "import time; from kinetrack.processing.feed_kinetrack import FrameFeed; "
        "from kinetrack.processing.sources_kinetrack import find_source; "
        "feed = FrameFeed(find_source('-', frame_size=(64, 96))); time.sleep(0.5); feed.close()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.wait(120)  # nobody writes or closes its input
        assert process.returncode == 0, process.stderr.read().decode()


def test_raw_frame_is_seen_as_soon_as_it_is_complete(monkeypatch):
    """A camera program's frame must not wait in a buffer for the next one."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as pipe, os.fdopen(writer, "wb", buffering=0) as camera:
        monkeypatch.setattr(sys, "stdin", type("Standard", (), {"buffer": pipe}))
        source = find_source("-", frame_size=(64, 96))
        for _ in range(2):  # FFmpeg looks at the first ones to learn the rate
            camera.write(bytes(64 * 96 * 3))
        with FrameFeed(source) as feed:
            frames = feed.frames()
            next(frames)
            threading.Timer(5, camera.close).start()
            started = time.monotonic()
            camera.write(bytes(64 * 96 * 3))
            next(frames)
            assert time.monotonic() - started < 4


@pytest.mark.parametrize(
    ("address", "container", "listen", "sending"),
    [
        (
            "rtsp://127.0.0.1:{}/door",
            "rtsp",
            {"rtsp_flags": "listen", "listen_timeout": "20"},
            {"rtsp_transport": "tcp"},
        ),
        ("rtmp://127.0.0.1:{}/live/door", "flv", {"listen": "1"}, {}),
    ],
    ids=["rtsp", "rtmp"],
)
def test_stream_of_a_real_protocol_is_received(address, container, listen, sending):
    """FFmpeg sends, from another process; the receiver waits for it, as for cameras that push."""
    address = address.format(free_port())
    source = find_source(address, options=listen)
    assert source.is_live
    with sender(address, container, sending):
        frames = read(source, 10, "every")
    assert all(np.diff([frame.time for frame in frames]) > 0)
    assert frames[9].time == pytest.approx(9 / 25, abs=0.1) and frames[0].image.shape == (64, 96, 3)


@pytest.mark.parametrize("ends", [True, False], ids=["recording", "live"])
def test_hls_is_received_and_a_playlist_that_ends_is_a_recording(tmp_path, draw_frames, ends, serve_folder):
    with av.open(
        str(tmp_path / "list.m3u8"), "w", format="hls", options={"hls_time": "1", "hls_list_size": "0"}
    ) as out:
        stream = out.add_stream("libx264", rate=25, options={"g": "25", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(75):
            frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24")
            frame.pts = index
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    playlist = tmp_path / "list.m3u8"
    if not ends:
        playlist.write_text(playlist.read_text().replace("#EXT-X-ENDLIST\n", ""))
    with FrameFeed(find_source(f"{serve_folder(tmp_path)}/list.m3u8")) as feed:
        frames = []
        for frame in feed.frames():
            frames.append(frame)
            if not ends:
                break
        assert feed.is_live is not ends
        assert feed.policy == ("every" if ends else "latest")
    assert len(frames) == (75 if ends else 1)


def test_list_of_streams(tmp_path):
    path = tmp_path / "cameras.streams"
    path.write_text("# at the door\nrtsp://cam/door\n\n 0 \n")
    assert read_stream_list(path) == ["rtsp://cam/door", "0"]
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="one a line"):
        read_stream_list(path)
    with pytest.raises(FileNotFoundError, match="list of streams"):
        read_stream_list(tmp_path / "missing.streams")


def test_what_is_not_there_is_one_clear_error(tmp_path, frame_folder, make_video):
    with pytest.raises(FileNotFoundError, match="no video at"):
        find_source(tmp_path / "missing.mp4")
    with pytest.raises(FileNotFoundError, match="no images and no videos"):
        find_source(str(tmp_path / "*.jpg"))
    make_video(frame_folder / "film.mp4")
    with pytest.raises(ValueError, match="12 images and 1 videos"):
        find_source(frame_folder)
    with pytest.raises(TypeError, match="list"):
        find_source(["a.mp4"])
    with pytest.raises(ValueError, match="policy"):
        FrameFeed(find_source("0"), "newest")


def test_file_under_latest_is_played_at_its_own_speed(tmp_path, make_video, draw_frames):
    source = find_source(make_video(tmp_path / "a.mp4", draw_frames(25)))
    started = time.monotonic()
    frames = read(source, policy="latest")
    assert time.monotonic() - started > 0.9
    assert frames[-1].time == pytest.approx(0.96, abs=0.1)
