"""Pixels in, meaning out: `KineTrackVideoProcessor` makes the model's input and reads its outputs."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import validate_typed_dict
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import PILImageResampling, validate_kwargs
from transformers.processing_utils import Unpack, VideosKwargs
from transformers.video_processing_utils import BaseVideoProcessor

from ..processing.batching_kinetrack import (
    Clip,
    KineTrackVideoMetadata,
    frame_times,
    metadata_of,
    pack_clips,
    pixel_affine,
    place_picture,
)
from ..processing.decoding_kinetrack import read_video, select_frames
from ..processing.post_processing_kinetrack import classify_videos, detect_objects, track_objects
from ..processing.tracking_kinetrack import KineTracker
from ..processing.video_input_kinetrack import list_videos

_CANVAS_MULTIPLE = 32
_INTERPOLATION = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


class KineTrackVideoProcessorKwargs(VideosKwargs, total=False):
    """
    Args:
        frame_rate (`float`):
            Rate in Hz at which frames are chosen by their times when sampling is asked for; that of the model's
            temporal part.
        do_upscale (`bool`):
            Whether frames smaller than the canvas are enlarged to fill it.
    """

    frame_rate: float | int | None
    do_upscale: bool | None


class KineTrackVideoProcessor(BaseVideoProcessor):
    r"""
    Prepares videos for KineTrack and turns its outputs into actions, boxes and tracks.

    Every frame is scaled by one factor (aspect ratio kept, never enlarged unless `do_upscale`), placed at the top left
    of a canvas of fixed size, and padded with the value that normalises to 0. The canvas is `size`, never the batch's.

    Args:
        size (`dict[str, int]`, *optional*, defaults to `{"height": 352, "width": 640}`):
            The canvas in pixels, multiples of 32, and the number of pixels `fit_size` may use.
        image_mean, image_std (`list[float]`, *optional*, default to 0.5):
            Subtracted from and divided by, per channel, after the rescaling to 0..1.
        rescale_factor (`float`, *optional*, defaults to 1/255): Factor on 8-bit values.
        do_upscale (`bool`, *optional*, defaults to `False`): Whether small frames are enlarged.
        frame_rate (`float`, *optional*, defaults to 12.5): Hz at which frames are chosen when sampling.
        num_frames (`int`, *optional*, defaults to 16): Frames of a clip when `do_sample_frames=True`.
        do_sample_frames (`bool`, *optional*):
            Whether to choose frames by time. None: when a call gives `num_frames` or `fps`; False: never.

    Example:
        >>> import numpy as np
        >>> from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor
        >>> processor = KineTrackVideoProcessor(size={"height": 64, "width": 96})
        >>> inputs = processor(np.zeros((5, 120, 160, 3), dtype=np.uint8))
        >>> inputs["pixel_values_videos"].shape
        torch.Size([1, 5, 3, 64, 96])
    """

    valid_kwargs = KineTrackVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "frame_mask", "pixel_mask"]

    size = {"height": 352, "width": 640}
    resample = PILImageResampling.BILINEAR
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]
    rescale_factor = 1 / 255
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_upscale = False
    do_sample_frames = None
    frame_rate = 12.5
    num_frames = 16

    def __init__(self, **kwargs: Unpack[KineTrackVideoProcessorKwargs]):
        super().__init__(**kwargs)
        self._canvas(self.size)

    # Geometry

    def fit_size(self, height: int, width: int) -> tuple[int, int]:
        """The canvas that shows one video largest within the pixel budget `size.height * size.width`.

        Args:
            height: Pixels of the original frame.
            width: Pixels of the original frame.

        Returns:
            (H, W), multiples of 32, just large enough for the scaled frame, whose aspect ratio is kept.
        """
        _check_frame_size(height, width)
        budget, best = self.size["height"] * self.size["width"], None
        for rows in range(_CANVAS_MULTIPLE, budget // _CANVAS_MULTIPLE + 1, _CANVAS_MULTIPLE):
            columns = budget // rows // _CANVAS_MULTIPLE * _CANVAS_MULTIPLE
            if columns == 0:
                break
            content = self.content_size(height, width, (rows, columns))
            canvas = tuple(-(-side // _CANVAS_MULTIPLE) * _CANVAS_MULTIPLE for side in content)
            key = (content[0] * content[1], -canvas[0] * canvas[1])  # largest picture, then least padding
            if best is None or key > best[0]:
                best = (key, canvas)
        return best[1]

    def resize_scale(self, height: int, width: int, canvas=None) -> float:
        """Pixels of the model input per pixel of an original frame; boxes map by this one number.

        Args:
            height: Pixels of the original frame.
            width: Pixels of the original frame.
            canvas: (H, W) of the model input; None: the processor's `size`.
        """
        _check_frame_size(height, width)
        rows, columns = self._canvas(canvas)
        scale = min(rows / height, columns / width)
        return scale if self.do_upscale else min(1.0, scale)

    def content_size(self, height: int, width: int, canvas=None) -> tuple[int, int]:
        """(h, w) pixels that a scaled frame takes on the canvas, at its top left. Arguments as `resize_scale`."""
        rows, columns = self._canvas(canvas)
        scale = self.resize_scale(height, width, (rows, columns))
        return min(rows, max(1, round(height * scale))), min(columns, max(1, round(width * scale)))

    def _canvas(self, size) -> tuple[int, int]:
        size = self.size if size is None else size
        if isinstance(size, (tuple, list)) and len(size) == 2:
            rows, columns = size
        else:
            rows, columns = (
                (size.get("height"), size.get("width")) if hasattr(size, "get") else (size["height"], size["width"])
            )
        if not rows or not columns or rows % _CANVAS_MULTIPLE or columns % _CANVAS_MULTIPLE or min(rows, columns) < 1:
            raise ValueError(
                f"`size` must be a height and a width that are multiples of {_CANVAS_MULTIPLE}, such as "
                f'{{"height": 352, "width": 640}}; got {size}. `fit_size(height, width)` finds one for a video.'
            )
        return rows, columns

    # Pixels in

    def preprocess_frame(self, frame: np.ndarray, size=None) -> torch.Tensor:
        """One frame to one model input, by the shortest way: the pixels are exactly those of `__call__`.

        Args:
            frame: (H, W, 3) uint8 RGB.
            size: (H, W) of the canvas; None: the processor's `size`.

        Returns:
            (1, 1, 3, H, W) float32.
        """
        if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3):
            kind = f"{frame.dtype} {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
            raise ValueError(f"A frame must be a NumPy array (H, W, 3) of uint8 RGB, got {kind}.")
        canvas = self._canvas(size)
        options = {name: getattr(self, name) for name in _PIXEL_OPTIONS}
        picture = self._scaled(frame, canvas, options)
        filled = picture.shape[:2] == canvas
        pixels = (torch.empty if filled else torch.zeros)(1, 1, 3, *canvas)
        place_picture(picture, pixels[0, 0], *pixel_affine(options))
        return pixels

    def preprocess(self, videos, **kwargs: Unpack[KineTrackVideoProcessorKwargs]) -> BatchFeature:
        """Makes one batch of model inputs; also what calling the processor does.

        Args:
            videos: One video or a list of them, of any lengths and sizes: paths, URLs, bytes, file objects, arrays or
                tensors (T, H, W, C) or (T, C, H, W) of uint8 or floats, lists of PIL images, arrays or image paths.
            size: Canvas of this call.
            num_frames: Chooses at most this many frames around the middle of each video, `frame_rate` or `fps` a
                second by their times. The batch then always has this many, the missing ones masked.
            fps: Chooses frames at this rate, by their times, over the whole video.
            do_sample_frames: True alone chooses with the processor's own `num_frames` and `frame_rate`; False keeps all
                frames, whatever else is given.
            video_metadata: Per video, a dict with `fps` (or `times` in seconds): the clock of frames in memory. Frames
                without one are taken to be at `frame_rate` already; only `fps` insists on knowing.
            return_metadata: Adds `video_metadata`: sizes of the original frames, numbers and times of those kept.
            return_tensors: `"pt"` (default) or `"np"`.
            kwargs: The constructor's arguments, for this call.

        Returns:
            `BatchFeature` with `pixel_values_videos` (B, T, 3, H, W) float32, `frame_mask` (B, T) bool, `pixel_mask`
            (B, H, W) bool and, when asked for, `video_metadata`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: something that is no video, or that holds no frame; the message says what.
        """
        validate_kwargs(captured_kwargs=kwargs.keys(), valid_processor_keys=[*self.valid_kwargs.__annotations__])
        validate_typed_dict(self.valid_kwargs, {name: kwargs[name] for name in kwargs if name != "video_metadata"})
        options = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        options |= {name: value for name, value in kwargs.items() if value is not None}
        _refuse_unsupported(options)
        canvas = self._canvas(options["size"])
        frame_rate, num_frames = self._sampling(kwargs)
        assumed_rate = None if frame_rate and kwargs.get("fps") else self.frame_rate
        sources = list_videos(videos, options["input_data_format"])
        metadata = metadata_of(sources, kwargs.get("video_metadata"))
        clips = []
        for source, known in zip(sources, metadata, strict=True):
            times = None if source.frames is None else frame_times(source.frames, known, assumed_rate)
            clip = Clip(source)
            for frame in source.read(times, frame_rate, num_frames):
                clip.append(self._scaled(frame.image, canvas, options), frame)
            clips.append(clip)
        batch = pack_clips(clips, canvas, num_frames, options)
        feature = BatchFeature(batch, tensor_type=options["return_tensors"] or "pt")
        if options["device"] is not None:
            feature = feature.to(options["device"])
        if options["return_metadata"]:
            feature["video_metadata"] = [clip.describe(known) for clip, known in zip(clips, metadata, strict=True)]
        return feature

    def _sampling(self, asked: Mapping) -> tuple[float | None, int | None]:
        """(Hz, number) at which this call chooses frames; (None, None) keeps all."""
        num_frames, fps = asked.get("num_frames"), asked.get("fps")
        explicit = num_frames is not None or fps is not None
        wanted = asked.get("do_sample_frames")
        wanted = self.do_sample_frames if wanted is None else wanted
        if not (explicit if wanted is None else wanted):
            return None, None
        rate = fps or asked.get("frame_rate") or self.fps or self.frame_rate
        return rate, num_frames if explicit else self.num_frames

    def _scaled(self, image: np.ndarray, canvas: tuple[int, int], options: Mapping) -> torch.Tensor:
        """(h, w, 3) uint8: the frame at the size it has on the canvas."""
        height, width = image.shape[:2]
        if not (image.flags.c_contiguous and image.flags.writeable):
            image = image.copy()
        picture = torch.from_numpy(image)  # (H, W, 3)
        if not options["do_resize"]:
            if height > canvas[0] or width > canvas[1]:
                raise ValueError(
                    f"With `do_resize=False` a frame of {height}x{width} must fit the canvas {canvas[0]}x{canvas[1]}."
                )
            return picture
        content = self.content_size(height, width, canvas)
        if content == (height, width):
            return picture
        # Interpolating 8-bit values in their own memory order is torch's fastest path and equals PIL bit for bit.
        scaled = F.interpolate(
            picture.permute(2, 0, 1)[None], content, mode=_INTERPOLATION[options["resample"]], antialias=True
        )  # (1, 3, h, w)
        return scaled[0].permute(1, 2, 0)

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None):
        """Decodes videos with PyAV: what Transformers calls when it wants the frames of a path or URL.

        Args:
            video_url_or_urls: Path, `pathlib.Path`, URL, bytes or file object, or a list of these.
            sample_indices_fn: Gets `metadata=KineTrackVideoMetadata` and returns the numbers of the frames to keep.

        Returns:
            ((T, H, W, 3) uint8, metadata), or for a list a pair of tuples of these.
        """
        if isinstance(video_url_or_urls, (list, tuple)):
            return list(zip(*[self.fetch_videos(video, sample_indices_fn) for video in video_url_or_urls], strict=True))
        clip = read_video(video_url_or_urls)
        metadata = KineTrackVideoMetadata(
            total_num_frames=len(clip.frames),
            fps=clip.info.frame_rate,
            width=clip.info.width,
            height=clip.info.height,
            duration=clip.info.duration,
            video_backend="pyav",
            frames_indices=clip.indices.tolist(),
            times=clip.times.tolist(),
        )
        if sample_indices_fn is None:
            return clip.frames, metadata
        chosen = np.asarray(sample_indices_fn(metadata=metadata))
        metadata.frames_indices, metadata.times = chosen.tolist(), clip.times[chosen].tolist()
        return clip.frames[chosen], metadata

    def sample_frames(self, metadata, num_frames: int | None = None, fps: float | None = None, **kwargs) -> np.ndarray:
        """Numbers of the frames that a call with these arguments would keep, from the frames' times.

        Args:
            metadata: `VideoMetadata` with `total_num_frames` and either `fps` or `times`.
            num_frames: Most frames.
            fps: Hz of the choice; None: the processor's `frame_rate`.
            kwargs: Ignored.

        Raises:
            ValueError: `fps` is given and the metadata has neither `fps` nor `times`.
        """
        (known,) = metadata_of([None], metadata)
        times = frame_times(range(metadata.total_num_frames), known, None if fps else self.frame_rate)
        return select_frames(times, fps or self.frame_rate, num_frames)

    # Meaning out

    def post_process_video_classification(
        self, outputs, top_k: int = 5, id2label: Mapping[int, str] | None = None, temperature: float = 1.0
    ) -> list[list[dict]]:
        """The most probable actions of each video.

        Args:
            outputs: Model outputs with `logits` (B, num_labels).
            top_k: Most actions named.
            id2label: `model.config.id2label` for names; None gives class numbers.
            temperature: `model.config.action_temperature`; divides the logits.

        Returns:
            Per video a list of `{"score", "label"}`, best first.
        """
        return classify_videos(outputs.logits, top_k, id2label, temperature)

    def post_process_object_detection(
        self,
        outputs,
        threshold: float = 0.4,
        target_sizes=None,
        frame_mask: torch.Tensor | None = None,
        max_detections: int = 300,
        nms_threshold: float = 0.65,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Boxes of every frame, in pixels of the original frames.

        Args:
            outputs: Model outputs with `heatmap_logits`, `distances` and, perhaps, `embeddings`.
            threshold: Lowest score kept, a probability.
            target_sizes: Per video (height, width) of its original frames as displayed, a list or a (B, 2) tensor.
                None leaves the boxes in pixels of the model input.
            frame_mask: (B, T) of the inputs; masked frames give no entry. None: all frames are valid.
            max_detections: Most boxes a frame.
            nms_threshold: IoU above which two boxes of one class become one.

        Returns:
            Per video a list of one dict a frame: `boxes` (n, 4) xyxy (amodal: they may reach beyond the frame),
            `scores` (n,), `labels` (n,), `embeddings` (n, E) or None.
        """
        scales = contents = None
        stride = 8
        if target_sizes is not None and getattr(outputs, "heatmap_logits", None) is not None:
            canvas = tuple(side * stride for side in outputs.heatmap_logits.shape[-2:])
            sizes = [(int(height), int(width)) for height, width in target_sizes]
            scales = [self.resize_scale(height, width, canvas) for height, width in sizes]
            contents = [self.content_size(height, width, canvas) for height, width in sizes]
        return detect_objects(
            outputs,
            scales,
            contents,
            threshold,
            frame_mask,
            stride=stride,
            max_detections=max_detections,
            nms_threshold=nms_threshold,
        )

    def post_process_object_tracking(
        self,
        outputs,
        threshold: float = 0.1,
        target_sizes=None,
        frame_mask: torch.Tensor | None = None,
        times: list[list[float]] | None = None,
        tracker_settings: Mapping | None = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Boxes with identities, in pixels of the original frames; each video has its own identities, from 1.

        Args:
            outputs: As in `post_process_object_detection`.
            threshold: Lowest score the tracker sees. It is low on purpose: the tracker uses weak detections to continue
                a track and never to start one.
            target_sizes: As in `post_process_object_detection`.
            frame_mask: As in `post_process_object_detection`.
            times: Per video, seconds of its valid frames; None takes equal steps.
            tracker_settings: Arguments of `KineTracker`.

        Returns:
            Per video a list of one dict a frame: `boxes` (m, 4) xyxy, `scores`, `labels`, `track_ids` (m,).
        """
        videos = self.post_process_object_detection(outputs, threshold, target_sizes, frame_mask)
        return track_objects(videos, times, lambda: KineTracker(**(tracker_settings or {})))


_PIXEL_OPTIONS = (
    "do_resize",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


def _refuse_unsupported(options: Mapping):
    """Options of other video processors that would do nothing here are refused, not ignored."""
    if options["do_center_crop"]:
        raise ValueError("`do_center_crop` is not supported: frames are scaled whole and padded. Crop before.")
    if str(getattr(options["data_format"], "value", options["data_format"])) not in ("channels_first", "None"):
        raise ValueError(f"`data_format` must be channels_first, which the model takes; got {options['data_format']}.")
    if options["resample"] not in _INTERPOLATION:
        raise ValueError(f"`resample` must be bilinear (2) or bicubic (3), got {options['resample']!r}.")


def _check_frame_size(height: int, width: int):
    if height < 1 or width < 1:
        raise ValueError(f"A frame has at least one pixel a side; got height {height} and width {width}.")
