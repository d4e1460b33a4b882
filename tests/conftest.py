"""Shared fixtures: small videos with moving rectangles, of every kind people bring."""

import io
import logging
import os
import signal
import struct
import threading
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

# Graphs of throw-away models would fill the user's cache; what makes them has tests of its own.
os.environ["KINETRACK_BACKEND"] = "torch"

RED, GREEN, BLUE = (220, 40, 40), (40, 200, 60), (40, 70, 220)


def rectangle_boxes(index: int, width: int, height: int) -> np.ndarray:
    """(2, 4) xyxy of the two rectangles in frame `index`: red walks right along the top, green left below."""
    w, h = width // 6, height // 4
    step = max(1, width // 60)
    left = 4 + step * index
    right = width - 4 - w - step * index
    top, low = height // 10, height - height // 10 - h
    return np.array([[left, top, left + w, top + h], [right, low, right + w, low + h]], dtype=np.float32)


def draw_frame(index: int, width: int, height: int) -> np.ndarray:
    """(H, W, 3) uint8: two moving rectangles and, as a mark of direction, a blue corner at the top left."""
    frame = np.full((height, width, 3), 120, dtype=np.uint8)
    frame[: max(2, height // 12), : max(2, width // 12)] = BLUE
    for (x1, y1, x2, y2), color in zip(rectangle_boxes(index, width, height).astype(int), (RED, GREEN), strict=True):
        frame[max(0, y1) : y2, max(0, x1) : max(0, x2)] = color
    return frame


def make_frames(num_frames: int = 12, width: int = 96, height: int = 64) -> np.ndarray:
    """(T, H, W, 3) uint8 frames of moving rectangles."""
    return np.stack([draw_frame(index, width, height) for index in range(num_frames)])


def write_video(
    path,
    frames: np.ndarray | None = None,
    *,
    frame_rate: int | Fraction = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    audio: bool = False,
    times: list[float] | None = None,
    sample_aspect: Fraction | None = None,
    rotation: int = 0,
    container: str | None = None,
    options: dict[str, str] | None = None,
):
    """Encodes frames with PyAV; `times` (seconds) makes a variable frame rate, `rotation` is clockwise degrees."""
    import av

    frames = make_frames() if frames is None else frames
    height, width = frames.shape[1:3]
    with av.open(path if isinstance(path, io.BytesIO) else str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=frame_rate)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        default = {"crf": "8", "preset": "ultrafast", "g": "12"} if codec in ("libx264", "libx265") else {}
        stream.options = {**default, **(options or {})}
        if sample_aspect:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if times is not None:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        sound = output.add_stream("aac", rate=16000) if audio else None
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            else:
                frame.pts, frame.time_base = index, 1 / Fraction(frame_rate)
            for packet in stream.encode(frame):
                output.mux(packet)
        for packet in stream.encode(None):
            output.mux(packet)
        if sound is not None:
            _write_tone(output, sound, len(frames) / float(frame_rate))
    if rotation:
        _set_rotation(path, rotation)
    return path


def _write_tone(output, stream, seconds: float):
    import av

    samples = np.sin(np.arange(int(seconds * 16000)) * 2 * np.pi * 440 / 16000).astype(np.float32) * 0.2
    for start in range(0, len(samples), 1024):
        chunk = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = 16000, start, Fraction(1, 16000)
        for packet in stream.encode(chunk):
            output.mux(packet)
    for packet in stream.encode(None):
        output.mux(packet)


def _set_rotation(path, degrees: int):
    """Writes the display matrix of the first track of an MP4 file, as a phone does (clockwise degrees)."""
    content = bytearray(Path(path).read_bytes())
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    start = content.index(b"tkhd") + 4
    start += 40 if content[start] == 0 else 52  # past version, times, id, duration, layer, volume
    one = 1 << 16
    content[start : start + 36] = struct.pack(">9i", cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30)
    Path(path).write_bytes(content)


def pytest_configure():
    # Shells start jobs in the background deaf to Ctrl-C, and what tests start would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def caplog(caplog):
    """What KineTrack logs, whatever other packages have done to the loggers of this process."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "kinetrack":
            logger.disabled = False
    with caplog.at_level(logging.WARNING, logger="kinetrack"):
        yield caplog


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory) -> Path:
    """Where the session's videos lie; tests must not write into it."""
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="session")
def frames() -> np.ndarray:
    """(12, 64, 96, 3) uint8."""
    return make_frames()


@pytest.fixture(scope="session")
def video_path(video_folder) -> Path:
    """12 frames at 25 a second, 96x64, H.264, no sound."""
    return write_video(video_folder / "plain.mp4")


@pytest.fixture(scope="session")
def long_video_path(video_folder) -> Path:
    """75 frames (3 s) at 25 a second, 160x96, with sound."""
    return write_video(video_folder / "long.mp4", make_frames(75, 160, 96), audio=True)


@pytest.fixture(scope="session")
def sound_video_path(video_folder) -> Path:
    """12 frames with a 440 Hz tone."""
    return write_video(video_folder / "sound.mp4", audio=True)


@pytest.fixture(scope="session")
def rotated_video_path(video_folder) -> Path:
    """Stored 96x64, displayed 64x96: turned by 90 degrees clockwise, as a phone held upright writes it."""
    return write_video(video_folder / "rotated.mp4", rotation=90)


@pytest.fixture(scope="session")
def variable_rate_video_path(video_folder) -> Path:
    """12 frames whose gaps are 40, 100 and 20 ms in turn."""
    return write_video(video_folder / "variable.mp4", times=variable_times(12))


def variable_times(num_frames: int) -> list[float]:
    """Seconds of the frames of `variable_rate_video_path`."""
    gaps = [0.04, 0.1, 0.02]
    return [sum(gaps[i % 3] for i in range(index)) for index in range(num_frames)]


@pytest.fixture(scope="session")
def gray_video_path(video_folder) -> Path:
    """Pixel format `gray`."""
    return write_video(video_folder / "gray.mkv", pixel_format="gray", codec="ffv1")


@pytest.fixture(scope="session")
def ten_bit_video_path(video_folder) -> Path:
    """H.265, 10 bits a sample."""
    options = {"x265-params": "log-level=none"}
    return write_video(video_folder / "tenbit.mp4", codec="libx265", pixel_format="yuv420p10le", options=options)


@pytest.fixture(scope="session")
def interlaced_video_path(video_folder) -> Path:
    """25 frames a second, each woven from two fields 1/50 s apart, flagged as interlaced."""
    fields = make_frames(24)
    woven = fields[0::2].copy()
    woven[:, 1::2] = fields[1::2][:, 1::2]
    options = {"x264-params": "interlaced=1:tff=1"}
    return write_video(video_folder / "interlaced.mp4", woven, options=options)


@pytest.fixture(scope="session")
def odd_size_video_path(video_folder) -> Path:
    """97x63: sizes that chroma subsampling cannot halve."""
    return write_video(video_folder / "odd.mkv", make_frames(8, 97, 63), codec="ffv1")


@pytest.fixture(scope="session")
def truncated_video_path(video_folder, video_path) -> Path:
    """An MP4 file cut off before its index: nothing in it can be decoded."""
    content = Path(video_path).read_bytes()
    path = video_folder / "truncated.mp4"
    path.write_bytes(content[: len(content) // 2])
    return path


@pytest.fixture(scope="session")
def damaged_video_path(video_folder) -> Path:
    """40 frames of which some packets in the middle are overwritten."""
    path = write_video(video_folder / "damaged.ts", make_frames(40), options={"g": "10"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 188 * 12] = np.random.default_rng(0).integers(0, 256, 188 * 12, dtype=np.uint8).tobytes()
    path.write_bytes(content)
    return path


@pytest.fixture(scope="session")
def corrupt_video_path(video_folder) -> Path:
    """Random bytes with the name of a video."""
    path = video_folder / "corrupt.mp4"
    path.write_bytes(np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes())
    return path


@pytest.fixture(scope="session")
def empty_video_path(video_folder) -> Path:
    """A file of 0 bytes."""
    path = video_folder / "empty.mp4"
    path.write_bytes(b"")
    return path


@pytest.fixture(scope="session")
def zero_frames_video_path(video_folder) -> Path:
    """A well-formed Matroska file that announces a video stream and holds no frame."""
    import av

    path = video_folder / "zero.mkv"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        output.start_encoding()
    return path


@pytest.fixture(scope="session")
def audio_only_path(video_folder) -> Path:
    """A sound file."""
    import av

    path = video_folder / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        _write_tone(output, output.add_stream("aac", rate=16000), 0.5)
    return path


@pytest.fixture(scope="session")
def make_video():
    """`write_video(path, frames=None, *, frame_rate, codec, pixel_format, audio, times, rotation, ...)`."""
    return write_video


@pytest.fixture(scope="session")
def draw_frames():
    """`make_frames(num_frames, width, height)`."""
    return make_frames


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def video_server(video_folder):
    """Address under which the session's videos are served over HTTP, on this machine only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(video_folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


ACTION_NAMES = ["walk", "run", "sit"]
TINY_BACKBONE = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 12, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}


@pytest.fixture(scope="session")
def tiny_backbone() -> dict:
    """`backbone_config` of an encoder of a few thousand weights."""
    return dict(TINY_BACKBONE)


def save_tiny_model(folder: Path, **overrides) -> Path:
    """A model of a few thousand random weights that sees objects everywhere, with its processor, ready to load."""
    import torch
    from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
    from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
    from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor

    settings = {
        "backbone_config": TINY_BACKBONE,
        "hidden_size": 8,
        "embedding_size": 6,
        "attention_window": 8,
        "id2label": dict(enumerate(ACTION_NAMES)),
        "label_groups": {"fight": ["noFight", "fight"]},
        "trained": True,
    }
    torch.manual_seed(0)
    model = KineTrackForVideoAnalysis(KineTrackConfig(**(settings | overrides)))
    with torch.no_grad():
        model.tracking_head.heatmap.weight.mul_(3)
        model.tracking_head.heatmap.bias.zero_()
    model.save_pretrained(folder)
    KineTrackVideoProcessor(size={"height": 64, "width": 96}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    """A tiny model with random weights that says it is trained."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def untrained_model_folder(tmp_path_factory) -> Path:
    """The same, saying that it is not trained."""
    return save_tiny_model(tmp_path_factory.mktemp("models") / "untrained", trained=False)


@pytest.fixture
def serve_folder():
    """`serve_folder(path)`: address of an HTTP server on 127.0.0.1 that serves the folder until the test ends."""
    import functools
    import http.server
    import threading

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    servers = []

    def serve(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
