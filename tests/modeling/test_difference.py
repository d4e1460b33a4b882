"""Frame differences: they see change and nothing but change."""

import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.difference_kinetrack import MotionEncoder


@pytest.fixture
def encoder():
    return MotionEncoder(KineTrackConfig(hidden_size=8, motion_channels=4), in_channels=5)


def test_a_still_scene_is_all_alike_to_it(encoder):
    stills = torch.randn(2, 1, 5, 8, 8).expand(-1, 4, -1, -1, -1).flatten(0, 1)  # two different scenes
    change, _ = encoder(stills, batch=2)
    torch.testing.assert_close(change, change[:1].expand_as(change))


def test_it_sees_where_something_moves(encoder):
    frames = torch.zeros(1, 2, 5, 16, 16)
    frames[0, 1, :, :4, :4] = torch.randn(5, 1, 1)
    change, _ = encoder(frames.flatten(0, 1), batch=1)
    moved = (change[1] - change[0]).abs().amax(0) > 0  # (8, 8)
    assert moved[:2, :2].any() and not moved[5:, 5:].any()


def test_the_first_frame_of_a_stream_has_no_past_whatever_its_memory_holds(encoder):
    frames = torch.randn(2, 5, 8, 8)
    garbage = torch.full((1, 4, 8, 8), 7.0)
    fresh, _ = encoder(frames, batch=1)
    begun, _ = encoder(frames, batch=1, previous=garbage, has_previous=torch.tensor([False]))
    torch.testing.assert_close(fresh, begun)
    carried, _ = encoder(frames, batch=1, previous=garbage, has_previous=torch.tensor([True]))
    assert not torch.allclose(fresh[0], carried[0])
