"""From samples to batches: padding-free collation, and which sample comes when."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .clips import NO_LABEL


def collate(samples: Sequence[dict], always_regions: bool = False, groups: Sequence[str] = ()) -> dict:
    """Stacks samples of one form into the model's inputs.

    Args:
        samples: As the datasets give them.
        always_regions: Give `region_boxes` also when no sample has an actor.
        groups: Label groups to give also when no sample has them.

    Returns:
        `pixel_values_videos (B,T,3,H,W)`, `frame_mask (B,T)`, `pixel_mask (B,H,W)`, `labels (B,)` (-100: none),
        `group_labels {name: (B,)}`, `frame_labels[b][t]` (a dict of tensors or None), `region_boxes (B,T,4)` in pixels
        of the model input (NaN where the actor has no box; None when no sample has an actor), `names`.
    """
    regions = torch.stack([sample["region_boxes"] for sample in samples])  # (B, T, 4)
    groups = sorted({name for sample in samples for name in sample["group_labels"]} | set(groups))
    return {
        "pixel_values_videos": torch.stack([sample["pixel_values_videos"] for sample in samples]),
        "frame_mask": torch.stack([sample["frame_mask"] for sample in samples]),
        "pixel_mask": torch.stack([sample["pixel_mask"] for sample in samples]),
        "labels": torch.tensor([sample["labels"] for sample in samples]),
        "group_labels": {
            name: torch.tensor([sample["group_labels"].get(name, NO_LABEL) for sample in samples]) for name in groups
        },
        "frame_labels": [sample["frame_labels"] for sample in samples],
        "region_boxes": regions if always_regions or bool(torch.isfinite(regions).any()) else None,
        "names": [sample.get("names", "") for sample in samples],
    }


def collate_inputs(samples: Sequence[dict]) -> dict:
    """`collate` for `transformers.Trainer`: the model's arguments and nothing else."""
    return {name: value for name, value in collate(samples).items() if name != "names" and value is not None}


class BalancedBatches:
    """An endless stream of batches of `(epoch, index)`, to be given to a `DataLoader` as `batch_sampler`.

    Every stratum (a class, a sequence) gets its share of the draws, and within it every item comes once before any
    comes again. Batch number n is a function of the seed and n alone, so a run is resumed by setting `position` to the
    number of batches that were trained on: what a loader has fetched ahead does not matter. With several processes each
    takes its own part of every batch of `batch_size * world_size`.

    Args:
        strata: Name of each item's stratum (`dataset.strata`).
        batch_size: Samples in a batch of this process.
        shares: Weight of the strata; those not named weigh 1. None: an item is as likely as any other.
        seed: Another seed, another order.
        length: Batches until the iteration ends; None for never.
        rank, world_size: Which process this is, of how many.
    """

    def __init__(
        self,
        strata: Sequence[str],
        batch_size: int,
        shares: dict[str, float] | None = None,
        seed: int = 0,
        length: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not strata or batch_size < 1:
            raise ValueError(f"Expected items and batch_size >= 1, got {len(strata)} items, batch_size={batch_size}.")
        self.batch_size, self.seed, self.length = batch_size, seed, length
        self.rank, self.world_size, self.position = rank, world_size, 0
        names = sorted(set(strata))
        self.members = [np.flatnonzero(np.array(strata) == name) for name in names]
        weights = [len(m) if shares is None else shares.get(n, 1.0) for n, m in zip(names, self.members, strict=True)]
        if min(weights) < 0 or sum(weights) <= 0:
            raise ValueError(f"shares={shares}: weights must not be negative, nor all of them zero.")
        self.weights = np.array(weights, float) / sum(weights)
        self.epoch_length = len(strata)
        self._cached: tuple[int, list[tuple[int, int]]] | None = None

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        number = self.position
        while self.length is None or number < self.length:
            yield self.batch(number)
            number += 1

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("This stream of batches does not end; give length= to bound it.")
        return max(0, self.length - self.position)

    def batch(self, number: int) -> list[tuple[int, int]]:
        """The `(epoch, index)` pairs of one batch."""
        begin = (number * self.world_size + self.rank) * self.batch_size
        return [self._draw(position) for position in range(begin, begin + self.batch_size)]

    def state_dict(self) -> dict:
        """The position, for a checkpoint; the trainer keeps it at the number of batches it has used."""
        return {"position": self.position, "seed": self.seed}

    def load_state_dict(self, state: dict) -> None:
        """Goes on where `state_dict` was taken."""
        if state["seed"] != self.seed:
            raise ValueError(f"The checkpoint was drawn with seed {state['seed']}, this run has seed {self.seed}.")
        self.position = state["position"]

    def _draw(self, position: int) -> tuple[int, int]:
        epoch, offset = divmod(position, self.epoch_length)
        if self._cached is None or self._cached[0] != epoch:
            self._cached = (epoch, self._epoch(epoch))
        return self._cached[1][offset]

    def _epoch(self, epoch: int) -> list[tuple[int, int]]:
        """As many draws as there are items, each stratum's share of them, in random order."""
        # Rounding down the running total gives every stratum its exact share over many epochs.
        counts = [
            (int((epoch + 1) * w * self.epoch_length + 1e-6), int(epoch * w * self.epoch_length + 1e-6))
            for w in self.weights
        ]
        drawn = []
        for number, (members, (until, begin)) in enumerate(zip(self.members, counts, strict=True)):
            for turn in range(begin // len(members), -(-until // len(members))):
                order = np.random.default_rng((self.seed, 1, number, turn)).permutation(members)
                low, high = max(begin - turn * len(members), 0), min(until - turn * len(members), len(members))
                drawn += [(epoch * 1000 + turn - begin // len(members), int(index)) for index in order[low:high]]
        generator = np.random.default_rng((self.seed, 2, epoch))
        while len(drawn) < self.epoch_length:  # what rounding left over
            number = int(generator.choice(len(self.members), p=self.weights))
            drawn.append((epoch * 1000 + 999, int(generator.choice(self.members[number]))))
        return [drawn[i] for i in generator.permutation(len(drawn))[: self.epoch_length]]
