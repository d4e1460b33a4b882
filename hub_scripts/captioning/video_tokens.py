"""What a text decoder is shown of a video: KineTrack's own token of every frame and of every track.

A frame's token is f_t of Eq. 4, what alpha gathers from the whole frame. A track's token is R of Eq. 5 in its boxes,
what the action head reads as well, with where the track was: the model's own detections and associations, no labels.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...processing.graphs.graph_cache import weight_hash
from ...processing.session_kinetrack import KineTrackSession
from ..atomic_files import atomic_path

MAX_FRAMES, MAX_TRACKS = 32, 12
PLACES = ("first x", "first y", "width", "height", "moved x", "moved y", "share of frames", "score", "middle time")
_FRAME_MIDDLE = PLACES.index("middle time")


@dataclass(frozen=True)
class VideoTokens:
    """A video as a decoder sees it. T frames, K tracks, D features.

    Attributes:
        frames: `(T, D)` float16, f_t of frames that are spread evenly over the video.
        tracks: `(K, D)` float16, R within the boxes of each track, those seen longest and surest first.
        places: `(K, 9)` float32, see `PLACES`: the first box's centre, the mean size and how far the centre moved, in
            parts of the frame; in how many of the frames it was seen; mean score; when, from 0 to 1.
    """

    frames: np.ndarray
    tracks: np.ndarray
    places: np.ndarray

    def rows(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All tokens in one list: features `(T + K, D)`, places `(T + K, 9)`, whether each is a track `(T + K,)`."""
        places = np.zeros((len(self.frames), len(PLACES)), np.float32)
        places[:, _FRAME_MIDDLE] = np.linspace(0, 1, len(self.frames))
        kinds = np.repeat([False, True], [len(self.frames), len(self.tracks)])
        features = np.concatenate([self.frames, self.tracks]).astype(np.float32)
        return features, np.concatenate([places, self.places]), kinds


class TokenSession(KineTrackSession):
    """A session for people and actions that keeps what the heads read.

    Args:
        model: as for `KineTrackSession`.
        processor: as for `KineTrackSession`.
        **options: as for `KineTrackSession`, without `task`.
    """

    def __init__(self, model, processor, **options):
        super().__init__(model, processor, task="both", **options)
        self._frames: list[np.ndarray] = []
        self._sightings: dict[int, list[tuple]] = {}

    def watch(self, source) -> VideoTokens:
        """Starts anew and looks at a video at the model's frame rate.

        Args:
            source: as for `KineTrackSession.run`; an iterable of frames is taken as it is.

        Raises:
            ValueError: no frame at all, or from the source.
        """
        self.reset()
        self._frames, self._sightings = [], {}
        for _ in self.run(source, fps=self.model.config.frame_rate):
            pass
        if not self._frames:
            raise ValueError(
                f"{source if isinstance(source, str | Path) else 'The video'}: no frame reached the model."
            )
        chosen = np.linspace(0, len(self._frames) - 1, min(len(self._frames), MAX_FRAMES)).round().astype(int)
        frames = np.stack(self._frames)[chosen].astype(np.float16)
        tracks = sorted(self._sightings.values(), key=lambda seen: -sum(score for *_, score in seen))[:MAX_TRACKS]
        described = [_describe_track(seen, len(self._frames)) for seen in tracks]
        features = np.array([feature for feature, _ in described], np.float16).reshape(-1, frames.shape[1])
        places = np.array([place for _, place in described], np.float32).reshape(-1, len(PLACES))
        return VideoTokens(frames, features, places)

    def _recognise(self, output, result):
        super()._recognise(output, result)
        if not result.updated:
            return
        size = np.array([result.width, result.height] * 2, np.float32)
        boxes = np.concatenate([[[0, 0, *size[:2]]], result.boxes]).astype(np.float32)  # (1 + N, 4)
        scores, pooled = (part.float().cpu().numpy() for part in self._attend(output, boxes))  # (1 + N,), (1 + N, …)
        pooled = pooled[:, : self.model.config.hidden_size]  # without poses
        number = len(self._frames)
        self._frames.append(pooled[0].copy())
        for row, identity in enumerate(result.track_ids.tolist(), start=1):
            seen = (number, scores[row], pooled[row].copy(), boxes[row] / size, float(result.scores[row - 1]))
            if np.isfinite(scores[row]):
                self._sightings.setdefault(identity, []).append(seen)


def _describe_track(seen: list[tuple], count: int) -> tuple[np.ndarray, list[float]]:
    """R over all frames a track was seen in, and its places."""
    numbers, scores, pooled, boxes, sureness = (np.array(column) for column in zip(*seen, strict=True))
    beta = np.exp(scores - scores.max())
    feature = (beta / beta.sum()) @ pooled  # (D,)
    centres, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).mean(0)
    middle = float(numbers.mean() / max(count - 1, 1))
    return feature, [*centres[0], *sizes, *(centres[-1] - centres[0]), len(seen) / count, sureness.mean(), middle]


class TokenCache:
    """Tokens on disk, computed once for every model and video.

    Args:
        session: what watches.
        folder: where they are kept, below a folder for the model.
    """

    def __init__(self, session: TokenSession, folder: Path):
        self.session, self.folder = session, Path(folder) / f"tokens-{model_key(session)}"

    def read(self, name: str, source) -> VideoTokens:
        """Tokens of a video.

        Args:
            name: unlike that of any other video.
            source: as for `TokenSession.watch`, or a function that makes an iterable of frames.
        """
        path = self.folder / f"{hashlib.sha1(name.encode()).hexdigest()[:16]}.npz"
        if not path.is_file():
            tokens = self.session.watch(source() if callable(source) else source)
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:
                np.savez(partial, **vars(tokens))
        with np.load(path) as arrays:
            return VideoTokens(arrays["frames"], arrays["tracks"], arrays["places"])

    def read_file(self, path: Path) -> VideoTokens:
        """Tokens of a video file; another content at the same place is another video."""
        status = path.stat()
        return self.read(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}", str(path))


def model_key(session: TokenSession) -> str:
    """Tells models and thresholds apart by all they are made of."""
    parts = (weight_hash(session.model), session.threshold, session.processor.to_dict())
    return hashlib.sha256(str(parts).encode()).hexdigest()[:16]
