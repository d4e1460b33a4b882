"""The server side of the Live tab: encoded frames of a webcam in, boxes and identities out, over one WebSocket.

The browser sends a frame only while fewer than two are on their way, and encodes none that it does not send. Here every
chunk is decoded, because the next one builds on it, but only the newest frame goes through the model. So a slow machine
sees fewer frames, and what it shows is always the newest.

Messages in: one text, `{"codec": "vp8" | "mjpeg", "model": name, "threshold": score or null}`, then binary ones: the
frame's number (uint32) and its time (float64, milliseconds), little-endian, then the encoded frame.
Messages out: text, see `LiveStream.look`.
"""

import asyncio
import json
import struct
import time as clock
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect

from ..processing.drawing import identity_color, in_words, text_color
from ..processing.session_kinetrack import KineTrackSession
from .context import Context, sentence
from .limits import Refused

CODECS = ("vp8", "mjpeg")
MAX_PIXELS = 1280 * 720
MAX_CHUNK = 1 << 20  # bytes
MAX_WAITING = 8  # chunks; an honest browser sends two
MAX_MINUTES = 10.0
_IDLE_SECONDS = 30.0
_HEADER = struct.Struct("<Id")


class LiveStream:
    """One webcam: its decoder and its session.

    Args:
        context: of the demo.
        wishes: the first message.

    Raises:
        Refused: a codec, model or threshold that cannot be.
    """

    def __init__(self, context: Context, wishes: dict):
        import av

        if wishes.get("codec") not in CODECS:
            raise Refused("This browser sends a kind of video that is not understood here.")
        threshold = wishes.get("threshold")
        if threshold is not None and not (isinstance(threshold, int | float) and 0 < threshold < 1):
            raise Refused("The threshold is a number between 0 and 1.")
        model, processor = context.networks.get(wishes.get("model"))
        self.session = KineTrackSession(model, processor, threshold=threshold)
        self._decoder = av.CodecContext.create(wishes["codec"], "r")
        self._decoder.thread_count = 1  # more threads would hold frames back
        self._decoder.options = {"max_pixels": str(MAX_PIXELS)}
        labels = model.config.id2label
        self._actions = [labels[index] for index in sorted(labels, key=int)]
        self._sure = float(model.config.action_threshold)
        self._last_time = -1.0

    def decode(self, chunk: bytes):
        """The frame of a chunk, or None.

        Raises:
            Refused: not a frame of the codec, or too large.
        """
        import av

        try:
            frames = self._decoder.decode(av.Packet(chunk))
        except av.error.FFmpegError as error:
            raise Refused("What this browser sent is no video.") from error
        if frames and frames[-1].width * frames[-1].height > MAX_PIXELS:
            raise Refused("The camera’s pictures are too large; at most 1280×720.")
        return frames[-1] if frames else None

    def look(self, frame, milliseconds: float) -> dict:
        """What is in a frame: `tracks` (`id`, `box` in shares of width and height, `color`, `ink`, `label`, and `sure`,
        whether the label is more than a guess), `action`, and `model_ms`, the time this took.
        """
        started = clock.perf_counter()
        self._last_time = max(milliseconds / 1000, self._last_time + 1e-3)
        result = self.session.step(frame.to_ndarray(format="rgb24"), self._last_time)
        size = (result.width, result.height) * 2
        tracks = [
            {
                "id": int(result.track_ids[row]),
                "box": [round(float(value) / side, 4) for value, side in zip(result.boxes[row], size, strict=True)],
                "color": identity_color(result.track_ids[row]),
                "ink": text_color(identity_color(result.track_ids[row])),
                "label": self._named(result.actions[row]),
                "sure": bool(result.actions[row].max() >= self._sure),
            }
            for row in range(len(result.track_ids))
        ]
        taken = 1000 * (clock.perf_counter() - started)
        return {"tracks": tracks, "action": self._named(result.clip_action), "model_ms": round(taken, 1)}

    def _named(self, probabilities) -> str:
        best = int(probabilities.argmax())
        name = f"{in_words(self._actions[best])} {probabilities[best]:.0%}"
        return name if probabilities[best] >= self._sure else f"uncertain ({name})"


