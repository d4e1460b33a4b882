"""A Hub on this machine for uploads with the real client; made-up data to train on, and processes to do it in."""

import dataclasses
import json
import multiprocessing
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from kinetrack.hub_scripts.data.splits import parse_item, read_split
from kinetrack.hub_scripts.train_config import DataSettings, ModelSettings, StreamSettings, TrainConfig


class Hub(BaseHTTPRequestHandler):
    """The endpoints the client calls for one commit: create, preupload, LFS batch, PUT, commit."""

    def do_GET(self):
        if "/tree/" in self.path:
            return self.answer(
                [{"type": "file", "oid": "0" * 40, "size": 1, "path": path} for path in self.server.there]
            )
        return self.answer({"name": "me", "type": "user", "sha": "0" * 40, "siblings": [], "id": "me/model"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub = self.server
        hub.calls.append(self.path)
        if hub.refuse is not None:
            return self.answer({"error": "no"}, hub.refuse)
        if self.path.endswith("/repos/create"):
            hub.created.append(json.loads(body))
            return self.answer({"url": f"{hub.url}/me/model", "name": "me/model", "id": "me/model"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            kinds = ({"path": f["path"], "uploadMode": "lfs" if f["size"] > 1000 else "regular"} for f in files)
            return self.answer({"files": [kind | {"shouldIgnore": False} for kind in kinds]})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {
                    "oid": item["oid"],
                    "size": item["size"],
                    **(
                        {}
                        if item["oid"] in hub.stored
                        else {"actions": {"upload": {"href": f"{hub.url}/put/{item['oid']}"}}}
                    ),
                }
                for item in json.loads(body)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")
        if "/commit/" in self.path:
            hub.commits.append([json.loads(line) for line in body.splitlines()])
            address = {"commitUrl": f"{hub.url}/me/model/commit/{'1' * 40}", "commitOid": "1" * 40, "hookOutput": ""}
            if "create_pr=1" in self.path:
                address["pullRequestUrl"] = f"{hub.url}/me/model/discussions/1"
            return self.answer(address)
        return self.answer({})

    def do_PUT(self):
        length = int(self.headers["Content-Length"])
        if self.server.broken == "hangs up":
            self.server.calls.append(f"PUT broken after {len(self.rfile.read(length // 2))}")
            return self.connection.shutdown(socket.SHUT_RDWR)
        body = self.rfile.read(length)
        if self.server.broken == "is full":
            self.server.calls.append(f"PUT broken after {len(body)}")
            return self.answer({"error": "disk full"}, 507)
        self.server.stored[self.path.rpartition("/")[2]] = body
        return self.answer({})

    def answer(self, content, status=200, kind="application/json"):
        """One JSON answer."""
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        """Nothing on the console."""


@pytest.fixture
def hub(monkeypatch):
    """A Hub on 127.0.0.1 that the client believes in."""
    from huggingface_hub import constants, hf_api, lfs

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.calls, server.created, server.commits, server.stored, server.there = [], [], [], {}, []
    server.refuse, server.broken = None, None
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for module in (constants, hf_api, lfs):
        if hasattr(module, "ENDPOINT"):
            monkeypatch.setattr(module, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def walker_frames(num_frames: int, direction: int) -> tuple[np.ndarray, np.ndarray]:
    """(T, 64, 96, 3) uint8 frames of one dark walker on grey, and its boxes (T, 4): left, top, width, height."""
    frames = np.full((num_frames, 64, 96, 3), 150, np.uint8)
    lefts = 40 + direction * 2 * np.arange(num_frames)
    for frame, left in zip(frames, lefts, strict=True):
        frame[16:52, left : left + 16] = (40, 40, 90)
    boxes = np.column_stack([lefts, np.full(num_frames, 16), np.full(num_frames, 16), np.full(num_frames, 36)])
    return frames, boxes


def mot_lines(boxes: np.ndarray, identity: int = 1) -> str:
    return "".join(f"{n},{identity},{x},{y},{w},{h},1,-1,-1,-1\n" for n, (x, y, w, h) in enumerate(boxes, start=1))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory, make_video):
    """One MOT sequence and three clips of two actions, one of which the dev list names."""
    root = tmp_path_factory.mktemp("data")
    frames, boxes = walker_frames(12, 1)
    sequence = root / "mot" / "train" / "WALKER"
    (sequence / "gt").mkdir(parents=True)
    make_video(sequence / "video.mp4", frames)
    (sequence / "gt" / "gt.txt").write_text(mot_lines(boxes))
    (sequence / "seqinfo.ini").write_text(
        "[Sequence]\nname=WALKER\nimDir=img1\nframeRate=25\nseqLength=12\nimWidth=96\nimHeight=64\nimExt=.jpg\n"
    )
    held_out = next(parse_item(item)[0] for item in read_split("dev") if "/jhmdb/" in item)
    for direction, name in (
        (1, held_out),
        (1, "actions/jhmdb/train/to_the_right/a.mp4"),
        (-1, "actions/jhmdb/train/to_the_left/b.mp4"),
    ):
        frames, boxes = walker_frames(12, direction)
        clip = root / name
        clip.parent.mkdir(parents=True, exist_ok=True)
        make_video(clip, frames)
        actor = root / name.replace("/train/", "/train_boxes/").replace(".mp4", ".txt")
        actor.parent.mkdir(parents=True, exist_ok=True)
        actor.write_text("".join(f"{n},1,{x},{y},{w},{h},1,1,1\n" for n, (x, y, w, h) in enumerate(boxes, start=1)))
    return root


@pytest.fixture(autouse=True)
def forgetful_accelerate():
    """Accelerate allows a process one precision; each test is a process of its own to it."""
    if "accelerate.state" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(True)


@pytest.fixture(scope="session")
def training_settings(tiny_backbone):
    """`training_settings(data_root, output, steps, **changes)`: a `TrainConfig` for a tiny model."""

    def make(data_root, output, steps: int, **changes) -> TrainConfig:
        stream = StreamSettings(batch_size=1, num_frames=8, size=(64, 128))
        settings = TrainConfig(
            output=str(output),
            steps=steps,
            warmup_steps=1,
            frozen_stages=0,
            log_every=1,
            model=ModelSettings(config={"backbone_config": tiny_backbone, "hidden_size": 16, "embedding_size": 8}),
            data=DataSettings(
                root=str(data_root),
                cache=str(output / "cache"),
                workers=0,
                tracking=dataclasses.replace(stream),
                actions=dataclasses.replace(stream),
            ),
        )
        for name, value in changes.items():
            *parents, last = name.split("__")
            place = settings
            for parent in parents:
                place = getattr(place, parent)
            setattr(place, last, value)
        return settings

    return make


# Each process leads a group of its own, so that its workers can be killed with it.
_FIRST = """
import os, torch
os.setsid()
os.environ.update(environment)
torch.set_num_threads(1)
"""


@pytest.fixture(scope="session")
def start_processes():
    """`start_processes(code, world_size, **names)`: runs Python code in processes that find each other by gloo.

    They are forked from one that has imported everything, which takes a fraction of a new interpreter's time.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kinetrack.hub_scripts.train", "torch.utils.tensorboard"])

    def start(code: str, world_size: int = 1, **names) -> list:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        running = []
        for rank in range(world_size):
            place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
            place = place | {"MASTER_ADDR": "127.0.0.1"} if world_size > 1 else {}
            place |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
            names["environment"] = {key: str(value) for key, value in place.items()}
            process = context.Process(target=exec, args=(_FIRST + code, dict(names)))
            process.start()
            running.append(process)
        return running

    return start
