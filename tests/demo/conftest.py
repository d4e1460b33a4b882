"""A running demo with a tiny model, and a client for it."""

import pytest


@pytest.fixture(scope="session")
def options(model_folder):
    """Limits small enough to be reached by small videos."""
    from kinetrack.demo.options import DemoOptions

    return DemoOptions(models=(str(model_folder),), device="cpu", max_seconds=4, max_frames=90, max_megabytes=5)


@pytest.fixture
def context(options, tmp_path):
    """The parts of a demo without a page."""
    from kinetrack.demo.context import Context
    from kinetrack.demo.networks import Networks
    from kinetrack.demo.workspaces import Workspaces

    return Context(options, Networks(options), Workspaces(tmp_path / "root", 3600))


@pytest.fixture(scope="session")
def finished(model_folder, long_video_path, tmp_path_factory):
    """One analysis of three seconds, with its files."""
    import threading

    from kinetrack.demo.jobs import Choices, Finished, run_job
    from kinetrack.demo.result_view import save_extras
    from kinetrack.processing.loading import load_model

    folder = tmp_path_factory.mktemp("finished")
    network = load_model(model_folder, "cpu")
    *_, last = run_job(long_video_path, network, Choices("tiny"), folder, threading.Event(), 600)
    assert isinstance(last, Finished)
    save_extras(last)
    return last


@pytest.fixture(scope="session")
def demo(options):
    """The demo on a free port of this machine: an object with `url` and `context`."""
    from types import SimpleNamespace

    from kinetrack.demo import app as module

    contexts = []
    make = module.make_context

    def remember(options):
        contexts.append(make(options))
        return contexts[-1]

    module.make_context = remember
    try:
        blocks = module.launch(options, wait=False, quiet=True)
    finally:
        module.make_context = make
    yield SimpleNamespace(url=blocks.local_url, context=contexts[0])
    blocks.close()


@pytest.fixture
def client(demo):
    """A new visitor."""
    from gradio_client import Client

    visitor = Client(demo.url, verbose=False)
    yield visitor
    visitor.close()
