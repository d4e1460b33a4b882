"""What the temporal attention remembers of every tracked person."""

import numpy as np
import torch


class TrackMemories:
    """The temporal attention's memory of every live track: rows of one table, never feature maps."""

    def __init__(self, attention):
        self.attention = attention
        self.reset()

    def reset(self) -> None:
        """Forgets all tracks."""
        self.track_ids = np.zeros(0, np.int64)
        self.memory = None

    def attend(self, track_ids: np.ndarray, scores: torch.Tensor, pooled: torch.Tensor, commit: bool) -> torch.Tensor:
        """Eq. 5 for every track over its own past and this frame.

        Args:
            track_ids: (N,) identities, all different.
            scores: (N,) w_tau . f, -inf for a box outside the frame.
            pooled: (N, D) f, with pose and statistics behind it if the model has any.
            commit: whether this frame is remembered.

        Returns:
            R (N, D), with movement and statistics behind it if the model has any.
        """
        if self.memory is None:
            self.memory = self.attention.empty_memory(pooled[:0])
        ids, memory = self.track_ids, self.memory
        missing = track_ids[~_equal(track_ids, ids).any(1)]
        if len(missing):
            ids = np.concatenate([ids, missing])
            memory = memory.join(self.attention.empty_memory(pooled[:1].expand(len(missing), -1)))
        rows = torch.from_numpy(_equal(track_ids, ids).nonzero()[1]).to(pooled.device)
        # Tracks that are not in this frame spend a tick without a box, so old sightings leave the window.
        all_scores = pooled.new_full((len(ids), 1), float("-inf")).index_copy(0, rows, scores[:, None])
        all_pooled = pooled.new_zeros(len(ids), 1, pooled.shape[-1]).index_copy(0, rows, pooled[:, None])
        _, summary, memory = self.attention.attend_time(all_scores, all_pooled, None, memory)
        if commit:
            self.track_ids, self.memory = ids, memory
            self._select((memory.scores > float("-inf")).any(1).cpu().numpy())
        return summary[rows]

    def keep(self, track_ids: np.ndarray) -> None:
        """Drops the memories of all tracks but these."""
        if self.memory is not None:
            self._select(_equal(self.track_ids, track_ids).any(1))

    def _select(self, kept: np.ndarray) -> None:
        if not kept.all():
            self.track_ids = self.track_ids[kept]
            self.memory = self.memory.rows(torch.from_numpy(kept).to(self.memory.scores.device))

    def state_dict(self) -> dict:
        """What `load_state_dict` needs: `track_ids` (N,), and, once there are any, `scores` and `features`."""
        state = {"track_ids": self.track_ids.copy()}
        if self.memory is not None:
            state |= {"scores": self.memory.scores.clone(), "features": self.memory.features.clone()}
        return state

    def load_state_dict(self, state: dict, like: torch.Tensor) -> None:
        """Goes on from a `state_dict`.

        Args:
            state: from `state_dict`.
            like: (N, D), any tensor on the device and of the type that memories have.

        Raises:
            ValueError: a state of another model.
        """
        self.reset()
        self.track_ids = np.array(state["track_ids"], np.int64)
        if "scores" not in state:
            return
        empty = self.attention.empty_memory(like.new_zeros(len(self.track_ids), like.shape[-1]))
        for name in ("scores", "features"):
            wanted, given = getattr(empty, name), torch.as_tensor(state[name])
            if wanted.shape != given.shape:
                raise ValueError(
                    f"The tracks' memories of this state have {name} of shape {tuple(given.shape)}, this model's "
                    f"{tuple(wanted.shape)}. The state belongs to another model."
                )
            wanted.copy_(given)
        self.memory = empty


def _equal(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N, M) bool: which of N identities are which of M; for so few, NumPy's functions of sets take longer."""
    return first[:, None] == second
