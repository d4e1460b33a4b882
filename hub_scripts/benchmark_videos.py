"""Videos that benchmarks run on, made on the fly from the example, so that the figures of two machines compare."""

import itertools
from pathlib import Path

EXAMPLE_VIDEO = Path(__file__).parent / "examples" / "pets2009.mp4"


def write_resized(source: Path, target: Path, size: tuple[int, int], seconds: float | None = None) -> int:
    """Writes a video again at another size, over and over until it is long enough.

    Args:
        source: a video.
        target: the new file, H.264.
        size: (height, width) in pixels; the aspect ratio is not kept.
        seconds: length; that of the source when None.

    Returns:
        Number of frames written.
    """
    import av

    with av.open(str(source)) as video:
        rate = video.streams.video[0].average_rate
        frames = [frame.reformat(size[1], size[0], "yuv420p") for frame in video.decode(video=0)]
    count = len(frames) if seconds is None else round(seconds * rate)
    with av.open(str(target), "w") as video:
        stream = video.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "crf": "23"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for index, frame in enumerate(itertools.islice(itertools.cycle(frames), count)):
            frame.pts, frame.time_base = index, 1 / rate
            video.mux(stream.encode(frame))
        video.mux(stream.encode())
    return count
