"""Fetching reaches public servers only, checked for every redirect and every resolved address."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kinetrack.demo import fetching
from kinetrack.demo.fetching import check_url, fetch_video, file_name, is_public
from kinetrack.demo.limits import Refused

PUBLIC = ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111"]
PRIVATE = [
    "127.0.0.1",
    "127.8.9.1",
    "10.0.0.5",
    "172.16.3.4",
    "192.168.1.1",
    "169.254.169.254",  # metadata of clouds
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1%eth0",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_and_special_addresses_are_not(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "ftp://example.org/a.mp4",
        "concat:/etc/passwd|/etc/hosts",
        "gopher://127.0.0.1:6379/_INFO",
        "data:video/mp4;base64,AAAA",
        "https://",
        "http://[::1",
        "http://user:password@example.org/a.mp4",
        "http://example.org:22/",
        "http://example.org:99999/",
        "",
    ],
)
def test_other_kinds_of_address_are_refused(url):
    with pytest.raises(Refused):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.mp4",
        "http://localhost/a.mp4",
        "http://[::1]/a.mp4",
        "http://2130706433/a.mp4",  # 127.0.0.1 as one number
        "http://0x7f.1/a.mp4",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_this_machine_and_its_network_are_not_fetched_from(url, tmp_path):
    with pytest.raises(Refused, match="private network|cannot be found"):
        fetch_video(url, tmp_path, 1)
    assert not list(tmp_path.iterdir())


def test_a_name_with_one_private_address_among_public_ones_is_refused(monkeypatch, tmp_path):
    def resolve(host, port, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolve)
    with pytest.raises(Refused, match="private network"):
        fetch_video("http://example.org/a.mp4", tmp_path, 1)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch, tmp_path):
    """A name that resolves to another address the second time (DNS rebinding) gains nothing."""
    asked, connected = [], []

    def resolve(host, port, **options):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34" if len(asked) == 1 else "127.0.0.1", port))
        ]

    def connect(self, host, port, *arguments, **options):
        connected.append(host)
        raise fetching.httpcore.ConnectError("no network in tests")

    monkeypatch.setattr(fetching.socket, "getaddrinfo", resolve)
    monkeypatch.setattr(fetching.httpcore.SyncBackend, "connect_tcp", connect)
    with pytest.raises(Refused, match="does not answer"):
        fetch_video("http://example.org/a.mp4", tmp_path, 1)
    assert connected == ["93.184.216.34"] and asked == ["example.org"]


class Server(BaseHTTPRequestHandler):
    """Serves a video, redirects, and misbehaves."""

    def do_GET(self):
        place = self.path.partition("?")[0]
        if place.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.server.targets[place[4:]])
            self.end_headers()
        elif place == "/missing":
            self.send_error(404)
        elif place == "/endless":
            self.send_response(200)
            self.end_headers()
            with self.server.quiet():
                for _ in range(400):
                    self.wfile.write(b"x" * 10_000)
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.server.content)))
            self.end_headers()
            self.wfile.write(self.server.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(video_path):
    import contextlib

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.content = video_path.read_bytes()
    server.quiet = lambda: contextlib.suppress(OSError)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.targets = {
        "here": "/video.mp4",
        "private": "http://10.0.0.1/a.mp4",
        "metadata": "http://169.254.169.254/",
        "file": "file:///etc/passwd",
        "round": "/to/round",
        "nothing": "",
    }
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(server, path, folder, **options):
    """Fetches with this test's own server taken for a public one, and no other address."""
    only_here = {"allowed": lambda address: address == "127.0.0.1", "ports": (server.server_port, 80)}
    return fetch_video(server.url + path, folder, **({"max_megabytes": 1} | only_here | options))


@pytest.mark.parametrize("path", ["/holiday.mp4", "/to/here"])
def test_a_video_is_fetched(server, path, tmp_path):
    file = fetch(server, path, tmp_path)
    assert file.read_bytes() == server.content
    assert file.parent.parent == tmp_path


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/to/private", "private network"),
        ("/to/metadata", "private network"),
        ("/to/file", "begins with https"),
        ("/to/round", "more than 3 times"),
        ("/missing", "answers 404"),
        ("/endless", "larger than 1 MB"),
    ],
)
def test_redirects_are_checked_and_bad_answers_leave_nothing(server, path, message, tmp_path):
    with pytest.raises(Refused, match=message):
        fetch(server, path, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_says_it_is_too_large_is_not_even_begun(server, tmp_path):
    with pytest.raises(Refused, match="larger than 0.001 MB"):
        fetch(server, "/a.mp4", tmp_path, max_megabytes=0.001)
    assert not list(tmp_path.iterdir())


def test_a_slow_download_is_stopped(server, tmp_path):
    with pytest.raises(Refused, match="longer than 0 s"):
        fetch(server, "/a.mp4", tmp_path, max_seconds=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://a.org/films/holiday%202024.mp4?x=1", "holiday-2024.mp4"),
        ("https://a.org/..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://a.org/%2e%2e", "video.mp4"),
        ("https://a.org/", "video.mp4"),
        ("https://a.org/a%00b.mp4", "a-b.mp4"),
        ("https://a.org/" + "x" * 300 + ".mp4", "x" * 76 + ".mp4"),
    ],
)
def test_file_names_from_addresses_are_harmless(url, name):
    assert file_name(url) == name
