"""Streams from source to files: one or several, to their end, to a stop, and over a restart."""

import errno
import io
import json
import shutil
import threading
from pathlib import Path

import av
import numpy as np
import pytest
from broadcast import STALL, Broadcast, scene, send, transport_stream
from kinetrack.processing import streaming
from kinetrack.processing.analyze import analyze
from kinetrack.processing.live_kinetrack import Reconnect, StreamEvent
from kinetrack.processing.loading import load_model
from kinetrack.processing.session_state_kinetrack import read_states, write_states
from kinetrack.processing.sinks import VideoSink
from kinetrack.processing.stream_sinks import JsonLinesSink
from kinetrack.processing.streaming import OutputSettings, stream, unique_names


@pytest.fixture(scope="module")
def network(model_folder):
    return load_model(model_folder, device="cpu")


@pytest.fixture(scope="module")
def recording(tmp_path_factory, make_video):
    """40 frames of a wall that moves."""
    path = tmp_path_factory.mktemp("recording") / "door.mp4"
    return make_video(path, np.stack([scene(index) for index in range(40)]))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def frames_of(path):
    return [line for line in lines_of(path) if "event" not in line]


def test_file_gives_the_tracks_of_analyze(network, recording, tmp_path):
    (status,) = stream(recording, network, output=tmp_path)
    assert (status.state, status.frames, status.dropped) == ("ended", 40, 0)
    assert status.folder == tmp_path / "door"
    analysis = analyze(recording, network)
    assert (tmp_path / "door" / "tracks.txt").read_text() == analysis.to_mot()
    frames = frames_of(tmp_path / "door" / "frames.jsonl")
    assert [frame["frame_index"] for frame in frames] == list(range(40))
    assert frames[7]["stream"] == "door" and frames[7]["time"] == pytest.approx(0.28)
    assert {"id", "class", "box", "score", "action", "confidence", "actions"} == set(frames[7]["tracks"][0])


def test_callbacks_get_everything(network, recording):
    results, events, progress = [], [], []
    stream(
        recording,
        network,
        on_result=lambda name, result: results.append((name, result.frame_index)),
        on_event=lambda name, event: events.append((name, event.kind)),
        on_progress=progress.append,
    )
    assert results == [("door", index) for index in range(40)]
    assert events == [("door", "connected")]
    assert progress[-1][0].frames == 40 and progress[-1][0].latency > 0


def test_several_sources_are_one_batch_and_equal_each_alone(network, recording, tmp_path, make_video, monkeypatch):
    other = make_video(tmp_path / "yard.mp4", np.stack([scene(index + 30) for index in range(25)]))
    batches, forward = [], type(network[0]).forward
    monkeypatch.setattr(
        type(network[0]), "forward", lambda self, x, *a, **k: batches.append(len(x)) or forward(self, x, *a, **k)
    )
    statuses = stream([recording, other, recording], network, output=tmp_path / "together")
    assert [(status.name, status.frames) for status in statuses] == [("door", 40), ("yard", 25), ("door-2", 40)]
    assert max(batches) == 3 and sum(batches) == 105
    for path in (recording, other):
        stream(path, network, output=tmp_path / "alone")
    for name, alone in (("door", "door"), ("yard", "yard"), ("door-2", "door")):
        ours = frames_of(tmp_path / "together" / name / "frames.jsonl")
        theirs = frames_of(tmp_path / "alone" / alone / "frames.jsonl")
        for one, expected in zip(ours, theirs, strict=True):
            assert [t["id"] for t in one["tracks"]] == [t["id"] for t in expected["tracks"]]
            for a, b in zip(one["tracks"], expected["tracks"], strict=True):
                np.testing.assert_allclose(a["box"], b["box"], atol=0.02)


def test_restart_goes_on_with_the_same_tracks(network, recording, tmp_path):
    """Stopped after 15 frames and started again: together the two runs wrote what one run writes."""
    state = tmp_path / "state.safetensors"
    first = stream(recording, network, output=tmp_path / "two", state=state, max_frames=15)[0]
    second = stream(recording, network, output=tmp_path / "two", state=state)[0]
    assert (first.frames, second.frames) == (15, 25)
    stream(recording, network, output=tmp_path / "one")
    for name in ("tracks.txt", "frames.jsonl"):
        ours, theirs = ((tmp_path / run / "door" / name).read_text() for run in ("two", "one"))
        drop = [line for line in ours.splitlines() if '"event"' not in line]
        assert drop == [line for line in theirs.splitlines() if '"event"' not in line]
    assert stream(recording, network, state=state)[0].frames == 0


