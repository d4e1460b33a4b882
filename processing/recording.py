"""Gathers the results of a session into a `VideoAnalysis`: findings, time spent and a few key frames."""

import time as clock
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .recording_kinetrack import FindingsRecorder
from .results import KeyFrame, VideoAnalysis

NUM_KEY_FRAMES = 6
_KEY_FRAME_SIDE = 640  # pixels of the longer side


@dataclass
class KeyFrames:
    """Keeps a few evenly spaced frames of a stream whose length nobody knows.

    Every `step`-th frame is kept; when there are twice too many, every other one goes and the step doubles.
    """

    wanted: int = NUM_KEY_FRAMES
    step: int = 1
    seen: int = 0
    kept: list[KeyFrame] = field(default_factory=list)

    def add(self, result) -> None:
        """Looks at the next frame."""
        if self.seen % self.step == 0:
            self.kept.append(_shrink(result))
            if len(self.kept) > 4 * self.wanted:
                self.kept = self.kept[::2]
                self.step *= 2
        self.seen += 1

    def choose(self) -> list[KeyFrame]:
        """At most `wanted` of them: the middles of equal parts of the stream."""
        if len(self.kept) <= self.wanted:
            return list(self.kept)
        centres = (np.arange(self.wanted) + 0.5) * self.seen / self.wanted / self.step
        return [self.kept[min(len(self.kept) - 1, int(centre))] for centre in centres]


class AnalysisRecorder(FindingsRecorder):
    """Turns a stream of `KineTrackFrameResult`s into a `VideoAnalysis`.

    Args:
        source: see `VideoAnalysis`.
        model: see `VideoAnalysis`.
        settings: see `VideoAnalysis`.
    """

    def __init__(self, source: dict, model: dict, settings: dict):
        super().__init__(source, model, settings)
        self._key_frames = KeyFrames()
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._started = clock.perf_counter()

    def add(self, result) -> None:
        """Takes the result of the next frame."""
        super().add(result)
        self._key_frames.add(result)
        for stage, seconds in result.timings.items():
            self._spent[stage] += seconds

    def finish(self) -> VideoAnalysis:
        """Everything so far as a `VideoAnalysis`."""
        seconds = clock.perf_counter() - self._started
        frames = max(1, self.num_frames)
        return VideoAnalysis(
            **self._columns(),
            performance={
                "frames": self.num_frames,
                "seconds": seconds,
                "frames_per_second": self.num_frames / seconds,
                "milliseconds": {stage: 1000 * spent / frames for stage, spent in self._spent.items()},
            },
            key_frames=self._key_frames.choose(),
        )


def _shrink(result) -> KeyFrame:
    """A small copy of what a result shows."""
    scale = min(1.0, _KEY_FRAME_SIDE / max(result.height, result.width))
    image = Image.fromarray(result.frame)
    if scale < 1:
        size = (max(1, round(result.width * scale)), max(1, round(result.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return KeyFrame(
        image=np.array(image),
        time=result.time,
        frame_index=result.frame_index,
        boxes=result.boxes * np.float32(scale),
        track_ids=result.track_ids.copy(),
        attention=result.spatial_attention,
    )
