"""Live sources over a real local connection, which is cut, damaged, resized, slowed down and stalled."""

import itertools
import threading
import time

import numpy as np
import pytest
from broadcast import STALL, Broadcast, in_real_time, send, transport_stream
from kinetrack.processing.container_kinetrack import VideoDecodeError
from kinetrack.processing.feed_kinetrack import FrameFeed
from kinetrack.processing.live_kinetrack import Reconnect
from kinetrack.processing.loading import load_model
from kinetrack.processing.session_kinetrack import KineTrackSession
from kinetrack.processing.sources_kinetrack import find_source

QUICK = Reconnect(first=0.05, longest=0.2)


@pytest.fixture(scope="module")
def network(model_folder):
    return load_model(model_folder, device="cpu")


@pytest.fixture(scope="module")
def stream() -> bytes:
    """30 frames, 1.2 s."""
    return transport_stream(30)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("kinetrack-"):
            thread.join(5)
            assert not thread.is_alive(), thread.name


def watch(address, until, policy="every", reconnect=QUICK, stall=5.0, limit=120.0):
    """Frames and events of a live source until `until(frames, events)` holds."""
    frames, events, end = [], [], time.monotonic() + limit
    with FrameFeed(find_source(address, stall_timeout=stall), policy, reconnect=reconnect) as feed:
        for frame in feed.frames(events.append):
            frames.append(frame)
            if until(frames, events):
                return frames, events, feed
            assert time.monotonic() < end, [event.message for event in events]
    raise AssertionError(f"the stream ended: {events}")


def kinds(events):
    return [event.kind for event in events if event.kind != "damaged"]


def assert_rising(frames):
    assert all(np.diff([frame.time for frame in frames]) > 0)
    assert all(np.diff([frame.index for frame in frames]) > 0)


