"""`analyze`: from a video to a `VideoAnalysis` and its files, in one straight line and bounded memory."""

import contextlib
import logging
import os
import shutil
import tempfile
import time as clock
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .describing_kinetrack import ASSUMED_FRAME_RATE, describe_frames, describe_model, describe_settings, source_name
from .live_kinetrack import StreamEvent
from .loading import DEFAULT_MODEL, load_model
from .recording import AnalysisRecorder
from .results import VideoAnalysis
from .sinks import ANNOTATED_VIDEO, ResultFolder, VideoSink, write_results

logger = logging.getLogger(__name__)

# What a person can put right; anything else is a mistake in this package and keeps its traceback.
INPUT_ERRORS = (OSError, ValueError, TypeError, ImportError, MemoryError, RuntimeError)

Progress = Callable[[int, int | None], None]


def analyze(
    source,
    model=DEFAULT_MODEL,
    task: str = "both",
    fps: float | None = None,
    threshold: float | None = None,
    device: str | None = None,
    output: str | os.PathLike | None = None,
    video: bool = True,
    progress: bool | Progress = False,
    size: tuple[int, int] | None = None,
    allow_untrained: bool = False,
    backend: str = "auto",
    on_result: Callable[[Any], None] | None = None,
    on_event: Callable[[StreamEvent], None] | None = None,
) -> VideoAnalysis:
    """Analyses one video: what happens, who is where, and who does what.

    Args:
        source: path, URL, bytes or binary file object of a video; an array, tensor or list of frames; or an iterator
            of frames. Frames are RGB, RGBA or gray.
        model: name of an installed model, folder or Hub id; or a pair `(model, processor)` from `load_model`.
        task: `"both"`, `"tracking"` or `"actions"`.
        fps: frames a second to look at, evenly chosen; every frame when None. For frames that carry no times it is
            their rate (25 when None).
        threshold: score from which an object is reported; the model's own when None.
        device: PyTorch device for `load_model`.
        output: folder; the files go to `output/<name of the video without its suffix>/`. None writes nothing.
        video: whether `annotated.mp4` is among the files.
        progress: True shows a progress bar; a function is called with the number of frames done and to be done (None
            when unknown), and can cancel the run by raising.
        size: (height, width) of the model input in pixels, multiples of 32; fitted to the video when None.
        allow_untrained: accepts a model whose `config.trained` is False.
        backend: what runs the model, as for `load_model`; of a given pair, it is what was chosen when that was loaded.
        on_result: called with the `KineTrackFrameResult` of every frame, for what the result does not keep, such as
            the spatial attention; can cancel the run by raising.
        on_event: called with what happens to the source, such as damage; when None, damage is logged once.

    Returns:
        The result; its `output` is the folder of the files.

    Raises:
        FileNotFoundError: no such video or model.
        ValueError: a video that cannot be read (`VideoDecodeError`), frames that are not pictures, an untrained model,
            or an option out of range.
        OSError: the output cannot be written. Files of an earlier run are then as they were.

    Example:
        >>> import kinetrack
        >>> analysis = kinetrack.analyze("video.mp4", output="results")  # doctest: +SKIP
        >>> analysis.to_pandas()  # doctest: +SKIP
    """
    folder = None if output is None else Path(output) / source_stem(source)
    network = _loaded(model, device, backend, allow_untrained)
    name = _model_name(model, network[0])
    options = {"task": task, "threshold": threshold, "size": size, "allow_untrained": allow_untrained}
    return _analyze_into(source, folder, network, name, fps, video, progress, options, on_result, on_event)


@dataclass(frozen=True)
class Outcome:
    """How one video of several went.

    Attributes:
        source: the video.
        folder: of its results.
        analysis: the result, or None.
        error: what went wrong, or None.
    """

    source: Any
    folder: Path
    analysis: VideoAnalysis | None = None
    error: Exception | None = None


