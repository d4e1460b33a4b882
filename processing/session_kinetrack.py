"""Streaming: one frame in, tracked people and what they do out, with memory that does not grow.

A session owns everything a stream carries: the model's temporal state, the tracker, every track's attention memory and
the clock. Sessions share nothing but the weights, so any number of them can run side by side.
"""

import copy
import itertools
import time as clock
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from ..processing.decoding_kinetrack import VideoFrame
from ..processing.detection_kinetrack import decode_detections, select_detections
from ..processing.feed_kinetrack import FrameFeed
from ..processing.live_kinetrack import Reconnect, StreamEvent
from ..processing.sources_kinetrack import StreamSource, find_source
from ..processing.stepping_kinetrack import (
    FrameInput,
    PendingFrame,
    beside_the_model,
    look_ahead,
    look_together,
    step_sessions,
)
from ..processing.track_memories_kinetrack import TrackMemories
from ..processing.tracking_kinetrack import Detections, KineTracker
from ..processing.video_input_kinetrack import rgb_frame

TASKS = ("both", "actions", "tracking")
_CLIP_FIELDS = ("clip_action", "group_actions", "spatial_attention", "temporal_attention", "window_times")


@dataclass
class KineTrackFrameResult:
    """What the model sees in one frame. N tracks; boxes are xyxy in pixels of the original frame as displayed.

    Attributes:
        frame: the frame itself, (height, width, 3) uint8 RGB; a reference, not a copy.
        frame_index: number of the frame in its source, from 0.
        time: seconds.
        height: pixels.
        width: pixels.
        track_ids: (N,) int64, from 1.
        boxes: (N, 4) float32; amodal, so they may reach beyond the frame.
        scores: (N,) float32 detection scores.
        labels: (N,) int64, index into `config.object_classes`.
        actions: (N, num_labels) float32 probabilities of every track's action, or None without an action head.
        clip_action: (num_labels,) float32 probabilities of what happens in the attention window that ends here.
        group_actions: the same for each of `config.label_groups`.
        spatial_attention: (h, w) float32 alpha on the stride-16 cells that show the frame, summing to one.
        temporal_attention: (n,) float32 beta of the ticks in the window, summing to one.
        window_times: (n,) seconds of those ticks.
        updated: whether the temporal part ticked on this frame.
        timings: seconds spent on `decode`, `preprocess`, `model` and `association`.
    """

    frame: np.ndarray
    frame_index: int
    time: float
    height: int
    width: int
    track_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    actions: np.ndarray | None = None
    clip_action: np.ndarray | None = None
    group_actions: dict[str, np.ndarray] = field(default_factory=dict)
    spatial_attention: np.ndarray | None = None
    temporal_attention: np.ndarray | None = None
    window_times: np.ndarray | None = None
    updated: bool = True
    timings: dict[str, float] = field(default_factory=dict)


def tracker_settings(threshold: float, tuned: dict | None = None, own_threshold: bool = True) -> dict:
    """What a session tells its `KineTracker`.

    Args:
        threshold: score from which an object is reported.
        tuned: `config.tracker_settings`.
        own_threshold: whether `threshold` is the configuration's. With another one, tuned scores are left out, because
            they belong to that of the configuration; what else was tuned holds.
    """
    scores = {"high_threshold": threshold, "new_track_threshold": threshold, "low_threshold": min(0.1, threshold)}
    tuned = {name: value for name, value in (tuned or {}).items() if own_threshold or name not in scores}
    # The model's own detections waver less than other detectors', so low scores need to bridge less.
    return scores | {"max_unsure_seconds": 1.0} | tuned


