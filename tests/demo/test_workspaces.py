"""Files of a page belong to it alone, and go when it does."""

import os
import time

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