class LiveDoor:
    """The WebSocket endpoint: at most so many webcams at once, each for so long.

    Args:
        context: of the demo.
    """

    def __init__(self, context: Context):
        self.context = context
        self.open = 0

    async def __call__(self, socket: WebSocket) -> None:
        """Serves one webcam until the page leaves."""
        await socket.accept()
        if not _same_site(socket):
            return await _end(socket, "Only this page itself may open a live stream.")
        if self.open >= self.context.options.live_sessions:
            return await _end(socket, "All live places are taken at the moment. Try again in a few minutes.")
        self.open += 1
        try:
            await self._serve(socket)
        except WebSocketDisconnect:
            pass
        except Exception as error:
            await _end(socket, sentence(error))
        finally:
            self.open -= 1

    async def _serve(self, socket: WebSocket) -> None:
        wishes = json.loads(await asyncio.wait_for(socket.receive_text(), _IDLE_SECONDS))
        stream = await asyncio.to_thread(LiveStream, self.context, wishes)
        await socket.send_text(json.dumps({"ready": True}))
        waiting: asyncio.Queue = asyncio.Queue(MAX_WAITING)
        reader = asyncio.create_task(_read(socket, waiting))
        deadline = clock.monotonic() + 60 * MAX_MINUTES
        try:
            while True:
                chunks = await asyncio.wait_for(_all_of(waiting), _IDLE_SECONDS)
                if clock.monotonic() > deadline:
                    raise Refused(f"Live ends after {MAX_MINUTES:.0f} minutes here. Start it again if you like.")
                await socket.send_text(json.dumps(await asyncio.to_thread(_answer, stream, chunks)))
        except TimeoutError:
            raise Refused("No picture came from the camera for a while.") from None
        finally:
            reader.cancel()


def _answer(stream: LiveStream, chunks: list[bytes]) -> dict:
    """Decodes all chunks and looks at the newest frame."""
    frame = number = milliseconds = None
    for chunk in chunks:
        number, milliseconds = _HEADER.unpack_from(chunk)
        frame = stream.decode(chunk[_HEADER.size :]) or frame
    seen = {} if frame is None else stream.look(frame, milliseconds)
    return {"number": number, "skipped": len(chunks) - 1, **seen}


async def _read(socket: WebSocket, waiting: asyncio.Queue) -> None:
    """Puts what arrives into a queue; an exception, when it ends, as well."""
    try:
        while True:
            chunk = await socket.receive_bytes()
            if not _HEADER.size < len(chunk) <= MAX_CHUNK:
                raise Refused("What this browser sent is no video.")
            waiting.put_nowait(chunk)
    except asyncio.QueueFull:
        await waiting.put(Refused("This page sends faster than it may."))
    except Exception as error:
        await waiting.put(error)


async def _all_of(waiting: asyncio.Queue) -> list[bytes]:
    """Everything that has arrived, at least one chunk."""
    chunks = [await waiting.get()]
    while not waiting.empty():
        chunks.append(waiting.get_nowait())
    for chunk in chunks:
        if isinstance(chunk, Exception):
            raise chunk
    return chunks


def _same_site(socket: WebSocket) -> bool:
    """Whether the page that connects came from this server; programs send no origin and may."""
    origin = socket.headers.get("origin")
    host = socket.headers.get("x-forwarded-host") or socket.headers.get("host", "")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


async def _end(socket: WebSocket, text: str) -> None:
    """Says why, and closes."""
    try:
        await socket.send_text(json.dumps({"error": text}))
        await socket.close()
    except (RuntimeError, WebSocketDisconnect):
        pass  # the page has left already
