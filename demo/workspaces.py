"""A folder and a cancel switch for every open page; both go when the page does."""

import shutil
import threading
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path


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

    def claim(self, session: str, upload: Path) -> None:
        """Notes that a page uses an upload; equal files of two pages are one file. Other files are never deleted."""
        if self.root not in upload.resolve().parents:
            return
        workspace = self.of(session)
        with self._lock:
            workspace.uploads.add(upload)
            self._users[upload].add(session)

    def close(self, session: str) -> None:
        """Stops what a page has running and deletes its files, but no upload that another page also sent."""
        with self._lock:
            workspace = self._open.pop(session, None)
            if workspace is None:
                return
            workspace.cancelled.set()
            for upload in workspace.uploads:
                self._users[upload].discard(session)
                if not self._users[upload]:
                    del self._users[upload]
                    upload.unlink(missing_ok=True)
        shutil.rmtree(workspace.folder, ignore_errors=True)

    def sweep(self, now: float | None = None) -> int:
        """Deletes all files in `root` that have not been touched for `keep_seconds`; returns how many."""
        limit = (time.time() if now is None else now) - self.keep_seconds
        old = [path for path in self.root.rglob("*") if path.is_file() and path.lstat().st_mtime < limit]
        for path in old:
            path.unlink(missing_ok=True)
        for folder in sorted((path for path in self.root.rglob("*") if path.is_dir()), reverse=True):
            if folder.lstat().st_mtime < limit and not any(folder.iterdir()):
                folder.rmdir()
        return len(old)

    def sweep_for_ever(self, every: float = 60.0) -> threading.Thread:
        """Starts a daemon thread that sweeps."""

        def loop():
            while True:
                time.sleep(every)
                self.sweep()

        thread = threading.Thread(target=loop, name="kinetrack-sweeper", daemon=True)
        thread.start()
        return thread
