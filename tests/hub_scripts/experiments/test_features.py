"""Features are made once for a video, wherever it lies and whenever it was copied, and anew for another one."""

import shutil

import numpy as np
import pytest
from kinetrack.hub_scripts.experiments.features import FrozenEncoder, read_clips


def test_a_copy_of_the_data_finds_what_was_encoded(clips_root, tmp_path, monkeypatch):
    encoder, cache, copy = FrozenEncoder(None, 64), tmp_path / "cache", tmp_path / "copy"
    first = read_clips(clips_root, "dev", encoder, cache)
    shutil.copytree(clips_root, copy, copy_function=shutil.copyfile)  # with the times of now
    monkeypatch.setattr(encoder, "encode", lambda frames: pytest.fail("encoded again"))
    again = read_clips(copy, "dev", encoder, cache)
    assert [clip.name for clip in again] == [clip.name for clip in first]
    assert all(np.array_equal(a.coarse, b.coarse) for a, b in zip(first, again, strict=True))

    shutil.copyfile(copy / first[1].name, copy / first[0].name)
    with pytest.raises(pytest.fail.Exception, match="encoded again"):
        read_clips(copy, "dev", encoder, cache)
