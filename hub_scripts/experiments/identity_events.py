"""What happens to identities in a sequence: switches with what went before them, and what outlives an occlusion."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..metrics.mot_metrics import detect_style, read_mot_rows

MATCHED_FROM = 0.5  # IoU, as in the CLEAR metrics
COVERED_FROM = 0.3  # share of a person's box within that of another who may stand in front
_RECENTLY = 25  # frames


@dataclass(frozen=True)
class Switch:
    """An annotated person whose track changed.

    Attributes:
        frame: in which the new identity was first matched, from 1.
        person: annotated identity.
        gap: frames since the person was last matched; 1 for none lost.
        cause: "exchange" (the new identity was another person's in the last second), else "occlusion" (another person's
            box covered `COVERED_FROM` of this one's since it was last matched), else "missed" (not detected meanwhile),
            else "fresh" (seen all the time, and named anew).
    """

    frame: int
    person: int
    gap: int
    cause: str

    def to_dict(self) -> dict:
        """For JSON."""
        return asdict(self)


CAUSES = ("exchange", "occlusion", "missed", "fresh")


def overlap(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """IoU, and share of each first box within each second one, `(N, M)` each, of boxes left, top, width, height."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, :2] + first[:, None, 2:], second[None, :, :2] + second[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = first[:, 2:].prod(1)[:, None], second[:, 2:].prod(1)[None]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9), shared / np.maximum(areas[0], 1e-9)


def read_people(folder) -> np.ndarray:
    """Annotated pedestrians of a sequence, `(N, 6)`: frame, identity, left, top, width, height."""
    rows = read_mot_rows(folder / "gt" / "gt.txt")
    counts = rows[:, 6] != 0
    if detect_style(rows, folder.name) != "MOT15":
        counts &= rows[:, 7] == 1
    return rows[counts, :6]


class IdentityHistory:
    """Annotated people matched to tracks, frame by frame, as the CLEAR metrics do: a match that holds is kept.

    Args:
        people: from `read_people`.
        tracks: MOTChallenge rows `(N, ≥ 6)` of a tracker.
        frames: first and last frame.

    Attributes:
        matches: per person, `{frame: track}`.
        covered: per person, `{frame: largest share of the box within another's}`.
    """

    def __init__(self, people: np.ndarray, tracks: np.ndarray, frames: tuple[int, int]):
        self.matches: dict[int, dict[int, int]] = {}
        self.covered: dict[int, dict[int, float]] = {}
        self.owners: dict[int, dict[int, int]] = {}  # per track, {frame: person}
        self._last: dict[int, int] = {}  # what was matched in the last frame with people and tracks
        for frame in range(frames[0], frames[1] + 1):
            here = people[people[:, 0] == frame]
            if len(here):
                self._match(frame, here, tracks[tracks[:, 0] == frame])

    def _match(self, frame: int, here: np.ndarray, seen: np.ndarray) -> None:
        names = here[:, 1].astype(int).tolist()
        shares = overlap(here[:, 2:6], here[:, 2:6])[1]
        np.fill_diagonal(shares, 0)
        for name, share in zip(names, shares.max(1), strict=True):
            self.covered.setdefault(name, {})[frame] = float(share)
        if not len(seen):
            return
        ids = seen[:, 1].astype(int).tolist()
        iou = overlap(here[:, 2:6], seen[:, 2:6])[0]
        kept = np.array([[self._last.get(name) == track for track in ids] for name in names])
        score = np.where(iou >= MATCHED_FROM - 1e-9, 1000 * kept + iou, 0)
        self._last = {}
        for row, column in zip(*linear_sum_assignment(-score), strict=True):
            if score[row, column] > 0:
                name, track = names[row], ids[column]
                self.matches.setdefault(name, {})[frame] = self._last[name] = track
                self.owners.setdefault(track, {})[frame] = name

    def switches(self) -> list[Switch]:
        """All identity switches, by frame."""
        found = []
        for person, matched in self.matches.items():
            frames = sorted(matched)
            for before, now in zip(frames, frames[1:], strict=False):
                if matched[before] != matched[now]:
                    found.append(Switch(now, person, now - before, self._cause(person, before, now, matched[now])))
        return sorted(found, key=lambda switch: (switch.frame, switch.person))

    def _cause(self, person: int, before: int, now: int, track: int) -> str:
        others = {owner for frame, owner in self.owners[track].items() if now - _RECENTLY <= frame < now}
        if others - {person}:
            return "exchange"
        if any(self.covered[person].get(frame, 0) >= COVERED_FROM for frame in range(before, now + 1)):
            return "occlusion"
        return "missed" if now - before > 1 else "fresh"

    def occlusions(self, least: int = 3) -> list[tuple[int, int, bool]]:
        """Stretches in which a person is covered: first frame, person, and whether the identity is the same after it.

        The identity is that of the last match before the stretch and of the first one after it; a stretch at the
        beginning or the end of a person's time has none and is left out.

        Args:
            least: frames from which a stretch counts.
        """
        found = []
        for person, covered in self.covered.items():
            matched = self.matches.get(person, {})
            for begin, end in _stretches([f for f in sorted(covered) if covered[f] >= COVERED_FROM]):
                before = [frame for frame in matched if frame < begin]
                after = [frame for frame in matched if frame > end]
                if end - begin + 1 >= least and before and after:
                    found.append((begin, person, matched[max(before)] == matched[min(after)]))
        return sorted(found)


def _stretches(frames: list[int], bridge: int = 3) -> list[tuple[int, int]]:
    """Runs of frames, gaps of up to `bridge` frames closed."""
    runs: list[tuple[int, int]] = []
    for frame in frames:
        if runs and frame - runs[-1][1] <= bridge:
            runs[-1] = (runs[-1][0], frame)
        else:
            runs.append((frame, frame))
    return runs
