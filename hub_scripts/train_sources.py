"""Which clips each task of a training learns from and is judged on, and what they are called."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .data.clips import ClipSource
from .data.keypoints import JOINTS
from .data.layouts import choose_part, class_names, list_clips, recognise_layout
from .data.listed_clips import ListedClips
from .data.sequences import find_sequences, list_sequences, object_classes
from .data.sources import action_names, action_sources, has_keypoints, mot_sources
from .data.splits import SPLITS_DIR
from .train_config import DataSettings, StreamSettings, TrainConfig

logger = logging.getLogger(__name__)

_GROUPS = {"fight": ["noFight", "fight"]}


@dataclass(frozen=True)
class TaskData:
    """The data of one task.

    Attributes:
        labels: what they say about the model's configuration: `id2label`, `label_groups`, `object_classes`,
            `keypoints`.
        options: of the clips, `MotClips` or `ActionClips`.
        open: from a part, "train" or "dev", to its clips, of which "dev" may have none.
    """

    labels: dict
    open: Callable[[str], Sequence[ClipSource]]
    options: dict = field(default_factory=dict)


def open_data(settings: TrainConfig) -> dict[str, TaskData]:
    """The data of "tracking", of "actions", or of both.

    Raises:
        FileNotFoundError, ValueError: nothing to train on; the message says where it was looked for.
    """
    data = settings.data
    own = any((data.path, data.tracking.path, data.actions.path))
    found = {}
    for task, stream, of_root, of_path in (
        ("tracking", data.tracking, _root_sequences, _own_sequences),
        ("actions", data.actions, _root_actions, _own_actions),
    ):
        if not stream.batch_size:
            continue
        path = stream.path or data.path
        task_data = of_path(path, stream, data) if path else None if own else of_root(data)
        if task_data is not None:
            found[task] = task_data
        elif stream.path:
            raise FileNotFoundError(f"data.{task}.path={stream.path}: there is no data for this task.")
    if not found:
        where = data.path or data.root
        raise ValueError(
            f"Nothing to train on at {where}: expected tracking sequences (<sequence>/gt/gt.txt), videos in class "
            "folders, UCF-101, HMDB-51, a CSV file or a data set of the Hub; or data.tracking.batch_size and "
            "data.actions.batch_size are both 0. `kinetrack data check PATH` says what is there."
        )
    return found


def _root_sequences(data: DataSettings) -> TaskData:
    known = action_names(data.root) if data.actions.batch_size else []
    walking = {"labels": known.index("walk"), "group_labels": {"fight": 0}} if "walk" in known else None
    splits = data.splits or SPLITS_DIR
    return TaskData({}, lambda part: mot_sources(data.root, part, data.cache, splits), {"walking": walking})


def _root_actions(data: DataSettings) -> TaskData:
    labels = {"id2label": dict(enumerate(action_names(data.root))), "label_groups": _GROUPS}
    if has_keypoints(data.root):
        labels["keypoints"] = JOINTS
    splits = data.splits or SPLITS_DIR
    return TaskData(labels, lambda part: action_sources(data.root, part, data.cache, splits))


def _own_sequences(path: str, stream: StreamSettings, data: DataSettings) -> TaskData | None:
    if not find_sequences(path):
        return None
    classes = object_classes(path)
    labels = {} if classes is None else {"object_classes": classes}
    return TaskData(
        labels, lambda part: list_sequences(path, part, data.cache, stream.half, data.dev_fraction, classes)
    )


def _own_actions(path: str, stream: StreamSettings, data: DataSettings) -> TaskData | None:
    if stream.layout == "auto" and recognise_layout(path) is None:
        return None
    table = list_clips(path, stream.layout, stream.fold)
    labels = {"id2label": dict(enumerate(class_names(table))), "label_groups": {}}
    return TaskData(labels, lambda part: ListedClips(choose_part(table, part, data.dev_fraction), data.cache))
