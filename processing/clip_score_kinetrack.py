"""`ClipScore`: one answer for a video of any length, the mean of probabilities at the ends of attention windows."""

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class ScoredWindow:
    """The answer at the end of one attention window.

    Attributes:
        begin: number of its first tick, from 0.
        end: number of the tick after its last.
        clip_action: (num_labels,) probabilities.
        group_actions: (n,) probabilities of every further label group.
    """

    begin: int
    end: int
    clip_action: np.ndarray
    group_actions: dict[str, np.ndarray] = field(default_factory=dict)


class ClipScore:
    """Cuts the ticks of a video into attention windows and averages the answers at their ends.

    A window ends every `attention_window` ticks. What is left at the end of the video counts if it is at least half a
    window, or all there is. Within a window the newest answer stands, so somebody who has left keeps their last one; a
    window without any answer does not count.

    Args:
        attention_window: ticks of a window (`config.attention_window`); None: the whole video is one.
    """

    def __init__(self, attention_window: int | None):
        self.attention_window = attention_window
        self.num_ticks = 0
        self._ended: list[ScoredWindow] = []
        self._newest = None

    def add(self, clip_action: np.ndarray | None, group_actions: dict[str, np.ndarray] | None = None) -> None:
        """Takes the next tick.

        Args:
            clip_action: (num_labels,) probabilities over the window that ends here; None: no answer on this tick.
            group_actions: (n,) probabilities of every further label group.
        """
        self.num_ticks += 1
        if clip_action is not None:
            self._newest = (clip_action, dict(group_actions or {}))
        if self.num_open_ticks == 0:
            self._ended += self._open_window(self.attention_window)
            self._newest = None

    @property
    def num_open_ticks(self) -> int:
        """Ticks since the end of the last whole window."""
        return self.num_ticks % self.attention_window if self.attention_window else self.num_ticks

    def windows(self) -> list[ScoredWindow]:
        """The windows that count if the video ends here, in the order of time."""
        rest = self.num_open_ticks
        if rest and (not self._ended or rest >= self.attention_window / 2):
            return self._ended + self._open_window(rest)
        return list(self._ended)

    def mean(self) -> dict[str, np.ndarray] | None:
        """The video's probabilities if it ends here; None when there never was an answer.

        Returns:
            `{"actions": (num_labels,), group: (n,) …}`.
        """
        windows = self.windows()
        if not windows:
            return None
        answers = [{"actions": window.clip_action, **window.group_actions} for window in windows]
        return {name: np.mean([answer[name] for answer in answers], axis=0) for name in answers[0]}

    def _open_window(self, ticks: int) -> list[ScoredWindow]:
        """The window of the last `ticks` ticks, as a list of one; of none when nobody answered."""
        if self._newest is None:
            return []
        return [ScoredWindow(self.num_ticks - ticks, self.num_ticks, *self._newest)]
