"""Transformers pipelines: `video-classification`, and `video-analysis` for tracks, actions, and who does what.

Both run a `KineTrackSession` over the video, in memory that does not grow with its length, and make of its results what
`kinetrack.analyze` makes of them. So a file has the same windows, probabilities and tracks in all three.
"""

import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from transformers.dynamic_module_utils import custom_object_save
from transformers.pipelines.base import Pipeline
from transformers.pipelines.video_classification import VideoClassificationPipeline

from ..processing.decoding_kinetrack import VideoFrame
from ..processing.describing_kinetrack import (
    ASSUMED_FRAME_RATE,
    describe_frame,
    describe_frames,
    describe_model,
    describe_settings,
    source_name,
)
from ..processing.findings_kinetrack import VideoFindings
from ..processing.recording_kinetrack import FindingsRecorder
from ..processing.session_kinetrack import KineTrackSession
from ..processing.video_input_kinetrack import VideoSource, is_picture, list_videos
from ..processing.video_processing_kinetrack import KineTrackVideoProcessor

# The models of a checkpoint that has one head, and the pipeline that needs the other.
_SAVED_WITH_ONE_HEAD = ("KineTrackForVideoClassification", "KineTrackForObjectTracking")


class SessionPipeline(Pipeline):
    """What KineTrack's two pipelines share: a video in, `VideoFindings` of a session out.

    Args:
        allow_untrained: accepts a model whose `config.trained` is False.
        **kwargs: as for every Transformers pipeline, and those of the pipeline's call as defaults.

    Raises:
        ValueError: a model that is not KineTrack's, is untrained, or lacks the heads or the weights for the task.
    """

    session_task = "both"

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, allow_untrained: bool = False, **kwargs):
        self.allow_untrained = allow_untrained
        given = kwargs.get("video_processor")
        super().__init__(*args, **kwargs)
        if not hasattr(self, "video_processor"):  # older Transformers have no such part of a pipeline
            self.video_processor = given or KineTrackVideoProcessor.from_pretrained(self.model.name_or_path)
        if self.video_processor is None:
            raise ValueError(
                "This pipeline needs a video processor. Give `video_processor=KineTrackVideoProcessor(...)`, or as "
                "`model` a folder or Hub id that has one."
            )
        self.check_model_type(None)
        self._new_session()

    def check_model_type(self, supported_models):
        """Called by Transformers. Raises `ValueError` for another library's model."""
        if self.model.config.model_type != "kinetrack":
            raise ValueError(f"This pipeline runs KineTrack models; got one of type {self.model.config.model_type!r}.")

    def _new_session(self, threshold: float | None = None, size: tuple[int, int] | None = None) -> KineTrackSession:
        return KineTrackSession(
            self.model,
            self.video_processor,
            task=self.session_task,
            threshold=threshold,
            size=size,
            allow_untrained=self.allow_untrained,
        )

    def __call__(self, inputs, **kwargs):
        """Runs one video, or several one after the other; see the subclass.

        Args:
            inputs: one video: path, URL, bytes or binary file object; an array or tensor (T, H, W, C) or (T, C, H, W)
                of RGB, RGBA or gray frames; a flat list of pictures. Or several: a list of these, a batch with one axis
                more, or a generator or `Dataset` of videos, for which the answer is an iterator.
            **kwargs: options of the call.
        """
        videos = _one_or_list(inputs)
        return super().__call__(videos, **kwargs)

    def get_iterator(self, inputs, num_workers, batch_size, *parameters):
        """Called by Transformers. Each video streams on its own, so `batch_size` changes neither answers nor memory."""
        return super().get_iterator(inputs, num_workers, 1, *parameters)

    def preprocess(self, video, fps: float | None = None) -> dict[str, Any]:
        """Opens a video and describes it; decoding waits until the model asks for frames.

        Raises:
            FileNotFoundError: no such file.
            ValueError: something that is no video, or no single one.
            TypeError: something that cannot be a video.
        """
        name = source_name(video)
        sources = [video] if isinstance(video, VideoSource) else list_videos(video)
        if len(sources) != 1:
            raise ValueError(f"Every item of a list must be one video; got an item with {len(sources)}.")
        (source,) = sources
        if source.encoded is not None:
            name = source_name(source.encoded) if isinstance(video, VideoSource) else name
            return {"video": source, "source": {"name": name, **asdict(source.info())}, "times": None}
        rate = fps or ASSUMED_FRAME_RATE
        times = [frame.time if isinstance(frame, VideoFrame) else i / rate for i, frame in enumerate(source.frames)]
        return {"video": source, "source": describe_frames(fps, len(times)), "times": np.array(times)}

    def _results(self, model_inputs, fps=None, threshold=None, size=None) -> tuple[KineTrackSession, Iterator]:
        """A session, and its results as they come."""
        session = self._new_session(threshold, size)
        video = model_inputs["video"]
        frames = video.encoded if video.encoded is not None else video.read(model_inputs["times"])
        return session, session.run(frames, fps)

    def _forward(self, model_inputs, fps=None, threshold=None, size=None) -> dict[str, VideoFindings]:
        session, results = self._results(model_inputs, fps, threshold, size)
        recorder = FindingsRecorder(
            dict(model_inputs["source"]),
            self._describe_model(),
            describe_settings(session, self.session_task, fps, size),
        )
        for result in results:
            if recorder.num_frames == 0:
                recorder.source.update(width=result.width, height=result.height)
            recorder.add(result)
        if recorder.num_frames == 0:
            raise ValueError(f"{recorder.source['name']} has no frames.")
        return {"findings": recorder.finish()}

    def _describe_model(self) -> dict[str, Any]:
        config = self.model.config
        name = getattr(config, "name_or_path", "") or "kinetrack"
        # Results never name the folders above a model, which are nobody's business.
        return describe_model(os.path.basename(os.path.normpath(name)), config, self.session_task)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any):
        """Saves model and video processor and, when they came with code from a Hub folder, that code.

        `Pipeline.save_pretrained` would leave the video processor out.

        Args:
            save_directory: made if need be.
            **kwargs: of `PreTrainedModel.save_pretrained`.

        Raises:
            ValueError: the path is a file.
        """
        if os.path.isfile(save_directory):
            raise ValueError(f"`save_directory` must be a folder; {save_directory} is a file.")
        os.makedirs(save_directory, exist_ok=True)
        # Only code that came from a Hub folder is flat, as it has to be to be loaded again from the new one.
        if type(self).__module__.startswith("transformers_modules"):
            custom_object_save(self, save_directory)
        self.model.save_pretrained(save_directory, **kwargs)
        self.video_processor.save_pretrained(save_directory)