def analyze_videos(
    sources: Iterable,
    output: str | os.PathLike,
    model=DEFAULT_MODEL,
    task: str = "both",
    fps: float | None = None,
    threshold: float | None = None,
    device: str | None = None,
    video: bool = True,
    progress: bool | Progress = False,
    size: tuple[int, int] | None = None,
    allow_untrained: bool = False,
    backend: str = "auto",
) -> Iterator[Outcome]:
    """Analyses several videos with one model; a video that cannot be read does not keep the others from being done.

    Args:
        sources: videos as for `analyze`.
        output: folder; see `plan_folders` for where each video's files go.
        model: as for `analyze`, like all other arguments.
        task: see there.
        fps: see there.
        threshold: see there.
        device: see there.
        video: see there.
        progress: see there.
        size: see there.
        allow_untrained: see there.
        backend: see there.

    Yields:
        One `Outcome` a video, in order.

    Raises:
        FileNotFoundError, ValueError: the model cannot be used.
    """
    sources = list(sources)
    network = _loaded(model, device, backend, allow_untrained)
    name = _model_name(model, network[0])
    options = {"task": task, "threshold": threshold, "size": size, "allow_untrained": allow_untrained}
    for source, folder in zip(sources, plan_folders(sources, output), strict=True):
        try:
            analysis = _analyze_into(source, folder, network, name, fps, video, progress, options)
        except INPUT_ERRORS as error:
            yield Outcome(source, folder, error=error)
        else:
            yield Outcome(source, folder, analysis=analysis)


def plan_folders(sources: Iterable, output: str | os.PathLike) -> list[Path]:
    """A folder of its own for every video: `output/<stem>`, and `<stem>-2`, `<stem>-3` … for further ones called alike.

    Args:
        sources: videos.
        output: folder.

    Example:
        >>> [folder.as_posix() for folder in plan_folders(["day1/cam.mp4", "day2/cam.mp4"], "out")]
        ['out/cam', 'out/cam-2']
    """
    taken, folders = set(), []
    stems = [source_stem(source) for source in sources]
    reserved = {stem.casefold() for stem in stems}
    for stem in stems:
        name, number = stem, 1
        # File systems that ignore case would take "Cam" and "cam" for one folder.
        while name.casefold() in taken or (number > 1 and name.casefold() in reserved):
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        folders.append(Path(output) / name)
    return folders


def source_stem(source) -> str:
    """Name of a video's folder: its file name without suffix, or "video" for what has no name."""
    name = source_name(source)
    stem = PurePosixPath(name.replace("\\", "/")).stem.strip()
    return stem if stem.strip(". ") else "video"


def _analyze_into(
    source,
    folder: Path | None,
    network,
    name: str,
    fps,
    video: bool,
    progress,
    options: dict,
    on_result=None,
    on_event=None,
):
    """One video to its result and, in `folder`, its files."""
    from .session_kinetrack import KineTrackSession

    session = KineTrackSession(*network, **options)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(_open_source(source, fps))
        described = describe_model(name, session.model.config, options["task"])
        recorder = AnalysisRecorder(
            opened.description, described, describe_settings(session, options["task"], fps, options["size"])
        )
        files = None if folder is None else stack.enter_context(ResultFolder(folder))
        report = stack.enter_context(_reporting(progress, opened.description["name"]))
        sink = None
        for result in session.run(opened.frames, fps, on_event=on_event or _DamageLog(opened.description["name"])):
            if recorder.num_frames == 0:
                opened.description.update(width=result.width, height=result.height)
                if files is not None and video:
                    path = files.stage(ANNOTATED_VIDEO)
                    sink = stack.enter_context(_DrawnVideo(path, result, opened, recorder, fps))
            if sink is not None:
                sink.write(result)
            recorder.add(result)
            if on_result is not None:
                on_result(result)
            report(recorder.num_frames, opened.expected_frames)
        if recorder.num_frames == 0:
            raise ValueError(f"{opened.description['name']} has no frames.")
        analysis = recorder.finish()
        if files is not None:
            if sink is not None:
                sink.close()
            write_results(analysis, files)
            files.commit()
            analysis.output = folder
    return analysis


class _DamageLog:
    """Says once that a video is damaged."""

    def __init__(self, name: str):
        self._name, self._said = name, False

    def __call__(self, event: StreamEvent) -> None:
        if event.kind == "damaged" and not self._said:
            self._said = True
            logger.warning("%s: %s; what can be decoded is used.", self._name, event.message)


