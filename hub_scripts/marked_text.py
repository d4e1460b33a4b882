"""Parts of a Markdown file that a command writes, between two comments that mark them."""

from collections.abc import Sequence


def replace_marked(text: str, begin: str, end: str, lines: Sequence[str]) -> str:
    """A text with other lines between its markers.

    Args:
        text: of the whole file.
        begin: the line that begins the part; it stays, like `end`.
        end: the line that ends it.
        lines: what stands between them from now on.

    Raises:
        ValueError: the markers are not there, in this order.
    """
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"The text has no {begin} … {end}.")
    return "\n".join([f"{before}{begin}", *lines, f"{end}{after}"])