class KineTrackVideoClassificationPipeline(SessionPipeline, VideoClassificationPipeline):
    """The `video-classification` pipeline of Transformers, over the whole video instead of one clip of it.

    Frames are chosen by time at the model's own rate, every attention window gives probabilities, and the answer is
    their mean, exactly as in `kinetrack.analyze`. Only the model's primary actions are in it.

    Example:
        >>> from transformers import pipeline
        >>> classify = pipeline("video-classification", model=folder, trust_remote_code=True)  # doctest: +SKIP
        >>> classify("video.mp4", top_k=2)  # doctest: +SKIP
        [{'score': 0.81, 'label': 'walk'}, {'score': 0.12, 'label': 'run'}]
    """

    session_task = "actions"

    def _sanitize_parameters(
        self, top_k=None, fps=None, size=None, num_frames=None, frame_sampling_rate=None, function_to_apply=None
    ):
        for name, value in (("num_frames", num_frames), ("frame_sampling_rate", frame_sampling_rate)):
            if value is not None:
                raise ValueError(
                    f"`{name}` does not apply: the whole video is looked at, by time, at the model's own rate "
                    f"({self.model.config.frame_rate:g} frames a second). `fps` looks at fewer frames."
                )
        if function_to_apply not in (None, "softmax"):
            raise ValueError(
                f"`function_to_apply` must be 'softmax', got {function_to_apply!r}: probabilities of windows are "
                "averaged, which logits do not allow."
            )
        given = _given(fps=fps)
        return given, given | _given(size=size), _given(top_k=_checked_top_k(top_k))

    def postprocess(self, model_outputs, top_k: int = 5) -> list[dict[str, Any]]:
        """The likeliest actions of the whole video, best first."""
        actions = model_outputs["findings"].actions[:top_k]
        return [{"score": probability, "label": name} for name, probability in actions]


