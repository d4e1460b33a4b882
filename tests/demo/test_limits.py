"""A video is measured before any work starts, and refused with a sentence."""

import dataclasses

import pytest
from kinetrack.demo.limits import Refused, describe_limits, measure, spoken_duration
from kinetrack.demo.options import DemoOptions

OPTIONS = DemoOptions(max_seconds=2, max_frames=40, max_megabytes=1)


def test_a_video_within_the_limits_is_measured(video_path):
    measured = measure(video_path, None, OPTIONS)
    assert measured.frames == 12
    assert measured.seconds == pytest.approx(0.48)
    assert (measured.info.width, measured.info.height) == (96, 64)


def test_fewer_frames_a_second_are_fewer_frames(long_video_path):
    options = dataclasses.replace(OPTIONS, max_seconds=10)
    with pytest.raises(Refused, match=r"75 frames to look at; the limit here is 40. Choose 13 frames a second"):
        measure(long_video_path, None, options)
    assert measure(long_video_path, 13, options).frames <= 40


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_seconds": 1}, "3 s long; the limit here is 1 s.*kinetrack analyze"),
        ({"max_megabytes": 0}, "the limit here is 0 MB"),
        ({"max_pixels": 100}, "160×96 pixels"),
    ],
)
def test_a_video_over_a_limit_is_refused(long_video_path, changes, message):
    roomy = dataclasses.replace(OPTIONS, max_seconds=10, max_frames=1000)
    with pytest.raises(Refused, match=message):
        measure(long_video_path, None, dataclasses.replace(roomy, **changes))


@pytest.mark.parametrize(
    "name", ["corrupt_video_path", "empty_video_path", "audio_only_path", "zero_frames_video_path"]
)
def test_what_is_no_video_is_refused_without_its_folder(request, name):
    path = request.getfixturevalue(name)
    with pytest.raises(Refused) as caught:
        measure(path, None, OPTIONS)
    assert str(path.parent) not in str(caught.value)
    assert str(caught.value).startswith("This file")


def test_a_playlist_named_like_a_video_is_refused(video_path, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(video_path.read_bytes())
    path = tmp_path / "holiday.mp4"
    path.write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(Refused, match="playlist"):
        measure(path, None, OPTIONS)


def test_a_recording_that_does_not_say_its_length_is_measured_by_its_frames(make_video, draw_frames, tmp_path):
    """As browsers record from a webcam: WebM, written as a stream."""
    path = make_video(
        tmp_path / "webcam.webm", draw_frames(30), codec="libvpx", container="webm", options={"deadline": "realtime"}
    )
    assert measure(path, None, OPTIONS).frames == 30


def test_the_limits_are_said_in_words():
    assert describe_limits(DemoOptions()) == "Up to 2 min, 200 MB and 3000 frames a video."
    assert [spoken_duration(value) for value in (0, 59, 60, 90)] == ["0 s", "59 s", "1 min", "1 min 30 s"]


def test_a_public_space_takes_less_and_fetches_nothing(monkeypatch):
    assert DemoOptions.from_environment().allow_urls
    monkeypatch.setenv("SPACE_ID", "somebody/kinetrack")
    public = DemoOptions.from_environment()
    assert not public.allow_urls and public.max_seconds < DemoOptions().max_seconds
    monkeypatch.setenv("KINETRACK_DEMO_ALLOW_URLS", "1")
    monkeypatch.setenv("KINETRACK_DEMO_MODEL", "me/one, kinetrack-nano")
    allowed = DemoOptions.from_environment(max_seconds=5.0, device=None)
    assert allowed.allow_urls and allowed.max_seconds == 5
    assert allowed.models == ("me/one", "kinetrack-nano")
