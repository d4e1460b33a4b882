"""A file that somebody else made reads nothing but itself, whatever it is called."""

import io

import pytest
from kinetrack.processing.analyze import analyze
from kinetrack.processing.container_kinetrack import open_container
from kinetrack.processing.decoding_kinetrack import VideoDecodeError, iter_video_frames, probe_video


def playlist(kind: str, secret) -> str:
    """Text that makes FFmpeg read another file."""
    return {
        "concat": f"ffconcat version 1.0\nfile {secret.name}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period>"
        f"<AdaptationSet mimeType='video/mp4'><Representation id='1'><BaseURL>{secret}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
    }[kind]


@pytest.fixture
def secret(tmp_path, video_path):
    """A video that nobody asked for, in the folder of the playlist."""
    path = tmp_path / "secret.mp4"
    path.write_bytes(video_path.read_bytes())
    return path


@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ts"])
@pytest.mark.parametrize("kind", ["concat", "hls", "dash", "sdp"])
def test_a_playlist_reads_no_other_file(kind, suffix, secret, tmp_path):
    path = tmp_path / f"video.{suffix}"
    path.write_text(playlist(kind, secret))
    for source in (str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        with pytest.raises(VideoDecodeError):
            probe_video(source)
        with pytest.raises(VideoDecodeError):
            list(iter_video_frames(source))


def test_the_message_says_what_to_give_instead(secret, tmp_path):
    path = tmp_path / "video.mp4"
    path.write_text(playlist("concat", secret))
    with pytest.raises(VideoDecodeError, match="playlist.*Give one video file, such as MP4"):
        analyze(path)


def test_without_the_guard_the_playlist_would_be_read(secret, tmp_path):
    """What the guard is for; should FFmpeg refuse such files itself one day, the guard can go."""
    import av

    path = tmp_path / "video.mp4"
    path.write_text(playlist("concat", secret))
    with av.open(f"file:{path}") as container:
        assert container.format.name == "concat"
        assert next(container.decode(video=0)).width == 96
    with pytest.raises(av.error.ArgumentError):
        open_container(f"file:{path}")


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("mov", "libx264"), ("matroska", "ffv1"), ("webm", "libvpx"), ("avi", "mpeg4")]
    + [("mpegts", "libx264"), ("mpeg", "mpeg2video"), ("flv", "flv1"), ("gif", "gif"), ("nut", "ffv1")],
)
def test_ordinary_containers_are_read(container, codec, make_video, tmp_path):
    if codec == "flv1":
        codec = "flv"
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    options = {} if codec != "libvpx" else {"deadline": "realtime"}
    path = make_video(tmp_path / "video", codec=codec, container=container, pixel_format=pixels, options=options)
    assert len(list(iter_video_frames(path))) == 12