class VideoAnalysisPipeline(SessionPipeline):
    """The `video-analysis` pipeline: tracks, what happens, and who does what, as plain values for JSON.

    Called with one video it gives one dictionary, the content of `analysis.json` (see `VideoFindings.to_dict`); with a
    list of videos a list of them; with `stream=True` an iterator with one dictionary a frame, as soon as it is known.

    Example:
        >>> from transformers import pipeline
        >>> analyze = pipeline(model=folder, trust_remote_code=True)  # doctest: +SKIP
        >>> found = analyze("video.mp4")  # doctest: +SKIP
        >>> [(track["id"], track["class"], track["action"]) for track in found["tracks"]]  # doctest: +SKIP
        [(1, 'person', 'walk'), (2, 'person', 'sit')]
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        saved_as = (self.model.config.architectures or [""])[0]
        if saved_as in _SAVED_WITH_ONE_HEAD:
            raise ValueError(
                f"The checkpoint was saved from {saved_as}, so the weights of the other head are missing. "
                'video-analysis needs both; use the task "video-classification", or a checkpoint of '
                "KineTrackForVideoAnalysis."
            )

    def _sanitize_parameters(self, top_k=None, fps=None, threshold=None, size=None):
        given = _given(fps=fps)
        forward = given | _given(threshold=threshold, size=size)
        return given, forward, _given(top_k=_checked_top_k(top_k))

    def __call__(self, inputs, stream: bool = False, **kwargs):
        """Analyses one video or several.

        Args:
            inputs: as for `SessionPipeline.__call__`.
            stream: yields a dictionary a frame, instead of one a video.
            **kwargs: `fps`, frames a second to look at, evenly chosen (all when not given; for frames in memory their
                rate, 25 when not given); `threshold`, score from which an object is reported; `top_k`, most actions in
                every list; `size`, (height, width) of the model input, multiples of 32, fitted to the video when not
                given.

        Returns:
            For one video a dictionary, see `VideoFindings.to_dict`. With `stream=True` an iterator of dictionaries:
            `video` (its number among the inputs), `frame_index`, `time` in seconds, `updated` (whether the temporal
            part ticked), `action`, `confidence`, `actions` and `groups` of the window that ends here, and `tracks`,
            each with `id`, `class`, `box` (xyxy, pixels of the original frame), `score`, `action`, `confidence` and
            `actions`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: something that is no video or holds no frame, or an option out of range.
            TypeError: something that cannot be a video.
        """
        if stream:
            return self._stream(inputs, **kwargs)
        return super().__call__(inputs, **kwargs)

    def postprocess(self, model_outputs, top_k: int | None = None) -> dict[str, Any]:
        """The findings as plain values."""
        return model_outputs["findings"].to_dict(top_k)

    def _stream(self, inputs, num_workers=None, batch_size=None, **kwargs) -> Iterator[dict[str, Any]]:
        parameters = self._sanitize_parameters(**kwargs)
        defaults = (self._preprocess_params, self._forward_params, self._postprocess_params)
        preprocess, forward, postprocess = ({**old, **new} for old, new in zip(defaults, parameters, strict=True))
        videos = _one_or_list(inputs)
        is_one = isinstance(videos, VideoSource) or not hasattr(videos, "__iter__")
        for number, video in enumerate([videos] if is_one else videos):
            model = self._describe_model()
            _, results = self._results(self.preprocess(video, **preprocess), **forward)
            for result in results:
                yield {"video": number, **describe_frame(result, model, **postprocess)}


def _one_or_list(inputs):
    """One video as a `VideoSource`; several as a list; generators and data sets as they are."""
    if inputs is None:
        raise ValueError("There is no video. Give a path, a URL, frames, or a list of these.")
    is_array = hasattr(inputs, "ndim")
    if is_array and inputs.ndim == 5:
        return list(inputs)
    if isinstance(inputs, (list, tuple)):
        if len(inputs) == 0:
            raise ValueError("The list of videos is empty. Give at least one video.")
        return list_videos(inputs)[0] if all(is_picture(item) for item in inputs) else list(inputs)
    is_readable = isinstance(inputs, (str, bytes, bytearray, memoryview, os.PathLike, dict, VideoSource))
    if is_readable or is_array or hasattr(inputs, "read"):
        return inputs if isinstance(inputs, VideoSource) else list_videos(inputs)[0]
    if hasattr(inputs, "__iter__") or hasattr(inputs, "__getitem__"):
        return inputs  # videos that come one after the other
    return list_videos(inputs)[0]  # one picture, or the error that says what a video is


def _given(**parameters) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


def _checked_top_k(top_k: int | None) -> int | None:
    if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
        raise ValueError(f"`top_k` must be a whole number from 1, got {top_k!r}.")
    return top_k
