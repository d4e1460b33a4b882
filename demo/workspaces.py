"""A folder and a cancel switch for every open page; both go when the page does."""

import logging
import os
import shutil
import stat
import threading
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)


@dataclass
class Workspace:
    """What belongs to one open page.

    Attributes:
        folder: its results; nobody else's.
        cancelled: set when the running analysis is to stop.
        uploads: files that the page sent.
    """

    folder: Path
    cancelled: threading.Event = field(default_factory=threading.Event)
    uploads: set[Path] = field(default_factory=set)


class Workspaces:
    """The workspaces of all open pages, by session.

    Args:
        root: folder of everything temporary; files in it older than `keep_seconds` are deleted by `sweep`.
        keep_seconds: see there.
    """

    def __init__(self, root: Path, keep_seconds: float):
        self.root, self.keep_seconds = Path(root).resolve(), keep_seconds
        self._open: dict[str, Workspace] = {}
        self._users: defaultdict[Path, set[str]] = defaultdict(set)
        self._versions: dict[Path, tuple[int, int] | None] = {}
        self._lock = threading.Lock()

    def of(self, session: str) -> Workspace:
        """The workspace of a page, made when it is first asked for."""
        with self._lock:
            if session not in self._open:
                folder = self.root / f"results-{uuid.uuid4().hex}"  # not to be guessed by other visitors
                folder.mkdir(parents=True)
                self._open[session] = Workspace(folder)
            return self._open[session]

    def result_folder(self, session: str, purpose: str) -> Path:
        """An empty folder for a new result; the page's earlier ones for the same purpose are deleted."""
        place = self.of(session).folder / purpose
        shutil.rmtree(place, ignore_errors=True)
        folder = place / uuid.uuid4().hex[:8]  # a new address, so that no browser shows an older file
        folder.mkdir(parents=True)
        return folder

    def drop_results(self, session: str, purpose: str) -> None:
        """Deletes the results of a page for one purpose; nothing where the page has been closed."""
        with self._lock:
            workspace = self._open.get(session)
        if workspace is not None:
            shutil.rmtree(workspace.folder / purpose, ignore_errors=True)

    def claim(self, session: str, upload: Path) -> None:
        """Notes that a page uses an upload; equal files of two pages are one file. Other files are never deleted."""
        if self.root not in upload.resolve().parents:
            return
        workspace = self.of(session)
        with self._lock:
            version = _version(upload)
            if version is not None:
                workspace.uploads.add(upload)
                self._users[upload].add(session)
                self._versions[upload] = version

    def close(self, session: str) -> None:
        """Stops what a page has running and deletes its files, but no upload that another page also sent.

        That page need not have claimed it yet: Gradio writes an upload anew each time that somebody sends it, so one
        that is newer than the last claim is somebody else's.
        """
        with self._lock:
            workspace = self._open.pop(session, None)
            if workspace is None:
                return
            workspace.cancelled.set()
            for upload in workspace.uploads:
                self._users[upload].discard(session)
                if not self._users[upload]:
                    del self._users[upload]
                    if self._versions.pop(upload) == _version(upload):
                        with suppress(OSError):  # the sweep tries again
                            upload.unlink()
        shutil.rmtree(workspace.folder, ignore_errors=True)

    def sweep(self, now: float | None = None) -> int:
        """Deletes all files in `root` that have not been touched for `keep_seconds`; returns how many.

        Pages close and results are replaced meanwhile, so that any path may be gone when its turn comes.
        """
        limit = (time.time() if now is None else now) - self.keep_seconds
        deleted, failures = 0, []
        for place, _, names in os.walk(self.root, topdown=False):
            folder = Path(place)
            for path in (folder / name for name in names):
                try:
                    if path.lstat().st_mtime < limit:
                        path.unlink()
                        deleted += 1
                except FileNotFoundError:
                    pass
                except OSError as error:
                    failures.append(type(error).__name__)
            with suppress(OSError):  # it is not empty, or gone
                if folder != self.root and folder.lstat().st_mtime < limit:
                    folder.rmdir()
        if failures:  # without names: the name of a file may name a person
            logger.warning("%d old files could not be deleted (%s).", len(failures), ", ".join(sorted(set(failures))))
        return deleted

    def sweep_for_ever(self, every: float = 60.0) -> threading.Thread:
        """Starts a daemon thread that sweeps; one that fails is logged, and the next is done all the same."""

        def loop():
            while True:
                time.sleep(every)
                try:
                    self.sweep()
                except Exception as error:  # without its message, which may hold the name of a file
                    logger.error("Sweeping failed: %s.", type(error).__name__)

        thread = threading.Thread(target=loop, name="kinetrack-sweeper", daemon=True)
        thread.start()
        return thread


def _version(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one written in its place; None where there is no file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None
