"""Machine-made keypoints of labelled actors, by MediaPipe's BlazePose (Apache-2.0; its weights come with the package).

    pip install mediapipe==0.10.14   # newer ones have another interface
    python -m kinetrack.hub_scripts.data.keypoints --data ROOT --output ROOT/actions/jhmdb/train_keypoints

A file a clip lies in `<set>/train_keypoints/<class>/<clip>.txt` beside `train_boxes`: lines
`frame, id, x, y, weight, x, y, weight, ...`, frames from 1, one triple for each of `JOINTS`, in pixels of the video;
weight 0 marks a joint that was not seen. They teach the `keypoints` of a model and are never scored.
"""

import argparse
import os
from pathlib import Path

import numpy as np

from .annotations import read_actor_boxes, read_rows
from .frames import FrameStore

JOINTS = [
    "nose",
    *(
        f"{side}_{joint}"
        for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
]
# Their places among BlazePose's 33 landmarks.
_LANDMARKS = [0, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
# A mirrored left arm is a right arm.
MIRRORED = [JOINTS.index(name.replace("left", "*").replace("right", "left").replace("*", "right")) for name in JOINTS]
_CROP = 384  # side of the square BlazePose is shown, pixels
_MIN_VISIBILITY = 0.5


def read_keypoints(path: str | os.PathLike, num_frames: int) -> np.ndarray:
    """Reads the actor's keypoints: `(num_frames, 13, 3)` of x, y in pixels and weight; zeros where there are none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: lines that do not hold 13 keypoints.
    """
    rows = read_rows(path)
    points = np.zeros((num_frames, len(JOINTS), 3), np.float32)
    if len(rows) and rows.shape[1] != 2 + 3 * len(JOINTS):
        raise ValueError(f"{path}: expected {2 + 3 * len(JOINTS)} numbers a line, got {rows.shape[1]}.")
    rows = rows[(rows[:, 0] >= 1) & (rows[:, 0] <= num_frames)]
    if len(rows):
        points[rows[:, 0].astype(int) - 1] = rows[:, 2:].reshape(-1, len(JOINTS), 3)
    return points


def find_keypoints(frames: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Follows one person's joints through a clip.

    Args:
        frames: `uint8` `(T, H, W, 3)`.
        boxes: `(T, 4)` corners of the person, NaN where unknown, at least one known.

    Returns:
        `(T, 13, 3)` x, y in pixels and weight, 1 for a joint seen within the person's surroundings, else 0.

    Raises:
        ImportError: MediaPipe is not installed.
    """
    try:
        import cv2
        import mediapipe
    except ImportError as error:
        raise ImportError("Finding keypoints needs MediaPipe: pip install mediapipe==0.10.14.") from error

    known, times = np.isfinite(boxes).all(1), np.arange(len(boxes))
    boxes = np.stack([np.interp(times, times[known], side[known]) for side in boxes.T], 1)  # (T, 4)
    size = boxes[:, 2:] - boxes[:, :2]
    side = 1.35 * float(size.max())
    # A square of constant size that follows the person smoothly, so that BlazePose can follow the pose in turn.
    centre = np.pad((boxes[:, :2] + boxes[:, 2:]) / 2, ((2, 2), (0, 0)), mode="edge")
    corner = np.stack([np.convolve(axis, np.ones(5) / 5, "valid") for axis in centre.T], 1) - side / 2  # (T, 2)
    points = np.zeros((len(frames), len(JOINTS), 3), np.float32)
    options = {"model_complexity": 1, "min_detection_confidence": 0.3, "min_tracking_confidence": 0.3}
    with mediapipe.solutions.pose.Pose(**options) as pose:
        for time, frame in enumerate(frames):
            scale = _CROP / side
            move = np.array([[scale, 0, -scale * corner[time, 0]], [0, scale, -scale * corner[time, 1]]])
            found = pose.process(cv2.warpAffine(frame, move, (_CROP, _CROP), flags=cv2.INTER_CUBIC)).pose_landmarks
            if found is None:
                continue
            joints = np.array([[mark.x, mark.y, mark.visibility] for mark in found.landmark])[_LANDMARKS]  # (13, 3)
            place = joints[:, :2] * side + corner[time]
            margin = 0.15 * size[time]
            near = (place > boxes[time, :2] - margin).all(1) & (place < boxes[time, 2:] + margin).all(1)
            if near.mean() >= 0.5:  # else it is somebody else's pose
                points[time] = np.column_stack([place, near & (joints[:, 2] >= _MIN_VISIBILITY)])
    return points


def main() -> None:
    """Writes a file for every clip that has an actor's boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="data root that holds actions/")
    parser.add_argument("--output", required=True, type=Path, help="folder for the class folders of keypoints")
    parser.add_argument("--set", default="jhmdb", help="folder of clips below actions/ (default: jhmdb)")
    arguments = parser.parse_args()
    clips = arguments.data / "actions" / arguments.set / "train"
    seen = []
    for path in sorted(clips.glob("*/*.mp4")):
        boxes = clips.with_name("train_boxes") / path.parent.name / f"{path.stem}.txt"
        target = arguments.output / path.parent.name / f"{path.stem}.txt"
        if not boxes.is_file() or target.is_file():
            continue
        store = FrameStore(path)
        points = find_keypoints(store.read(np.arange(store.num_frames)), read_actor_boxes(boxes, store.num_frames))
        rows = [[time + 1, 1, *joints.ravel()] for time, joints in enumerate(points) if joints[:, 2].any()]
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(",".join(f"{value:.1f}".removesuffix(".0") for value in row) + "\n" for row in rows)
        partial = target.with_suffix(".partial")
        partial.write_text(lines)
        os.replace(partial, target)
        seen.append(len(rows) / store.num_frames)
        print(f"{path.parent.name}/{path.stem}: a pose in {seen[-1]:.0%} of the frames", flush=True)
    print(f"{len(seen)} clips, a pose in {np.mean(seen) if seen else 0:.0%} of the frames on average")


if __name__ == "__main__":
    main()