def test_restart_after_a_crash_writes_no_frame_twice(network, recording, tmp_path):
    """A run that is killed has written more than it saved, down to half a line."""
    state, folder = tmp_path / "state.safetensors", tmp_path / "two" / "door"
    stream(recording, network, output=tmp_path / "two", state=state, max_frames=15)
    saved = state.read_bytes()
    stream(recording, network, output=tmp_path / "two", state=state, max_frames=5)
    state.write_bytes(saved)
    for name in ("tracks.txt", "frames.jsonl"):
        with open(folder / name, "a") as file:
            file.write((folder / name).read_text()[:10])
    stream(recording, network, output=tmp_path / "two", state=state)
    stream(recording, network, output=tmp_path / "one")
    assert frames_of(folder / "frames.jsonl") == frames_of(tmp_path / "one" / "door" / "frames.jsonl")
    assert (folder / "tracks.txt").read_text() == (tmp_path / "one" / "door" / "tracks.txt").read_text()


def test_restart_after_a_crash_reads_a_recording_behind_an_address_again(network, tmp_path, make_video, serve_folder):
    """Only its open connection says that it is no camera; the state remembers."""
    make_video(tmp_path / "door.mkv", np.stack([scene(index) for index in range(40)]))
    address, state = f"{serve_folder(tmp_path)}/door.mkv", tmp_path / "state.safetensors"
    stream(address, network, output=tmp_path / "two", state=state, max_frames=15)
    saved = state.read_bytes()
    stream(address, network, output=tmp_path / "two", state=state, max_frames=5)
    state.write_bytes(saved)
    stream(address, network, output=tmp_path / "two", state=state)
    stream(address, network, output=tmp_path / "one")
    ours, theirs = (frames_of(tmp_path / run / "127.0.0.1-door.mkv" / "frames.jsonl") for run in ("two", "one"))
    assert ours == theirs


def test_restart_after_a_crash_draws_frames_since_the_save_again(network, recording, tmp_path):
    state, output = tmp_path / "state.safetensors", OutputSettings(tmp_path, ("video",))
    stream(recording, network, output=output, state=state, max_frames=15)
    saved = state.read_bytes()
    stream(recording, network, output=output, state=state, max_frames=5)
    state.write_bytes(saved)
    stream(recording, network, output=output, state=state)
    counts = []
    for path in sorted((tmp_path / "door").glob("*.mp4")):
        with av.open(str(path)) as video:
            counts.append(sum(1 for _ in video.decode(video=0)))
    assert counts == [15, 5, 25]


def test_only_streams_of_the_state_go_on_in_their_files(network, recording, tmp_path, make_video):
    yard, state, output = make_video(tmp_path / "yard.mp4"), tmp_path / "state.safetensors", OutputSettings(tmp_path)
    stream(yard, network, output=output, max_frames=3)
    stream(recording, network, output=output, state=state, max_frames=3)
    stream([recording, yard], network, output=output, state=state, max_frames=3)
    indices = {
        name: [frame["frame_index"] for frame in frames_of(tmp_path / name / "frames.jsonl")]
        for name in ("door", "yard")
    }
    assert indices == {"door": list(range(6)), "yard": list(range(3))}
    assert not output.append


def test_a_state_that_cannot_be_written_is_noticed_at_once(network, recording, tmp_path):
    seen = []
    with pytest.raises(OSError, match="The state cannot be kept in .*: it is a folder"):
        stream(recording, network, state=tmp_path, on_result=lambda *result: seen.append(result))
    assert not seen
    stream(recording, network, state=tmp_path / "new" / "state.safetensors", max_frames=1)
    assert (tmp_path / "new" / "state.safetensors").is_file()


def test_a_disk_that_is_full_for_a_while_ends_no_stream(network, recording, tmp_path, monkeypatch, caplog):
    left = [OSError("No space left"), OSError("No space left")]

    def write(path, states):
        if left:
            raise left.pop()
        write_states(path, states)

    monkeypatch.setattr(streaming, "write_states", write)
    (status,) = stream(recording, network, state=tmp_path / "state.safetensors", save_every=0.0)
    assert status.frames == 40 and caplog.text.count("No space left") == 2
    assert read_states(tmp_path / "state.safetensors")[0]["door"]["frame_index"] == 40


