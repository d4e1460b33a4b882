"""A camera for tests: an HTTP server on 127.0.0.1 whose MPEG-TS is cut, damaged, resized or stalled as told."""

import contextlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import av
import numpy as np

# What a script yields besides bytes.
STALL = object()  # sends nothing until the server closes


def scene(index: int, width: int = 96, height: int = 64) -> np.ndarray:
    """(H, W, 3) uint8 of a textured wall that moves slowly to the left; the first bytes of a row tell `index` apart."""
    rng = np.random.default_rng(5)
    wall = rng.integers(0, 255, (height // 8, width, 3), dtype=np.uint8).repeat(8, 0).repeat(2, 1)
    return np.ascontiguousarray(wall[:, index % width : index % width + width])


def transport_stream(count: int, *, width: int = 96, height: int = 64, rate: int = 25, start: int = 0) -> bytes:
    """MPEG-TS of `count` frames whose times begin at frame `start`; every fifth frame can be started from."""
    import io

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as output:
        stream = output.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "g": "5", "crf": "12"}
        for index in range(start, start + count):
            frame = av.VideoFrame.from_ndarray(scene(index, width, height), format="rgb24")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


class Broadcast:
    """Serves scripts: the n-th connection gets the n-th script, the last one for ever after.

    Args:
        scripts: each returns what to send, bytes or `STALL`. None refuses the connection.
    """

    def __init__(self, *scripts: Callable[[], Iterator] | None):
        self.scripts, self.connections = scripts, 0
        self._closing = threading.Event()
        broadcast = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                broadcast._serve(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}/door.ts"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def _serve(self, handler):
        number = min(self.connections, len(self.scripts) - 1)
        self.connections += 1
        if self.scripts[number] is None:
            handler.send_error(503)
            return
        handler.send_response(200)
        handler.send_header("Content-Type", "video/mp2t")
        handler.end_headers()
        try:
            for piece in self.scripts[number]():
                if piece is STALL:
                    self._closing.wait()
                    return
                handler.wfile.write(piece)
        except OSError:
            pass  # the receiver has left

    def __enter__(self) -> "Broadcast":
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def send(*pieces, pause: float = 0.0) -> Callable[[], Iterator]:
    """A script that sends pieces one after the other, `pause` seconds apart."""

    def script():
        for piece in pieces:
            yield piece
            time.sleep(pause)

    return script


def in_real_time(stream: bytes, seconds: float, parts: int = 20) -> Callable[[], Iterator]:
    """A script that spreads a stream over some seconds."""
    size = -(-len(stream) // parts // 188) * 188
    return send(*(stream[i : i + size] for i in range(0, len(stream), size)), pause=seconds / parts)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def sender(address: str, container: str, options: dict[str, str]):
    """A process that sends to an address as soon as somebody listens there.

    It is a process because PyAV holds the interpreter while it greets a receiver, who could not answer.
    """
    settings = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, __file__, address, container, *settings]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # it complains when the receiver leaves
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def publish(address: str, container: str, options: dict[str, str], frames: int = 200):
    """Sends frames in real time, until the receiver leaves."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(av.error.ConnectionRefusedError), av.open(address, "w", container, options) as output:
            stream = output.add_stream("libx264", rate=25, options={"tune": "zerolatency", "g": "5"})
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(scene(index), format="rgb24")
                frame.pts = index
                output.mux(stream.encode(frame))
                time.sleep(0.02)
            return
        time.sleep(0.05)


if __name__ == "__main__":
    publish(*sys.argv[1:3], dict(setting.split("=") for setting in sys.argv[3:]))
