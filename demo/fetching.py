"""Fetches a video from an address that a visitor gives, and reaches nothing but public servers.

Every address is checked where it counts: at the moment of connecting, after the name has been resolved, for the first
request and for each redirect. The connection goes to the very address that was checked, so a name that resolves
differently a moment later gains nothing.
"""

import ipaddress
import re
import socket
import time as clock
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import httpcore

from .limits import Refused, spoken_duration

_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 3
_CONNECT_SECONDS, _READ_SECONDS, _TOTAL_SECONDS = 10.0, 20.0, 120.0
# Addresses that stand for an IPv4 address, which may be a private one.
_TRANSLATED = tuple(ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"))


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet, and not to this machine, its network or a special use."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        return is_public(str(mapped))
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _TRANSLATED)


def check_url(url: str, ports: tuple[int, ...] = (80, 443)) -> str:
    """The address, if a visitor may give it.

    Raises:
        Refused: no HTTP(S) address, one with a password, or with an unusual port.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise Refused("This is no address of a video. It begins with https:// or http://.") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused("This is no address of a video. It begins with https:// or http://.")
    if parts.username or parts.password:
        raise Refused("Addresses with a user name or a password are not fetched.")
    if (port or (443 if parts.scheme == "https" else 80)) not in ports:
        raise Refused("Only the usual ports of web servers are fetched from.")
    return url


class _PublicServers(httpcore.NetworkBackend):
    """Connects to public addresses only, and to the very address it has checked."""

    def __init__(self, allowed: Callable[[str], bool]):
        self._allowed, self._network = allowed, httpcore.SyncBackend()

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        """A connection to `host`; `Refused` where any of its addresses is not public."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Refused("The server of this address cannot be found.") from error
        addresses = list(dict.fromkeys(entry[4][0] for entry in found))
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise Refused("This address leads to a private network, which is not fetched from.")
        return self._network.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    def connect_unix_socket(self, *arguments, **options):
        """Never."""
        raise Refused("This is no address of a video.")


def fetch_video(
    url: str,
    folder: Path,
    max_megabytes: float,
    *,
    max_seconds: float = _TOTAL_SECONDS,
    allowed: Callable[[str], bool] = is_public,
    ports: tuple[int, ...] = (80, 443),
) -> Path:
    """Downloads a file, whatever it is; `measure` decides whether it is a video.

    Args:
        url: `https://…` or `http://…`.
        folder: where it goes.
        max_megabytes: largest size.
        max_seconds: longest time.
        allowed: whether an IP address may be connected to.
        ports: that may be connected to.

    Returns:
        The file, in a folder of its own, called as in the address.

    Raises:
        Refused: an address that is not fetched, a server that does not answer or says no, or a file that is too large;
            nothing is left behind then.
    """
    place = folder / uuid.uuid4().hex
    timeout = {"connect": _CONNECT_SECONDS, "read": _READ_SECONDS, "write": _READ_SECONDS, "pool": _CONNECT_SECONDS}
    deadline = clock.monotonic() + max_seconds
    try:
        with httpcore.ConnectionPool(network_backend=_PublicServers(allowed)) as pool:
            for _ in range(1 + _MOST_REDIRECTS):
                url = check_url(url, ports)
                headers = {"User-Agent": "kinetrack-demo", "Accept": "video/*"}
                with pool.stream("GET", url, headers=headers, extensions={"timeout": timeout}) as answer:
                    if answer.status not in _REDIRECTS:
                        return _save(answer, place / file_name(url), max_megabytes, deadline, max_seconds)
                    url = urljoin(url, _header(answer, b"location") or "")
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, UnicodeError) as error:
        _remove(place)
        raise Refused("The server of this address does not answer as a web server should.") from error
    except BaseException:
        _remove(place)
        raise
    raise Refused(f"This address leads on to another more than {_MOST_REDIRECTS} times.")


def file_name(url: str) -> str:
    """A harmless file name for what an address leads to: letters, digits, dots and dashes, no folders."""
    last = unquote(urlsplit(url).path).replace("\\", "/").rpartition("/")[2]
    name = re.sub(r"[^\w.-]+", "-", last).strip(".-")[-80:]
    return name or "video.mp4"


def _save(answer, path: Path, max_megabytes: float, deadline: float, max_seconds: float) -> Path:
    if answer.status != 200:
        raise Refused(f"The server of this address answers {answer.status} instead of giving a video.")
    limit = int(max_megabytes * 1e6)
    announced = (_header(answer, b"content-length") or "").strip()
    too_large = f"This file is larger than {max_megabytes:g} MB, the limit here."
    if announced.isdecimal() and int(announced) > limit:
        raise Refused(too_large)
    path.parent.mkdir(parents=True)
    size = 0
    with path.open("wb") as file:
        for piece in answer.iter_stream():
            size += len(piece)
            if size > limit:
                raise Refused(too_large)
            if clock.monotonic() > deadline:
                raise Refused(f"Fetching this took longer than {spoken_duration(max_seconds)} and was stopped.")
            file.write(piece)
    return path


def _header(answer, name: bytes) -> str | None:
    value = next((value for key, value in answer.headers if key.lower() == name), None)
    return None if value is None else value.decode("latin-1")


def _remove(place: Path) -> None:
    for file in place.glob("*"):
        file.unlink(missing_ok=True)
    if place.is_dir():
        place.rmdir()