class KineTrackSession:
    """Runs a KineTrack model over one stream of frames.

    Every frame goes through the encoder and the tracker. The temporal part ticks at `config.frame_rate`: on frames
    between two ticks it looks at the present with the state of the last tick and remembers nothing. With
    `task="actions"` those frames are not looked at at all.

    Args:
        model: a KineTrack model with heads, causal (`bidirectional=False`).
        processor: its `KineTrackVideoProcessor`.
        task: `"both"`, `"tracking"` or `"actions"`.
        threshold: score from which an object is reported; `config.detection_threshold` when None.
        size: (height, width) of the model input, multiples of 32; fitted to the first frame when None.
        tracker: settings for `KineTracker`, beyond those that follow from `threshold` and `config.tracker_settings`.
        allow_untrained: accepts a model whose `config.trained` is False.

    Raises:
        ValueError: an untrained model, a bidirectional one, or one without the heads that the task needs.

    Example:
        >>> session = KineTrackSession(model, processor)  # doctest: +SKIP
        >>> for result in session.run("video.mp4"):  # doctest: +SKIP
        ...     print(result.time, result.track_ids, result.boxes)
    """

    def __init__(
        self,
        model,
        processor,
        *,
        task: str = "both",
        threshold: float | None = None,
        size: tuple[int, int] | None = None,
        tracker: dict | None = None,
        allow_untrained: bool = False,
    ):
        config = model.config
        if task not in TASKS:
            raise ValueError(f"`task` must be one of {TASKS}, got {task!r}.")
        if not config.trained and not allow_untrained:
            raise ValueError(
                "This model has not been trained (its configuration says trained=False), so its results would be "
                "noise. Train it with `kinetrack train`, or pass allow_untrained=True (--allow-untrained)."
            )
        if config.bidirectional:
            raise ValueError("A model with `bidirectional=True` sees the future and cannot run in a session.")
        self.with_actions = task in ("both", "actions")
        self.with_tracking = task in ("both", "tracking")
        for wanted, head in ((self.with_actions, "action_head"), (self.with_tracking, "tracking_head")):
            if wanted and getattr(model, head, None) is None:
                raise ValueError(f"task={task!r} needs a model with an {head.replace('_', ' ')}; this one has none.")
        self.model = model.eval()
        self.processor = processor
        self.size = size
        self.threshold = config.detection_threshold if threshold is None else threshold
        if not 0 < self.threshold < 1:
            raise ValueError(f"`threshold` is a score between 0 and 1, got {self.threshold}.")
        tuned = getattr(config, "tracker_settings", None)
        self.tracker = KineTracker(**(tracker_settings(self.threshold, tuned, threshold is None) | (tracker or {})))
        self._memories = TrackMemories(model.kinetrack.attention) if self.with_actions else None
        self.reset()

    def reset(self) -> None:
        """Starts a new stream: no state, no tracks, identities from 1 again."""
        self.tracker.reset()
        self._canvas = self._frame_size = self._pixel_mask = None
        self._reset_time()
        self._frame_index = 0
        self._last_time = None

    def _reset_time(self):
        """Forgets what the temporal part knows, but not who is who."""
        self._state = None if self._canvas is None else self.model.initial_state(1, *self._canvas)
        self._next_tick = None
        self._tick_times = deque(maxlen=self.model.config.attention_window or 2)
        self._standing = {}
        if self._memories is not None:
            self._memories.reset()

    def bridge(self, seconds: float) -> None:
        """Tells the session that its source was away, or the program itself, for some time before the next frame.

        The temporal part starts again, since nobody knows what happened; tracks wait where they were last seen and can
        be found again (see `KineTracker.bridge`).

        Args:
            seconds: how long nothing could be seen. The next frame's time has to be later by more than that.
        """
        self.tracker.bridge(seconds)
        if self._last_time is not None:
            self._last_time += seconds
        self._reset_time()

    def start_at(self, frame: VideoFrame) -> None:
        """Takes over what a frame of a source says of itself: its number, and the gap before it."""
        if frame.unseen:
            self.bridge(frame.unseen)
        self._frame_index = frame.index

    def state_dict(self) -> dict:
        """All that the stream carries, as nested dictionaries of tensors, arrays and plain values, all of them copies.

        `write_states` saves it to a file; a session with the same model and options goes on from it to the bit.
        """
        state = {
            "frame_index": self._frame_index,
            "time": self._last_time,
            "next_tick": self._next_tick,
            "tick_times": list(self._tick_times),
            "frame_size": self._frame_size and list(self._frame_size),
            "tracker": self.tracker.state_dict(),
            "standing": {name: copy.copy(value) for name, value in self._standing.items()},
        }
        if self._state is not None:
            state["temporal"] = self._state.tensors()
        if self._memories is not None:
            state["memories"] = self._memories.state_dict()
        return state

    def load_state_dict(self, state: dict) -> None:
        """Goes on from a `state_dict`: times, identities and all that the model remembers.

        Raises:
            ValueError: the state of another model, or of another size or task. The session is reset then.
        """
        self.reset()
        try:
            if state["frame_size"] is not None:
                self._fit(*state["frame_size"])
                self._state.load_tensors(state["temporal"])
            if self._memories is not None:
                self._memories.load_state_dict(
                    state["memories"], next(self.model.parameters()).new_zeros(1, self.model.config.region_size)
                )
            self.tracker.load_state_dict(state["tracker"])
            self._frame_index, self._last_time = state["frame_index"], state["time"]
            self._next_tick, self._standing = state["next_tick"], dict(state["standing"])
            self._tick_times.extend(state["tick_times"])
        except (KeyError, TypeError, ValueError) as error:
            self.reset()
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(
                f"This state cannot be continued: {what} Give the model and the options that it was saved with."
            ) from error

    def run(
        self,
        source,
        fps: float | None = None,
        policy: str | None = None,
        *,
        reconnect: Reconnect | None = None,
        on_event: Callable[[StreamEvent], None] | None = None,
    ) -> Iterator[KineTrackFrameResult]:
        """Yields one result a frame of a source, in bounded memory. Decoding runs ahead in a thread.

        Where not PyTorch but another runtime runs the model, it looks at a file's next frame (OpenVINO: the next three)
        while this one's result is worked out and used; the results are the same, in 8 bits but for rounding.

        Args:
            source: what `find_source` takes (camera number, address, path of a video, folder or pattern of frames, `-`,
                bytes, file object), a `StreamSource` from it, or an iterable of frames.
            fps: frames a second to look at, evenly chosen; all when None. For an iterable of bare frames it is their
                rate (25 when None).
            policy: `"latest"` drops frames rather than fall behind, `"every"` looks at all; None: `latest` for live
                sources, `every` for others.
            reconnect: how a live source that breaks off is opened again.
            on_event: called with what happens to the source: connections, breaks, damage, changes.

        Raises:
            ValueError, FileNotFoundError: from the source, or from a frame that cannot be used.
        """
        if fps is not None and not fps > 0:
            raise ValueError(f"`fps` must be positive, got {fps}.")
        named = isinstance(source, (str, bytes, bytearray, int, StreamSource)) or hasattr(source, "read")
        if not named and isinstance(source, Iterable):
            yield from self._run_over(_as_video_frames(source, fps))
            return
        source = source if isinstance(source, StreamSource) else find_source(source, frame_rate=fps)
        thinned = fps if source.kind != "images" else None
        with FrameFeed(source, policy, frame_rate=thinned, reconnect=reconnect) as feed:
            yield from self._run_over(feed.frames(on_event), lambda: feed.policy == "every" and not feed.is_live)

    def _run_over(
        self, frames: Iterable[VideoFrame], may_wait: Callable[[], bool] = lambda: True
    ) -> Iterator[KineTrackFrameResult]:
        """Results of frames; `may_wait`, asked after the first frame, is whether they may be a few frames late."""
        frames = iter(frames)
        for first in frames:
            if getattr(self.model, "runs_beside", False) and may_wait():
                yield from look_ahead(self, itertools.chain([first], frames))
            else:
                yield self.look(first)

    def look(self, frame: VideoFrame) -> KineTrackFrameResult:
        """Looks at the next frame of a source; as `step`, with its number and the gap before it."""
        return look_together([self], [frame])[0]

    def step(self, frame, time: float | None = None) -> KineTrackFrameResult:
        """Looks at the next frame. `step_sessions` does it for several streams at once.

        Args:
            frame: (height, width, 3) uint8 RGB, or anything else `rgb_frame` takes (gray, RGBA, float in [0, 1], PIL).
            time: seconds, later than the last frame's; 1/25 s after it when None.

        Raises:
            ValueError: a frame that is empty, not finite or of a wrong shape, or a time that does not move forward.
                The session is left as it was.
        """
        return step_sessions([self], [frame], [time])[0]

    def follows(self, frame: VideoFrame) -> bool:
        """Whether a frame goes on where the last one was: no gap before it, and no other size."""
        image = frame.image
        return not frame.unseen and isinstance(image, np.ndarray) and image.shape[:2] == self._frame_size

    @beside_the_model
    def input_of(self, frame: VideoFrame) -> FrameInput | None:
        """The model input of a frame that `follows`; None where only frames of a tick are looked at.

        Raises:
            ValueError: as `step`, for a frame that cannot be used.
        """
        return self._input_of(rgb_frame(frame.image, frame.index)) if self.with_tracking else None

    def _input_of(self, image: np.ndarray) -> FrameInput:
        started = clock.perf_counter()
        pixels = self.processor.preprocess_frame(image, self._canvas).to(*self._placement)
        return FrameInput(pixels, self._pixel_mask, seconds=clock.perf_counter() - started)

    @beside_the_model
    def prepare(
        self, frame, time: float | None = None, index: int | None = None, made: FrameInput | None = None
    ) -> PendingFrame:
        """The first part of a step: all that comes before the model. Frame, time and errors as for `step`.

        A frame of a new size starts the temporal part again; tracks keep their identities, at their new pixels.

        Args:
            frame: as for `step`.
            time: as for `step`.
            index: number of the frame in its source; one more than that of the last when None.
            made: from `input_of` this frame; made anew when None, or when the session has begun again since then.
        """
        started, earlier = clock.perf_counter(), 0.0
        index = self._frame_index if index is None else index
        frame = rgb_frame(frame, index)
        height, width = frame.shape[:2]
        if time is None:
            time = 0.0 if self._last_time is None else self._last_time + 1 / 25.0
        if self._last_time is not None and time <= self._last_time:
            raise ValueError(f"Frames must move forward in time: got {time:.3f} s after {self._last_time:.3f} s.")
        if (height, width) != self._frame_size:
            self._fit(height, width)
        ticks = self._next_tick is None or time >= self._next_tick - 1e-6
        result = KineTrackFrameResult(frame, index, time, height, width, *_no_tracks(), updated=ticks)
        pending = PendingFrame(result, ticks)
        # With nobody to follow there is nothing to compute between ticks: what was said at the last one still stands.
        if ticks or self.with_tracking:
            valid = made is not None and made.pixel_mask is self._pixel_mask
            pending.input, pending.state = made if valid else self._input_of(frame), self._state
            earlier = made.seconds if valid else 0.0
        pending.spent["preprocess"] = clock.perf_counter() - started + earlier
        return pending

    def expects(self, pending: PendingFrame) -> bool:
        """Whether the session is still what it was when a frame was prepared."""
        made, state = pending.input, pending.state
        return made is None or (state is self._state and made.pixel_mask is self._pixel_mask)

    def advance(self, pending: PendingFrame, output) -> None:
        """The second part of a step: time moves on, and the temporal part with it. The next frame can be prepared then.

        Args:
            pending: from `prepare`.
            output: the model's, for this frame alone; None when there was nothing to compute.
        """
        result = pending.result
        if output is not None:
            times = [*self._tick_times, result.time][-(self.model.config.attention_window or 2) :]
            result.window_times = np.array(times)
            if pending.ticks:
                period = 1 / self.model.config.frame_rate
                self._next_tick = (
                    result.time + period if self._next_tick is None else max(self._next_tick + period, result.time)
                )
                self._state = output.state
                self._tick_times.append(result.time)
        self._last_time = result.time
        self._frame_index = result.frame_index + 1

    @beside_the_model
    def finish(self, pending: PendingFrame, output) -> KineTrackFrameResult:
        """The last part of a step: from what the model says of a frame to its result. Arguments as for `advance`."""
        started, result = clock.perf_counter(), pending.result
        if output is None:
            vars(result).update(self._standing)
        else:
            if self.with_tracking:
                self._track(output, result)
                pending.spent["association"] = clock.perf_counter() - started
            if self.with_actions:
                self._recognise(output, result)
            self._describe_attention(output, result)
            if pending.ticks:
                self._standing = {name: getattr(result, name) for name in _CLIP_FIELDS}
        spent = pending.spent
        rest = clock.perf_counter() - started - spent.get("association", 0.0)
        result.timings = {
            "decode": 0.0,  # known to `look` alone
            "preprocess": spent["preprocess"],
            "model": spent.get("model", 0.0) + rest,
            "association": spent.get("association", 0.0),
        }
        return result

    def _fit(self, height, width):
        if self._frame_size is not None:
            self.tracker.rescale(width / self._frame_size[1], height / self._frame_size[0])
        self._frame_size = (height, width)
        self._canvas = tuple(self.size) if self.size is not None else self.processor.fit_size(height, width)
        self._scale = self.processor.resize_scale(height, width, self._canvas)
        rows, columns = self.processor.content_size(height, width, self._canvas)
        self._placement = self.model.device, self.model.dtype
        mask = torch.zeros(1, *self._canvas, dtype=torch.bool, device=self.model.device)
        mask[:, :rows, :columns] = True
        self._pixel_mask = mask
        self._cell_mask = self.model.valid_cells(mask)  # (1, H8, W8)
        stride = self.model.config.feature_stride
        self._attended = (-(-rows // stride), -(-columns // stride))
        self._reset_time()

    def _track(self, output, result):
        """Detections of this frame, matched to tracks; fills the result."""
        threshold = max(self.tracker.low_threshold, 1e-3)
        if (objects := getattr(output, "objects", None)) is not None:
            found = select_detections({name: values[0] for name, values in objects.items()}, threshold)
        else:
            found = decode_detections(
                output.heatmap_logits[:, 0],
                output.distances[:, 0],
                output.embeddings[:, 0],
                self._cell_mask,
                stride=self.model.config.output_stride,
                threshold=threshold,
            )[0]
        detections = Detections(
            xyxy=(found["boxes"] / self._scale).cpu().numpy(),
            confidence=found["scores"].cpu().numpy(),
            class_id=found["labels"].cpu().numpy(),
            data={"embedding": found["embeddings"].cpu().numpy()},
        )
        tracks = self.tracker.update(detections, result.time)
        result.track_ids, result.labels = tracks.track_id, tracks.class_id
        result.boxes = tracks.xyxy.astype(np.float32)
        result.scores = tracks.confidence.astype(np.float32)

    def _recognise(self, output, result):
        """Actions of the clip and of every track; fills the result and, on a tick, the tracks' memories."""
        temperature = self.model.config.action_temperature
        result.clip_action = _kept((output.logits[0].float() / temperature).softmax(-1))
        result.group_actions = {
            name: _kept(logits[0].float().softmax(-1)) for name, logits in output.group_logits.items()
        }
        if not self.with_tracking:
            return
        scores, pooled = self._attend(output, result.boxes)
        representation = self._memories.attend(result.track_ids, scores, pooled, commit=result.updated)
        if result.updated:
            self._memories.keep(self.tracker.known_ids)
        logits, _ = self.model.action_head(representation)
        result.actions = _kept((logits.float() / temperature).softmax(-1))

    def _attend(self, output, boxes):
        """`attend_regions` in (N, 4) boxes of the original frame: scores (N,) and what is remembered of each (N, …)."""
        features = output.last_hidden_state[:, 0]  # (1, D, H16, W16)
        extra = (output.keypoint_logits, output.cell_features)  # (1, 1, K, H8, W8), (1, 1, S, H32, W32), or None
        extra = (None if maps is None else maps[:, 0] for maps in extra)
        scaled = torch.from_numpy(boxes).to(features.device) * self._scale
        scores, pooled = self.model.attend_regions(features, scaled[None], self._pixel_mask, *extra)
        return scores[0], pooled[0]

    def _describe_attention(self, output, result):
        rows, columns = self._attended
        result.spatial_attention = _kept(output.spatial_attention[0, 0, :rows, :columns].float())
        result.temporal_attention = _kept(output.temporal_attention[0, -len(result.window_times) :].float())


def _as_video_frames(frames: Iterable, fps: float | None) -> Iterator[VideoFrame]:
    """Frames from anywhere, at equal steps in time where they do not know their own."""
    for index, frame in enumerate(frames):
        yield frame if isinstance(frame, VideoFrame) else VideoFrame(frame, index / (fps or 25.0), index)


def _no_tracks():
    """Empty track_ids, boxes, scores and labels."""
    return np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)


def _kept(tensor):
    """A NumPy array with memory of its own: results outlive the frame, and a view would keep PyTorch's buffer alive.

    Thousands of such small buffers between the large ones of every frame keep the heap from being reused.
    """
    return tensor.cpu().numpy().copy()
