"""A Hub on this machine, for uploads with the real client."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


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
