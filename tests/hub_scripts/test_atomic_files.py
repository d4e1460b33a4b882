"""Files that are there whole or not at all."""

import json

import pytest
from kinetrack.hub_scripts.atomic_files import (
    atomic_path,
    update_json_atomically,
    write_atomically,
    write_json_atomically,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "report.png"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="disk"), atomic_path(path) as partial:
        partial.write_bytes(b"half of the ne")
        assert partial.suffix == ".png" and path.read_bytes() == b"old"
        raise RuntimeError("disk full")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_do_not_share_a_partial_file(tmp_path):
    path = tmp_path / "report.txt"
    with atomic_path(path) as first, atomic_path(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf8_and_bytes_are_kept(tmp_path):
    write_atomically(tmp_path / "a", "96×64\n")
    write_atomically(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "a").read_bytes() == "96×64\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    write_json_atomically(path, {"top1": 50})
    with pytest.raises(TypeError):
        write_json_atomically(path, {"top1": {1, 2}})
    assert json.loads(path.read_text()) == {"top1": 50}
    write_json_atomically(path, {"folder": tmp_path}, default=str)
    assert json.loads(path.read_text()) == {"folder": str(tmp_path)}


def test_an_update_keeps_the_other_values(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "kinetrack", "action_threshold": 0.5}')
    update_json_atomically(path, {"action_threshold": 0.4})
    assert path.read_text() == '{\n  "action_threshold": 0.4,\n  "model_type": "kinetrack"\n}\n'
