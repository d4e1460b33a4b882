"""Random access to the frames of training videos, with an optional cache of decoded frames on disk.

Training jumps to a few frames of a video again and again. A video decoded once into an uncompressed array costs disk
space (width x height x 3 bytes a frame) and saves decoding it in every epoch: the array is memory mapped, so only the
pages that are read occupy memory, and they are shared between worker processes.
"""

import gc
import hashlib
import os
import shutil
import warnings
from pathlib import Path

import numpy as np

from ...processing.container_kinetrack import open_pyav
from ...processing.decoding_kinetrack import probe_video
from ..atomic_files import atomic_path

_SPARE_BYTES = 4 * 2**30  # what the cache leaves free on its disk

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}

# A decoded frame whose side data was looked at is a reference cycle, and holds the threads of its colour conversion.
# Collected in a forked worker, where those threads do not exist, it waits for them for ever: collect before the fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=gc.collect)


class FrameStore:
    """Frames of one video file, or of one folder of numbered images, as RGB arrays as displayed.

    Args:
        path: A video file, or a folder of images that sort into frame order (MOTChallenge `img1`).
        frame_rate: Frames a second; needed for an image folder, read from a video's header otherwise.
        cache: Folder for decoded frames, made when missing. None decodes the video at each call of `read`.

    Attributes:
        height, width: Size of a frame in pixels.
        num_frames: Number of frames.
        frame_rate: Frames a second.
        cached: Whether frames go through the cache.

    Raises:
        FileNotFoundError: Nothing lies at `path`.
        VideoDecodeError: The file holds no video.
        ValueError: The folder holds no images.
    """

    def __init__(
        self, path: str | os.PathLike, frame_rate: float | None = None, cache: str | os.PathLike | None = None
    ):
        self.path = Path(path)
        self.cached = cache is not None
        if self.path.is_dir():
            self.images = sorted(file for file in self.path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not self.images:
                raise ValueError(f"{path} holds no images. Expected numbered .jpg or .png frames.")
            first = _read_image(self.images[0])
            self.height, self.width = first.shape[:2]
            self.num_frames, self.frame_rate = len(self.images), float(frame_rate or 30.0)
        elif self.path.is_file():
            self.images = []
            info = probe_video(self.path)
            self.height, self.width = info.height, info.width
            self.frame_rate = float(frame_rate or info.frame_rate)
            self.num_frames = info.num_frames or self._count_frames()
        else:
            raise FileNotFoundError(f"No video file or image folder at {path}.")
        status = self.path.stat()
        key = f"{self.path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{len(self.images)}"
        name = f"{self.path.parent.name}-{self.path.stem}-{hashlib.sha1(key.encode()).hexdigest()[:12]}.npy"
        self._cache_file = Path(cache) / name if cache is not None else None
        self._array: np.ndarray | None = None

    def read(self, indices: list[int] | np.ndarray, window: tuple[int, int, int, int] | None = None) -> np.ndarray:
        """Reads frames, or one window of them.

        Args:
            indices: Frame numbers from 0, in any order, repeats allowed.
            window: `(left, top, right, bottom)` in pixels; None for the whole frame.

        Returns:
            `uint8` array `(len(indices), H, W, 3)`, RGB.
        """
        left, top, right, bottom = window or (0, 0, self.width, self.height)
        indices = [int(index) for index in indices]
        if self._cache_file is None or not self._fits_on_disk():
            wanted = self._decode(set(indices))
            return np.stack([wanted[index][top:bottom, left:right] for index in indices])
        frames = self._mapped()
        return np.stack([frames[index, top:bottom, left:right] for index in indices])

    def _mapped(self) -> np.ndarray:
        if self._array is None:
            if not self._cache_file.is_file():
                self._fill_cache()
            self._array = np.load(self._cache_file, mmap_mode="r")
        return self._array

    def _fits_on_disk(self) -> bool:
        """Whether the cache may grow by this video; a disk that is full stops more than this run."""
        if self._array is not None or self._cache_file.is_file():
            return True
        self._cache_file.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._cache_file.parent).free
        if free - self.num_frames * self.height * self.width * 3 > _SPARE_BYTES:
            return True
        warnings.warn(
            f"{self._cache_file.parent} has {free / 2**30:.1f} GiB left: from {self.path.name} on, videos are decoded "
            "each time they are read. data.cache=null does so from the start.",
            stacklevel=3,
        )
        return False

    def _fill_cache(self) -> None:
        self._cache_file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(self._cache_file) as partial:
            shape = (self.num_frames, self.height, self.width, 3)
            array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
            self._decode(range(self.num_frames), into=array)
            array.flush()
            del array

    def _decode(self, wanted, into: np.ndarray | None = None) -> dict[int, np.ndarray] | np.ndarray:
        """Decodes from the start; every training clip is short, and seeking is not exact in every container."""
        found = {} if into is None else into
        last, index, image = max(wanted), -1, None
        if self.images:
            for index in sorted(wanted):
                found[index] = _read_image(self.images[index])
            return found
        with open_pyav(self.path) as video:
            for index, (frame, _) in enumerate(video.decode()):
                if index in wanted:
                    image = found[index] = video.to_rgb(frame)
                if index == last:
                    return found
        # The header promised more frames than there are: repeat the last one, so that one damaged clip is no crash.
        for missing in range(index + 1, last + 1):
            if missing in wanted:
                found[missing] = image if image is not None else self._decode({index})[index]
        return found

    def _count_frames(self) -> int:
        """Some containers do not say how many frames they hold."""
        with open_pyav(self.path) as video:
            return sum(1 for _ in video.decode())

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_array": None}  # a memory map is opened again in the worker, not copied to it


def _read_image(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
