"""Keypoints: where they are found, what teaches them, and who may."""

import pytest
import torch
from kinetrack.modeling.keypoints_kinetrack import KeypointHead, keypoint_loss, locate_keypoints

STRIDE, HEIGHT, WIDTH = 8, 8, 12
HEAD, LEFT, UNKNOWN = (36.0, 12.0, 1.0), (20.0, 52.0, 1.0), (0.0, 0.0, 0.0)
BOX = (16.0, 8.0, 56.0, 56.0)


def person(*points, box=BOX):
    return {"boxes": torch.tensor([box]), "keypoints": torch.tensor([points])}


def peaks(*cells):
    """Maps (1, K, H, W) with one high cell each, given as (row, column)."""
    maps = torch.zeros(1, len(cells), HEIGHT, WIDTH)
    for number, (row, column) in enumerate(cells):
        maps[0, number, row, column] = 20.0
    return maps


def loss(config, maps, frame, valid=None):
    valid = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool) if valid is None else valid
    return keypoint_loss(config, maps[:, None], [[frame]], valid)


def test_a_keypoint_lies_in_the_middle_of_its_cell():
    found = locate_keypoints(peaks((1, 4), (6, 2)), torch.ones(1, 1, HEIGHT, WIDTH), STRIDE)[0, 0]
    torch.testing.assert_close(found, torch.tensor([[36.0, 12.0, 1.0], [20.0, 52.0, 1.0]]), rtol=1e-4, atol=1e-4)


def test_each_person_has_keypoints_of_their_own():
    maps, weight = peaks((1, 4)) + peaks((1, 10)), torch.zeros(1, 2, HEIGHT, WIDTH)
    weight[0, 0, :, :6] = weight[0, 1, :, 6:] = 1
    found = locate_keypoints(maps, weight, STRIDE)[0, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor([36.0, 84.0]), rtol=1e-4, atol=1e-4)


def test_what_could_be_anywhere_is_hardly_concentrated():
    found = locate_keypoints(torch.zeros(1, 1, HEIGHT, WIDTH), torch.ones(1, 1, HEIGHT, WIDTH), STRIDE)[0, 0, 0]
    torch.testing.assert_close(found, torch.tensor([48.0, 32.0, 1 / (HEIGHT * WIDTH)]))


def test_nobody_has_no_keypoints():
    assert not locate_keypoints(peaks((1, 4)), torch.zeros(1, 1, HEIGHT, WIDTH), STRIDE).any()


def test_a_low_map_in_a_box_is_no_division_by_zero():
    maps, weight = peaks((1, 10)) * 20, torch.zeros(1, 1, HEIGHT, WIDTH)
    weight[..., :6] = 1
    found = locate_keypoints(maps, weight, STRIDE)
    assert found.isfinite().all() and 0 < found[0, 0, 0, 0] < 48


def test_the_loss_falls_as_the_maps_get_right(make_config):
    config, frame = make_config(attention_window=4), person(HEAD, LEFT, UNKNOWN)
    right, wrong = (0.15 * peaks(*cells, (0, 0)) for cells in (((1, 4), (6, 2)), ((6, 2), (1, 4))))
    losses = [loss(config, maps, frame) for maps in (torch.zeros_like(right), right, wrong)]
    assert losses[1] < losses[0] < losses[2]


def test_an_unknown_keypoint_teaches_nothing(make_config):
    maps = torch.zeros(1, 3, HEIGHT, WIDTH, requires_grad=True)
    loss(make_config(attention_window=4), maps, person(HEAD, LEFT, UNKNOWN)).backward()
    assert maps.grad[0, :2].any() and not maps.grad[0, 2].any()


@pytest.mark.parametrize(("people", "far_away"), [(1, True), (2, False)])
def test_only_somebody_who_is_alone_is_looked_for_in_the_whole_frame(make_config, people, far_away):
    maps = torch.zeros(1, 3, HEIGHT, WIDTH, requires_grad=True)
    frame = {"boxes": torch.tensor([BOX] * people), "keypoints": torch.tensor([[HEAD, LEFT, UNKNOWN]] * people)}
    loss(make_config(attention_window=4), maps, frame).backward()
    assert bool(maps.grad[..., 9:].abs().max() > 1e-4) == far_away


def test_nothing_is_learned_in_padding(make_config):
    maps = torch.zeros(1, 3, HEIGHT, WIDTH, requires_grad=True)
    valid = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    valid[..., 5:] = False
    loss(make_config(attention_window=4), maps, person(HEAD, LEFT, UNKNOWN), valid).backward()
    assert maps.grad[..., :5].any()
    torch.testing.assert_close(maps.grad[..., 5:], torch.zeros_like(maps.grad[..., 5:]), rtol=0, atol=1e-6)


def test_another_number_of_keypoints_is_refused(make_config):
    with pytest.raises(ValueError, match=r"must be \(n, 3, 3\).*\(1, 1, 3\)"):
        loss(make_config(attention_window=4), peaks((0, 0), (0, 0), (0, 0)), person(HEAD))


def test_frames_without_keypoints_switch_the_term_off(make_config):
    config, maps = make_config(attention_window=4), peaks((0, 0), (0, 0), (0, 0))
    assert loss(config, maps, None) is None
    assert loss(config, maps, {"boxes": torch.zeros(0, 4)}) is None
    assert loss(config, maps, person(UNKNOWN, UNKNOWN, UNKNOWN)) is None


def test_a_head_learns_to_find_a_point(make_config):
    config = make_config(attention_window=4, keypoint_channels=8)
    torch.manual_seed(0)
    head, pyramid = KeypointHead(config), torch.randn(1, 8, HEIGHT, WIDTH)
    optimizer = torch.optim.Adam(head.parameters(), 0.02)
    for _ in range(100):
        value = loss(config, head(pyramid), person(HEAD, LEFT, UNKNOWN))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    found = locate_keypoints(head(pyramid), torch.ones(1, 1, HEIGHT, WIDTH), STRIDE)[0, 0, :2, :2]
    assert (found - torch.tensor([HEAD[:2], LEFT[:2]])).norm(dim=-1).max() < STRIDE
