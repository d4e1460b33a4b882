"""Style sheets, scripts and pictures of the page."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def read_asset(name: str) -> str:
    """The text of a file in this folder."""
    return (FOLDER / name).read_text(encoding="utf-8")