def test_stream_that_is_cut_is_opened_again_and_its_clock_goes_on(stream):
    """The second connection's own times begin at zero again; the stream's do not, and the gap is as long as it was."""

    def late():
        time.sleep(0.8)
        yield from send(stream)()

    with Broadcast(send(stream[: len(stream) // 2]), late) as camera:
        frames, events, _ = watch(camera.address, lambda frames, events: len(frames) > 2 and frames[-1].time > 1.6)
    assert_rising(frames)
    assert kinds(events) == ["connected", "disconnected", "reconnected"]
    before, gap = next(pair for pair in itertools.pairwise(frames) if pair[1].unseen)
    assert 0.5 < gap.unseen < 10 and gap.time - before.time == pytest.approx(gap.unseen + 0.04, abs=0.01)
    assert [frame.index for frame in frames] == list(range(len(frames)))


def test_waits_between_tries_double_up_to_a_bound(stream):
    refusals = [None] * 5
    with Broadcast(send(stream), *refusals, send(stream, STALL)) as camera:
        _, events, _ = watch(camera.address, lambda frames, events: "reconnected" in kinds(events))
    waits = [float(event.message.split()[-2]) for event in events if event.kind == "disconnected"]
    assert waits[1:6] == pytest.approx([0.1, 0.2, 0.2, 0.2, 0.2], abs=0.06) and max(waits) <= 0.2
    reconnect = Reconnect(first=0.5, longest=30)
    assert [reconnect.wait(tries) for tries in (0, 1, 5, 6, 7, 10**6)] == [0.5, 1.0, 16.0, 30.0, 30.0, 30.0]


def test_damaged_stretch_is_reported_and_survived(stream):
    rng, middle = np.random.default_rng(0), len(stream) // 2 // 188 * 188
    noise = rng.integers(0, 256, 188 * 40, dtype=np.uint8).tobytes()
    damaged = stream[:middle] + noise + stream[middle + len(noise) :]
    with Broadcast(send(damaged, transport_stream(20, start=30), STALL)) as camera:
        frames, events, _ = watch(camera.address, lambda frames, events: frames[-1].time > 1.6)
    assert_rising(frames)
    assert kinds(events) == ["connected"]
    assert len(frames) > 25


def test_change_of_size_is_an_event_and_frames_keep_their_size(stream):
    with Broadcast(send(stream, transport_stream(30, width=160, height=96, start=30), STALL)) as camera:
        frames, events, _ = watch(camera.address, lambda frames, events: frames[-1].time > 2.0)
    assert_rising(frames)
    assert [event.message for event in events if event.kind == "resized"] == [
        "now 160x96 pixels (width x height), before 96x64"
    ]
    assert {frame.image.shape for frame in frames} == {(64, 96, 3), (96, 160, 3)}


def test_stream_that_stalls_is_opened_again(stream):
    with Broadcast(send(stream, STALL), send(stream, STALL)) as camera:
        frames, events, _ = watch(camera.address, lambda frames, events: "reconnected" in kinds(events), stall=0.6)
    assert_rising(frames)
    assert kinds(events) == ["connected", "disconnected", "reconnected"]
    assert "no data came in time" in events[-2].message


def test_rate_that_changes_is_an_event(stream):
    slow = transport_stream(30, rate=10)
    with Broadcast(send(stream), send(slow, STALL)) as camera:
        _, events, _ = watch(camera.address, lambda frames, events: "reconnected" in kinds(events))
    assert [event.message for event in events if event.kind == "rate"] == ["now 10 frames a second, before 25"]


def test_slow_model_drops_frames_and_never_falls_behind(stream):
    """30 frames arrive within 1.2 s and each is looked at for 0.2 s: whoever kept them all would end 4.8 s late."""
    with (
        Broadcast(in_real_time(stream, 1.2), send(STALL)) as camera,
        FrameFeed(find_source(camera.address), None, reconnect=QUICK) as feed,
    ):
        ages = []
        for frame in feed.frames():
            ages.append(time.monotonic() - frame.arrival)
            time.sleep(0.2)
            if frame.index >= 24:
                break
        assert feed.policy == "latest" and feed.dropped >= 10
        assert len(ages) + feed.dropped <= 30
        assert max(ages) < 1.5


def test_every_frame_is_kept_when_asked_for(stream):
    with Broadcast(send(stream, STALL)) as camera:
        frames, _, feed = watch(camera.address, lambda frames, events: time.sleep(0.02) or len(frames) >= 25)
    assert [frame.index for frame in frames] == list(range(25)) and feed.dropped == 0


def test_address_without_a_sender_is_an_error_at_once_and_hides_the_password():
    with pytest.raises(VideoDecodeError, match="cannot be opened") as caught:
        next(FrameFeed(find_source("http://user:secret@127.0.0.1:9/door?key=hidden")).frames())
    assert "secret" not in str(caught.value) and "hidden" not in str(caught.value)


def test_sender_that_is_late_is_waited_for_when_asked(stream):
    patient = Reconnect(first=0.05, longest=0.1, from_start=True)
    with Broadcast(None, None, send(stream, STALL)) as camera:
        frames, events, _ = watch(camera.address, lambda frames, events: len(frames) >= 5, reconnect=patient)
    assert kinds(events) == ["disconnected", "disconnected", "connected"]
    assert frames[0].time == 0


def test_source_that_stays_away_is_given_up(stream):
    reconnect = Reconnect(first=0.05, longest=0.1, give_up_after=0.4)
    with Broadcast(send(stream), None) as camera, pytest.raises(VideoDecodeError, match="given up"):
        watch(camera.address, lambda frames, events: False, reconnect=reconnect)


def test_session_keeps_identities_over_a_break_and_a_change_of_size(network, stream):
    """The same wall before and after: whoever was there keeps the identity, and the temporal part starts again."""
    larger = transport_stream(30, width=192, height=128, start=0)
    events = []
    with Broadcast(send(stream), send(larger, STALL)) as camera:
        session = KineTrackSession(*network, threshold=0.3)
        results = session.run(camera.address, policy="every", reconnect=QUICK, on_event=events.append)
        before, after = [], []
        for result in results:
            (before if result.height == 64 else after).append(result)
            if len(after) == 6:
                break
        results.close()
    assert {"disconnected", "reconnected"} <= set(kinds(events))
    assert len(after[0].window_times) == 1 and len(before[-1].window_times) > 1
    assert all(np.diff([result.time for result in before + after]) > 0)
    old = np.unique(np.concatenate([result.track_ids for result in before]))
    assert len(np.intersect1d(old, np.concatenate([result.track_ids for result in after]))) > 0


def test_temporal_part_keeps_its_rate_when_the_source_changes_its_own(network):
    """25 frames a second, then 100: ticks stay at those of the model."""
    fast = transport_stream(60, rate=100)
    with Broadcast(send(transport_stream(40)), send(fast, STALL)) as camera:
        session, results = KineTrackSession(*network), []
        stream = session.run(camera.address, policy="every", reconnect=QUICK)
        for result in stream:
            results.append(result)
            if len(results) == 90:
                break
        stream.close()
    ticks = np.array([result.time for result in results if result.updated])
    assert np.median(np.diff(ticks)) == pytest.approx(0.08, abs=0.011)
