"""The tracking head at single cells."""

import torch
from kinetrack.modeling.modeling_kinetrack import KineTrackForObjectTracking


def test_cells_are_described_as_the_maps_have_it(make_model):
    head = make_model(KineTrackForObjectTracking).tracking_head
    pyramid, features = torch.randn(2, 8, 6, 8, dtype=torch.float64), torch.randn(2, 8, 3, 4, dtype=torch.float64)
    inputs = (pyramid, features, torch.full((2, 3, 4), 1 / 12).double(), torch.ones(2, 1, 3, 4).double())
    _, *maps = head(*inputs)
    cells = torch.tensor([[0, 7, 17, 47], [40, 3, 3, 20]])  # corners, borders, the same one twice
    for found, dense in zip(head.describe(head.trunk(*inputs), cells), maps, strict=True):
        assert found.shape == (2, 4, dense.shape[1])
        for image in range(2):
            torch.testing.assert_close(found[image], dense[image].flatten(1)[:, cells[image]].T)