def test_whatever_ends_the_run_the_state_is_saved_and_the_files_are_complete(network, recording, tmp_path, monkeypatch):
    look, left = streaming.look_together, list(range(5))

    def look_five_times(*given):
        if not left:
            raise ValueError("This frame cannot be used.")
        left.pop()
        return look(*given)

    monkeypatch.setattr(streaming, "look_together", look_five_times)
    state, output = tmp_path / "state.safetensors", OutputSettings(tmp_path, ("jsonl", "video"))
    with pytest.raises(ValueError, match="cannot be used"):
        stream(recording, network, output=output, state=state)
    assert read_states(state)[0]["door"]["frame_index"] == 5
    assert len(frames_of(tmp_path / "door" / "frames.jsonl")) == 5
    assert (tmp_path / "door" / "annotated-000001.mp4").is_file()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_ends_its_stream_and_no_other(network, recording, tmp_path, make_video):
    yard, state, events = make_video(tmp_path / "yard.mp4"), tmp_path / "state.safetensors", []
    (tmp_path / "door").mkdir()
    (tmp_path / "door" / "frames.jsonl").symlink_to("/dev/full")
    told = {"on_event": lambda name, event: events.append((name, event.kind)), "save_every": 0.0}
    statuses = stream([recording, yard], network, output=tmp_path, state=state, **told)
    assert [status.state for status in statuses] == ["failed", "ended"]
    assert statuses[1].frames == 12 == len(frames_of(tmp_path / "yard" / "frames.jsonl"))
    assert [kind for name, kind in events if name == "door"] == ["connected", "failed"]
    assert read_states(state)[0]["yard"]["frame_index"] == 12
    with pytest.raises(OSError, match=r"cannot be written to .*door: No space left on device"):
        stream(recording, network, output=tmp_path)


