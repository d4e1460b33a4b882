"""What whoever runs the demo decides: models, limits, and what visitors may do."""

import os
from dataclasses import dataclass

from ..processing.loading import DEFAULT_MODEL


@dataclass(frozen=True)
class DemoOptions:
    """Settings of one running demo.

    Attributes:
        models: names, folders or Hub ids that visitors may choose from; the first is the default.
        device: PyTorch device; a GPU if there is one when None.
        allow_urls: whether the server fetches a video from an address that a visitor gives.
        max_seconds: longest video.
        max_frames: most frames looked at in one video; it bounds the computing time.
        max_megabytes: largest upload or download.
        max_pixels: most pixels of a frame.
        max_work_seconds: longest computing time of one video.
        queue_size: most visitors that wait; others are told to come back.
        workers: videos that are analysed at the same time.
        live_sessions: webcams that are served at the same time.
        keep_minutes: after that, files of uploads and results are deleted; those of a page that was closed at once.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    device: str | None = None
    allow_urls: bool = True
    max_seconds: float = 120.0
    max_frames: int = 3000
    max_megabytes: int = 200
    max_pixels: int = 4096 * 2304
    max_work_seconds: float = 600.0
    queue_size: int = 12
    workers: int = 2
    live_sessions: int = 2
    keep_minutes: float = 60.0

    @classmethod
    def from_environment(cls, **changes) -> "DemoOptions":
        """Defaults for this machine: on a public Space (`SPACE_ID` is set) videos are shorter and no URL is fetched.

        Args:
            **changes: attributes that differ; those that are None count as not given.

        Environment: `KINETRACK_DEMO_MODEL` (names between commas) and `KINETRACK_DEMO_ALLOW_URLS` (1 or 0).
        """
        given = {}
        if os.environ.get("SPACE_ID"):
            given |= {"allow_urls": False, "max_seconds": 60.0, "max_frames": 1500, "max_megabytes": 100}
        if os.environ.get("KINETRACK_DEMO_MODEL"):
            names = os.environ["KINETRACK_DEMO_MODEL"].split(",")
            given["models"] = tuple(name.strip() for name in names if name.strip())
        if os.environ.get("KINETRACK_DEMO_ALLOW_URLS"):
            given["allow_urls"] = os.environ["KINETRACK_DEMO_ALLOW_URLS"] == "1"
        return cls(**(given | {name: value for name, value in changes.items() if value is not None}))
