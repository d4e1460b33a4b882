"""The one way of a video through the demo, whatever tab it was given to."""

import logging
from collections.abc import Iterator
from pathlib import Path

from .context import Context
from .jobs import Choices, Finished, Progress, run_job
from .limits import Refused, measure
from .result_view import save_extras

logger = logging.getLogger(__name__)


def work(
    context: Context, session: str, purpose: str, video: str | None, choices: Choices
) -> Iterator[Progress | Finished]:
    """Measures a video, analyses it and writes the files of the page.

    Args:
        context: of the demo.
        session: the open page.
        purpose: of the result; the page's earlier one for the same purpose is deleted.
        video: path of the upload.
        choices: settings of the analysis.

    Yields:
        `Progress`, at last `Finished`.

    Raises:
        Refused, Cancelled, OSError, ValueError: see `measure` and `run_job`.
    """
    if not video:
        raise Refused("Choose a video first: upload one, record one, or take the example.")
    path = Path(video)
    workspace = context.workspaces.of(session)
    context.workspaces.claim(session, path)  # before the look: from here on, no other page that is left deletes it
    if not path.is_file():
        raise Refused("This video is no longer here: files go when their page is left. Upload it again.")
    measure(path, choices.fps, context.options)
    folder = context.workspaces.result_folder(session, purpose)
    network = context.networks.get(choices.model)
    for news in run_job(path, network, choices, folder, workspace.cancelled, context.options.max_work_seconds):
        if isinstance(news, Finished):
            save_extras(news)
            speed = news.analysis.performance
            logger.info("Analysed %d frames in %.1f s.", speed["frames"], speed["seconds"])
        yield news