class _DrawnVideo:
    """The annotated video: draws each frame and writes it at its time."""

    def __init__(self, path: Path, first, opened: "_OpenedSource", recorder: AnalysisRecorder, fps: float | None):
        from .drawing import annotator_for

        rate = opened.description["frame_rate"]
        rate = min(rate, fps) if fps else rate
        self._annotator = annotator_for(first, rate, recorder.model)
        self._sink = VideoSink(path, first.height, first.width, rate, opened.audio)

    def write(self, result) -> None:
        started = clock.perf_counter()
        self._sink.write(self._annotator.annotate(result.frame, result), result.time)
        result.timings["output"] = clock.perf_counter() - started

    def close(self) -> None:
        self._sink.close()

    def __enter__(self) -> "_DrawnVideo":
        return self

    def __exit__(self, *exception) -> None:
        self._sink.__exit__(*exception)


@dataclass
class _OpenedSource:
    """What the session reads, what is known of it, and where its sound is."""

    frames: Any
    description: dict[str, Any]
    expected_frames: int | None
    audio: Any = None


@contextlib.contextmanager
def _open_source(source, fps: float | None) -> Iterator[_OpenedSource]:
    """Makes a source of any kind readable and describes it."""
    from .decoding_kinetrack import VideoFrame, probe_video
    from .video_input_kinetrack import list_videos

    if isinstance(source, Iterator) and not hasattr(source, "read"):
        yield _OpenedSource(source, describe_frames(fps), None)
        return
    videos = list_videos(source)
    if len(videos) != 1:
        raise ValueError(f"`analyze` takes one video, got {len(videos)}. Call it for each, or use `analyze_videos`.")
    if videos[0].encoded is None:
        rate, frames = fps or ASSUMED_FRAME_RATE, videos[0].frames
        times = [frame.time if isinstance(frame, VideoFrame) else i / rate for i, frame in enumerate(frames)]
        yield _OpenedSource(videos[0].read(np.array(times)), describe_frames(fps, len(frames)), len(frames))
        return
    with _on_disk(source) as readable:
        info = probe_video(readable)
        description = {"name": source_name(source), **asdict(info)}
        count = info.num_frames
        if count is None and info.duration is not None:
            count = round(info.duration * info.frame_rate)
        if count is not None and fps is not None and fps < info.frame_rate:
            count = -(-count * fps // info.frame_rate)
        # Sound is read on its own, which a live stream does not allow.
        audio = readable if info.has_audio and info.duration is not None else None
        yield _OpenedSource(readable, description, None if count is None else int(count), audio)


@contextlib.contextmanager
def _on_disk(source):
    """A file object is copied to a temporary file: pictures and sound are read side by side, each from its place."""
    if not hasattr(source, "read"):
        yield source
        return
    with tempfile.NamedTemporaryFile(prefix="kinetrack-", suffix=".video") as file:
        if hasattr(source, "seek"):
            source.seek(0)
        shutil.copyfileobj(source, file)
        file.flush()
        yield file.name


def _loaded(model, device, backend, allow_untrained):
    """`(model, processor)` of a name; a pair stays as it is."""
    if not _is_name(model):
        return model
    return load_model(model, device, allow_untrained=allow_untrained, backend=backend)


def _is_name(model) -> bool:
    return isinstance(model, str | os.PathLike)


def _model_name(model, network) -> str:
    """How results call the model: never with the folders above it, which are nobody's business."""
    if not _is_name(model):
        return Path(getattr(network.config, "name_or_path", "") or "kinetrack").name
    return Path(model).resolve().name if Path(model).exists() else os.fspath(model)


@contextlib.contextmanager
def _reporting(progress: bool | Progress, name: str) -> Iterator[Progress]:
    """A function to call after every frame."""
    if callable(progress):
        yield progress
        return
    from tqdm import tqdm

    with tqdm(desc=name, unit=" frames", disable=not progress, dynamic_ncols=True, smoothing=0.1) as bar:

        def report(done: int, total: int | None) -> None:
            if total is not None and bar.total != max(total, done):
                bar.total = max(total, done)
            bar.update(done - bar.n)

        yield report
