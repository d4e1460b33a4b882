"""What all parts of a running demo share, and how a mistake becomes a sentence."""

import logging
import traceback
from dataclasses import dataclass
from pathlib import Path

from ..processing.analyze import INPUT_ERRORS
from .limits import Refused
from .networks import Networks
from .options import DemoOptions
from .workspaces import Workspaces

logger = logging.getLogger(__name__)

EXAMPLE = Path(__file__).resolve().parents[1] / "hub_scripts" / "examples" / "pets2009.mp4"
UNKNOWN_ERROR = "Something went wrong inside KineTrack, not with your video. Try again; if it stays, report it."


@dataclass(frozen=True)
class Context:
    """Shared by all parts of one demo.

    Attributes:
        options: what whoever runs it decided.
        networks: the models.
        workspaces: folders of the open pages.
    """

    options: DemoOptions
    networks: Networks
    workspaces: Workspaces


def sentence(error: Exception, *paths: Path) -> str:
    """What a visitor reads about an error: one sentence, without folders of this machine, never a traceback.

    Errors that nobody expects are logged by their place in the code alone; their message may hold a file name, and a
    file name may name a person.

    Args:
        error: what happened.
        *paths: files the message may mention.
    """
    if not isinstance(error, (Refused, *INPUT_ERRORS)) or isinstance(error, RuntimeError):
        places = traceback.extract_tb(error.__traceback__)
        logger.error("%s at %s", type(error).__name__, " < ".join(f"{p.filename}:{p.lineno}" for p in reversed(places)))
        return UNKNOWN_ERROR
    text = " ".join(str(error).split())
    for path in paths:
        text = text.replace(str(path), "This file").replace(str(path.parent), "")
    return text or UNKNOWN_ERROR
