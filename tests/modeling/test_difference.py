"""What moves between frames: differences see change and nothing but change, displacements say where things went."""

import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.difference_kinetrack import MotionEncoder, displacements

REACH, SIDE = 3, 7


@pytest.fixture
def encoder():
    return make_encoder(motion_reach=REACH)


def make_encoder(**overrides):
    return MotionEncoder(KineTrackConfig(hidden_size=8, motion_channels=4, **overrides), in_channels=8)


def test_without_displacements_a_still_scene_is_all_alike():
    stills = torch.randn(2, 1, 8, 8, 8).expand(-1, 4, -1, -1, -1).flatten(0, 1)  # two different scenes
    change, _, _ = make_encoder()(stills, batch=2)
    torch.testing.assert_close(change, change[:1].expand_as(change))


def test_it_sees_where_something_moves(encoder):
    frames = torch.randn(1, 1, 8, 32, 32).repeat(1, 2, 1, 1, 1)
    frames[0, 1, :, :4, :4] = torch.randn(8, 1, 1)
    change, _, _ = encoder(frames.flatten(0, 1), batch=1)
    moved = (change[1] - change[0]).abs().amax(0) > 1e-6  # (16, 16)
    assert moved[:2, :2].any() and not moved[8:, 8:].any()


def test_the_first_frame_of_a_stream_has_no_past_whatever_its_memory_holds(encoder):
    frames = torch.randn(2, 8, 8, 8)
    garbage = torch.full((1, 4, 8, 8), 7.0) * torch.rand(1, 4, 1, 1)
    fresh, _, _ = encoder(frames, batch=1)
    begun, _, _ = encoder(frames, batch=1, previous=garbage, has_previous=torch.tensor([False]))
    torch.testing.assert_close(fresh, begun)
    carried, _, _ = encoder(frames, batch=1, previous=garbage, has_previous=torch.tensor([True]))
    assert not torch.allclose(fresh[0], carried[0])


@pytest.mark.parametrize(("down", "across"), [(0, 0), (2, -2), (-2, 2)])
def test_the_strongest_displacement_is_where_things_came_from(down, across):
    before = torch.randn(1, 16, 24, 24)
    now = before.roll((down, across), dims=(2, 3))
    # A coarse cell is the mean of four fine ones, so let the four be alike.
    before, now = (frame[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2) for frame in (before, now))
    inner = displacements(now, before, REACH)[0, :, 3:-3, 3:-3]  # (49, 6, 6)
    best = inner.amax(0)
    came_from = inner[(REACH - down) * SIDE + REACH - across]
    torch.testing.assert_close(came_from, best)
    torch.testing.assert_close(best, torch.ones_like(best))


def test_displacements_equal_a_loop_in_float64():
    now, before = torch.randn(2, 2, 5, 8, 6, dtype=torch.float64).unbind(0)
    got = displacements(now, before, REACH)
    unit = [frame / frame.norm(dim=1, keepdim=True) for frame in (now, before)]
    for y in range(4):
        for x in range(3):
            query = unit[0][:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((2, 3))
            for row in range(-REACH, REACH + 1):
                for column in range(-REACH, REACH + 1):
                    v, u = 2 * y + row, 2 * x + column
                    inside = 0 <= v < 8 and 0 <= u < 6
                    wanted = (query * unit[1][:, :, v, u]).sum(1) if inside else torch.zeros(2, dtype=torch.float64)
                    torch.testing.assert_close(got[:, (row + REACH) * SIDE + column + REACH, y, x], wanted)