def test_a_file_that_cannot_be_completed_keeps_no_other_from_it(network, recording, tmp_path, monkeypatch):
    def close(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(JsonLinesSink, "close", close)
    with pytest.raises(OSError, match="No space left on device"):
        stream(recording, network, output=OutputSettings(tmp_path, ("jsonl", "video")), max_frames=3)
    assert (tmp_path / "door" / "annotated-000001.mp4").is_file()


def test_a_segment_that_cannot_be_completed_leaves_nothing_behind(network, recording, tmp_path, monkeypatch):
    def close(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(VideoSink, "close", close)
    with pytest.raises(OSError, match="No space left on device"):
        stream(recording, network, output=OutputSettings(tmp_path, ("video",)), max_frames=3)
    assert not list((tmp_path / "door").iterdir())


def test_reader_that_leaves_ends_all_streams_and_the_state_is_saved(network, recording, tmp_path):
    class Pipe(io.StringIO):
        def flush(self):
            if self.tell() > 2000:
                raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    state = tmp_path / "state.safetensors"
    with pytest.raises(BrokenPipeError):
        stream([recording, recording], network, output=OutputSettings(lines=Pipe()), state=state)
    # Which of the two was first is not known.
    assert 0 < sum(saved["frame_index"] for saved in read_states(state)[0].values()) < 80


def test_a_recording_that_cannot_be_read_is_no_end(network, recording, tmp_path):
    """The one before it was read to its end already when the reader failed."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    shutil.copy(recording, folder / "a.mp4")
    (folder / "b.mp4").write_bytes(b"no video")
    seen = []
    with pytest.raises(ValueError, match=r"b\.mp4"):
        stream(folder, network, on_result=lambda name, result: seen.append(result.frame_index))
    assert seen == list(range(40))


def test_a_rate_that_shows_no_frame_is_refused(network, recording):
    for rate in (0, -5.0):
        with pytest.raises(ValueError, match="`fps` must be positive"):
            stream(recording, network, fps=rate)


def test_restart_of_a_live_source_keeps_identities(network, tmp_path):
    sent, state = transport_stream(30), tmp_path / "state.safetensors"
    ids = [[], []]
    for run in ids:
        with Broadcast(send(sent, STALL)) as camera:
            stream(
                camera.address,
                network,
                policy="every",
                state=state,
                max_frames=20,
                threshold=0.3,
                on_result=lambda name, result, run=run: run.append((result.time, set(result.track_ids.tolist()))),
            )
        # The address has another port each time; the state belongs to the name.
        assert list(read_states(state)[0]) == ["127.0.0.1-door.ts"]
    assert ids[1][0][0] > ids[0][-1][0]
    assert set().union(*(seen for _, seen in ids[0])) & set().union(*(seen for _, seen in ids[1]))


def test_states_of_streams_that_are_not_in_a_run_are_kept(network, recording, tmp_path, make_video):
    state = tmp_path / "state.safetensors"
    stream(recording, network, state=state, max_frames=3)
    stream(make_video(tmp_path / "yard.mp4"), network, state=state, max_frames=3)
    assert set(read_states(state)[0]) == {"door", "yard"}


def test_stop_completes_all_files(network, recording, tmp_path):
    stop = threading.Event()
    (status,) = stream(
        recording,
        network,
        output=OutputSettings(tmp_path, ("jsonl", "mot", "video")),
        on_result=lambda name, result: result.frame_index == 12 and stop.set(),
        stop=stop,
    )
    assert status.frames == 13
    assert len(frames_of(tmp_path / "door" / "frames.jsonl")) == 13
    with av.open(str(tmp_path / "door" / "annotated-000001.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 13
    assert not [path for path in (tmp_path / "door").iterdir() if path.name.startswith(".")]


def test_video_comes_in_segments_of_which_the_newest_are_kept(network, recording, tmp_path):
    output = OutputSettings(tmp_path, ("video",), segment_seconds=0.4, keep_segments=2)
    stream(recording, network, output=output)
    files = sorted(path.name for path in (tmp_path / "door").iterdir())
    assert files == ["annotated-000003.mp4", "annotated-000004.mp4"]
    with av.open(str(tmp_path / "door" / files[0])) as video:
        frames = list(video.decode(video=0))
    assert len(frames) == 10 and frames[0].time == 0


def test_change_of_size_begins_a_new_segment(network, tmp_path):
    small, large = transport_stream(20), transport_stream(20, width=160, height=96, start=20)
    output = OutputSettings(tmp_path, ("video", "jsonl"))
    with Broadcast(send(small, large, STALL)) as camera:
        (status,) = stream(camera.address, network, output=output, policy="every", max_frames=36)
    sizes = []
    for path in sorted(status.folder.glob("annotated-*.mp4")):
        with av.open(str(path)) as video:
            sizes.append((video.streams.video[0].width, video.streams.video[0].height))
    assert sizes == [(96, 64), (160, 96)]
    assert [line["event"] for line in lines_of(status.folder / "frames.jsonl") if "event" in line] == [
        "connected",
        "resized",
    ]


def test_source_that_fails_does_not_end_the_others(network, recording, tmp_path):
    dead = "http://127.0.0.1:9/dead.ts"
    statuses = stream([dead, recording], network, output=tmp_path)
    assert [status.state for status in statuses] == ["failed", "ended"]
    assert "cannot be opened" in str(statuses[0].error) and statuses[1].frames == 40
    with pytest.raises(ValueError, match="cannot be opened"):
        stream([dead], network)


def test_live_source_that_breaks_off_counts_its_breaks(network, tmp_path):
    sent = transport_stream(30)
    with Broadcast(send(sent), send(sent, STALL)) as camera:
        (status,) = stream(
            camera.address, network, output=tmp_path, policy="every", reconnect=Reconnect(0.05, 0.1), max_frames=45
        )
    assert (status.breaks, status.frames) == (1, 45)
    events = [line["event"] for line in lines_of(status.folder / "frames.jsonl") if "event" in line]
    assert [kind for kind in events if kind != "damaged"] == ["connected", "disconnected", "reconnected"]


def test_source_that_is_away_stays_so_until_it_is_back():
    one, states = streaming._Stream("door", None, None, OutputSettings(), {}, None, None), []
    for kind in ("damaged", "connected", "damaged", "disconnected", "damaged", "reconnected"):
        one._tell(StreamEvent(kind, "", 0.0))
        states.append(one.status.state)
    assert states == ["connecting", "running", "running", "away", "away", "running"]


def test_lines_of_all_streams_go_to_one_open_file(network, recording):
    text = io.StringIO()
    stream([recording, recording], network, output=OutputSettings(lines=text), max_frames=3)
    assert sorted(json.loads(line)["stream"] for line in text.getvalue().splitlines() if "event" not in line) == (
        ["door"] * 3 + ["door-2"] * 3
    )


def test_second_run_replaces_the_files_of_the_first(network, recording, tmp_path):
    for count in (9, 4):
        stream(recording, network, output=OutputSettings(tmp_path, ("jsonl", "video")), max_frames=count)
    assert len(frames_of(tmp_path / "door" / "frames.jsonl")) == 4
    assert [path.name for path in (tmp_path / "door").glob("*.mp4")] == ["annotated-000001.mp4"]


def test_output_that_cannot_be_written_is_one_clear_error(network, recording, tmp_path):
    (tmp_path / "door").write_text("a file in the way")
    with pytest.raises(OSError, match="--output"):
        stream(recording, network, output=tmp_path)
    with pytest.raises(ValueError, match="no output 'csv'"):
        OutputSettings(tmp_path, ("csv",))
    with pytest.raises(ValueError, match="no source"):
        stream([], network)


def test_names_are_unique_whatever_the_case():
    assert unique_names(["a", "A", "a"]) == ["a", "A-2", "a-3"]
