"""The webcam's other end: encoded frames in, boxes out, the newest frame first, and no more than it can serve."""

import io
import json
import struct
from fractions import Fraction

import numpy as np
import pytest
from kinetrack.demo.limits import Refused
from kinetrack.demo.live import LiveDoor, LiveStream, _answer
from PIL import Image
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient


def vp8_chunks(frames) -> list[bytes]:
    """Frames as a browser's VP8 encoder gives them, one chunk each."""
    import av

    height, width = frames.shape[1:3]
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"deadline": "realtime", "lag-in-frames": "0"}
    packets = []
    for frame in frames:
        packets += encoder.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
    return [bytes(packet) for packet in [*packets, *encoder.encode(None)]]


def message(number: int, chunk: bytes) -> bytes:
    return struct.pack("<Id", number, 40.0 * number) + chunk


def jpeg(frame) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("codec", ["vp8", "mjpeg"])
def test_a_stream_sees_what_a_session_sees(codec, context, draw_frames):
    frames = draw_frames(6)
    chunks = vp8_chunks(frames) if codec == "vp8" else [jpeg(frame) for frame in frames]
    stream = LiveStream(context, {"codec": codec})
    for number, chunk in enumerate(chunks):
        decoded = stream.decode(chunk)
        assert np.abs(decoded.to_ndarray(format="rgb24").astype(int) - frames[number]).mean() < 8
        seen = stream.look(decoded, 40.0 * number)
    assert seen["tracks"] and seen["model_ms"] > 0
    for track in seen["tracks"]:
        assert set(track) == {"id", "box", "color", "ink", "label", "sure"}
        assert track["sure"] != track["label"].startswith("uncertain")
        x1, y1, x2, y2 = track["box"]
        assert x1 < x2 and y1 < y2
    assert [track["id"] for track in seen["tracks"]] == sorted({track["id"] for track in seen["tracks"]})
    json.dumps(seen)


def test_only_the_newest_of_several_frames_is_looked_at(context, draw_frames, monkeypatch):
    chunks = vp8_chunks(draw_frames(5))
    stream = LiveStream(context, {"codec": "vp8"})
    looked = []
    monkeypatch.setattr(stream, "look", lambda frame, milliseconds: looked.append(milliseconds) or {})
    answer = _answer(stream, [message(number, chunk) for number, chunk in enumerate(chunks)])
    assert looked == [160.0]
    assert answer == {"number": 4, "skipped": 4}


def test_a_clock_that_stands_still_does_not_end_the_stream(context, draw_frames):
    stream = LiveStream(context, {"codec": "mjpeg"})
    for frame in draw_frames(3):
        stream.look(stream.decode(jpeg(frame)), 5.0)


@pytest.mark.parametrize("wishes", [{}, {"codec": "h264; rm"}, {"codec": "vp8", "threshold": 7}])
def test_wishes_that_cannot_be_are_refused(wishes, context):
    with pytest.raises(Refused):
        LiveStream(context, wishes)


def test_only_models_of_the_demo_are_loaded(context):
    with pytest.raises(ValueError, match="There is no model '../../etc'"):
        LiveStream(context, {"codec": "vp8", "model": "../../etc"})


def test_what_is_no_video_is_refused(context):
    stream = LiveStream(context, {"codec": "mjpeg"})
    with pytest.raises(Refused):
        stream.decode(b"\xff\xd8" + b"no picture" * 20)


def test_pictures_that_are_too_large_are_refused(context):
    stream = LiveStream(context, {"codec": "mjpeg"})
    with pytest.raises(Refused):
        stream.decode(jpeg(np.zeros((1200, 1600, 3), np.uint8)))


@pytest.fixture
def door(context):
    return LiveDoor(context)


@pytest.fixture
def visitor(door):
    return TestClient(Starlette(routes=[WebSocketRoute("/live", door.__call__)]))


def test_frames_are_answered_over_the_socket(visitor, door, draw_frames):
    with visitor.websocket_connect("/live", headers={"origin": "http://testserver"}) as socket:
        socket.send_text(json.dumps({"codec": "vp8"}))
        assert socket.receive_json() == {"ready": True}
        for number, chunk in enumerate(vp8_chunks(draw_frames(3))):
            socket.send_bytes(message(number, chunk))
            assert socket.receive_json()["number"] == number
        assert door.open == 1
    assert door.open == 0


def test_more_webcams_than_places_are_told_so(visitor, context):
    places = context.options.live_sessions
    sockets = [visitor.websocket_connect("/live") for _ in range(places)]
    opened = [socket.__enter__() for socket in sockets]
    for socket in opened:
        socket.send_text(json.dumps({"codec": "vp8"}))
        assert socket.receive_json() == {"ready": True}
    with visitor.websocket_connect("/live") as late:
        assert "All live places are taken" in late.receive_json()["error"]
    for socket in sockets:
        socket.__exit__(None, None, None)


def test_other_sites_pages_may_not_connect(visitor):
    with visitor.websocket_connect("/live", headers={"origin": "https://evil.example"}) as socket:
        assert "Only this page" in socket.receive_json()["error"]


@pytest.mark.parametrize("chunk", [b"short", b"x" * ((1 << 20) + 1)])
def test_messages_that_are_no_frames_end_the_stream_with_a_sentence(visitor, chunk):
    with visitor.websocket_connect("/live") as socket:
        socket.send_text(json.dumps({"codec": "mjpeg"}))
        assert socket.receive_json() == {"ready": True}
        socket.send_bytes(chunk)
        assert socket.receive_json()["error"] == "What this browser sent is no video."


def test_nonsense_instead_of_wishes_ends_with_a_sentence(visitor):
    with visitor.websocket_connect("/live") as socket:
        socket.send_text("[1, 2]")
        assert "Traceback" not in socket.receive_json()["error"]
