"""Files of a page belong to it alone, and go when it does."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from kinetrack.demo.workspaces import Workspaces


def test_pages_have_folders_of_their_own(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    assert spaces.of("a") is spaces.of("a")
    assert spaces.of("a").folder != spaces.of("b").folder
    spaces.of("a").cancelled.set()
    assert not spaces.of("b").cancelled.is_set()


def test_a_new_result_replaces_the_old_one_at_a_new_address(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    first = spaces.result_folder("a", "video")
    (first / "annotated.mp4").touch()
    other = spaces.result_folder("a", "compare")
    second = spaces.result_folder("a", "video")
    assert not first.exists() and second.is_dir() and second != first and other.is_dir()


def test_closing_a_page_stops_its_work_and_deletes_its_files(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    upload = tmp_path / "upload.mp4"
    upload.touch()
    workspace = spaces.of("a")
    spaces.claim("a", upload)
    spaces.close("a")
    assert workspace.cancelled.is_set()
    assert not list(tmp_path.iterdir())
    spaces.close("a")  # a second time does nothing


def test_a_file_that_another_page_also_sent_stays(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    upload = tmp_path / "upload.mp4"
    upload.touch()
    spaces.claim("a", upload)
    spaces.claim("b", upload)
    spaces.close("a")
    assert upload.exists()
    spaces.close("b")
    assert not upload.exists()


def test_a_file_that_another_page_sends_again_stays_although_that_page_has_not_used_it_yet(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    upload, again = tmp_path / "upload.mp4", tmp_path / "arriving"
    upload.touch()
    spaces.claim("a", upload)
    again.touch()
    again.rename(upload)  # what Gradio does with an upload
    spaces.close("a")
    assert upload.exists()
    spaces.claim("b", upload)
    spaces.close("b")
    assert not upload.exists()


def test_results_for_one_purpose_can_be_dropped(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    dropped, other = spaces.result_folder("a", "api-1"), spaces.result_folder("a", "api-2")
    spaces.drop_results("a", "api-1")
    assert not dropped.parent.exists() and other.is_dir()
    spaces.close("a")
    spaces.drop_results("a", "api-2")
    assert not list(tmp_path.iterdir())  # no workspace is made for a page that is gone


def test_files_of_others_are_never_deleted(tmp_path):
    mine = tmp_path / "root"
    mine.mkdir()
    outside = tmp_path / "outside.mp4"
    outside.touch()
    (mine / "link.mp4").symlink_to(outside)
    spaces = Workspaces(mine, 60)
    for path in (outside, mine / ".." / "outside.mp4", mine / "link.mp4"):
        spaces.claim("a", path)
    spaces.close("a")
    assert outside.exists()


def test_sweeping_deletes_what_is_old(tmp_path):
    spaces = Workspaces(tmp_path, 60)
    old, new = tmp_path / "uploads" / "old.mp4", tmp_path / "new.mp4"
    old.parent.mkdir()
    for path in (old, new):
        path.touch()
    past = time.time() - 100
    os.utime(old, (past, past))
    assert spaces.sweep() == 1
    assert not old.exists() and new.exists()
    os.utime(old.parent, (past, past))
    spaces.sweep()
    assert not old.parent.exists()


def make_old(*paths):
    past = time.time() - 100
    for path in paths:
        os.utime(path, (past, past))


@pytest.mark.parametrize("leaves", ["file", "folder"])
def test_sweeping_goes_on_where_a_page_is_left_meanwhile(tmp_path, monkeypatch, leaves):
    gone, old = tmp_path / "results" / "gone.mp4", tmp_path / "uploads" / "old.mp4"
    for path in (gone, old):
        path.parent.mkdir()
        path.touch()
    make_old(gone, old, gone.parent, old.parent)
    look = Path.lstat

    def leave_first(path):
        if path == (gone if leaves == "file" else gone.parent):
            shutil.rmtree(gone.parent, ignore_errors=True)
        return look(path)

    monkeypatch.setattr(Path, "lstat", leave_first)
    Workspaces(tmp_path, 60).sweep()
    assert not gone.parent.exists() and not old.exists()


def test_a_file_that_cannot_be_deleted_stops_no_sweep_and_is_not_named(tmp_path, monkeypatch, caplog):
    kept, old = tmp_path / "Jane-Doe.mp4", tmp_path / "old.mp4"
    for path in (kept, old):
        path.touch()
    make_old(kept, old)
    delete = Path.unlink

    def refuse(path, missing_ok=False):
        if path == kept:
            raise PermissionError(13, "Permission denied", str(path))
        delete(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert Workspaces(tmp_path, 60).sweep() == 1
    assert kept.exists() and not old.exists()
    assert "1 old files could not be deleted (PermissionError)" in caplog.text and "Jane" not in caplog.text


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_sweeper_survives_a_sweep_that_fails(tmp_path, monkeypatch, caplog):
    sweeps, again, over = [], threading.Event(), threading.Event()

    def fail_once():
        sweeps.append(None)
        if len(sweeps) == 1:
            raise FileNotFoundError(2, "No such file or directory", "Jane-Doe.mp4")
        again.set()
        over.wait()

    spaces = Workspaces(tmp_path, 60)
    monkeypatch.setattr(spaces, "sweep", fail_once)
    thread = spaces.sweep_for_ever(every=0.001)
    assert again.wait(5) and thread.is_alive()
    assert "Sweeping failed: FileNotFoundError." in caplog.text and "Jane" not in caplog.text
    monkeypatch.setattr(time, "sleep", lambda seconds: threading.Event().wait())  # it sleeps from here on
    over.set()
