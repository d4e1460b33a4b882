"""Images in a folder as a video: read one by one, when their turn comes."""

import os
from collections.abc import Callable, Iterator

import numpy as np

from ..processing.container_kinetrack import VideoDecodeError
from ..processing.video_input_kinetrack import is_image_path, open_image, rgb_frame

__all__ = ["ImageSequence", "is_image_path"]


class ImageSequence:
    """Image files with the interface of `PyAVVideo`.

    Args:
        paths: in order.
        frame_rate: Hz.
    """

    is_live = False
    failure = None

    def __init__(self, paths: list[os.PathLike], frame_rate: float):
        self.paths, self.frame_rate = paths, frame_rate
        self.report: Callable[[str], None] | None = None
        self._first = 0

    def seek(self, time: float) -> None:
        """Begins with the last image at or before a time, in seconds."""
        self._first = min(int(time * self.frame_rate + 1e-6), len(self.paths) - 1)

    def decode(self) -> Iterator[tuple[np.ndarray, float]]:
        """Yields ((H, W, 3) uint8, seconds); an image that cannot be read is reported and left out.

        Raises:
            VideoDecodeError: none of them can be read.
        """
        read = 0
        for index, path in enumerate(self.paths[self._first :], start=self._first):
            try:
                image = rgb_frame(open_image(path), index)
            except (OSError, ValueError) as error:
                if self.report is not None:
                    self.report(str(error))
                continue
            read += 1
            yield image, index / self.frame_rate
        if not read:
            raise VideoDecodeError(f"None of the {len(self.paths)} images, such as {self.paths[0]}, can be read.")

    def picture(self, frame: np.ndarray) -> Callable[[], np.ndarray]:
        """The frame itself: it is a picture already."""
        return lambda: frame
