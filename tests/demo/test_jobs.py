"""An analysis reports its progress, can be stopped, and is over within its limits."""

import threading
import time

import pytest
from kinetrack.demo.jobs import Cancelled, Choices, Finished, Progress, run_job
from kinetrack.demo.limits import Refused


@pytest.fixture
def network(context):
    return context.networks.get()


def slow_down(network, seconds):
    """The network, with a model that takes its time."""
    model, processor = network

    class Slow:
        def __getattr__(self, name):
            return getattr(processor, name)

        def preprocess_frame(self, *arguments):
            time.sleep(seconds)
            return processor.preprocess_frame(*arguments)

    return model, Slow()


def test_progress_comes_first_and_the_result_last(network, long_video_path):
    news = list(run_job(long_video_path, slow_down(network, 0.02), Choices("tiny"), None, threading.Event(), 60))
    assert all(isinstance(item, Progress) for item in news[:-1]) and isinstance(news[-1], Finished)
    assert [item.done for item in news[:-1]] == sorted(item.done for item in news[:-1])
    assert {item.total for item in news[:-1]} == {75}
    assert len(news[-1].analysis.times) == len(news[-1].evidence.times) == 75


def test_the_time_left_is_an_estimate_from_what_was_done():
    assert Progress(50, 100, 5.0).seconds_left == pytest.approx(5.0)
    assert Progress(1, 100, 1.0).seconds_left is None
    assert Progress(50, None, 5.0).seconds_left is None


def test_cancelling_stops_the_worker_and_leaves_no_file(network, long_video_path, tmp_path):
    cancelled = threading.Event()
    job = run_job(long_video_path, slow_down(network, 0.2), Choices("tiny"), tmp_path, cancelled, 60)
    next(job)
    cancelled.set()
    started = time.perf_counter()
    with pytest.raises(Cancelled):
        list(job)
    assert time.perf_counter() - started < 2
    assert not [thread for thread in threading.enumerate() if thread.name == "kinetrack-analysis"]
    assert not list(tmp_path.iterdir())


def test_dropping_the_iterator_stops_the_worker(network, long_video_path):
    job = run_job(long_video_path, slow_down(network, 0.2), Choices("tiny"), None, threading.Event(), 60)
    next(job)
    job.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "kinetrack-analysis"]


def test_too_long_a_computation_is_stopped(network, long_video_path):
    with pytest.raises(Refused, match="took longer than 0 s"):
        list(run_job(long_video_path, slow_down(network, 0.05), Choices("tiny"), None, threading.Event(), 0.1))


def test_an_error_of_the_work_reaches_whoever_iterates(network, corrupt_video_path):
    with pytest.raises(ValueError, match="cannot be opened as a video"):
        list(run_job(corrupt_video_path, network, Choices("tiny"), None, threading.Event(), 60))
