"""Keypoint maps: what they are taught, where they are taught nothing, and who may teach them."""

import pytest
import torch
from kinetrack.modeling.keypoints_kinetrack import keypoint_loss, keypoint_targets

STRIDE, HEIGHT, WIDTH = 8, 8, 12
VALID = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)


def person(*points, box=(16.0, 8.0, 56.0, 56.0)):
    return {"boxes": torch.tensor([box]), "keypoints": torch.tensor([points])}


def targets(frame, valid=VALID):
    return keypoint_targets(frame, 3, HEIGHT, WIDTH, STRIDE, valid)


HEAD, LEFT, RIGHT = (36.0, 12.0, 1.0), (20.0, 52.0, 1.0), (0.0, 0.0, 0.0)


def test_a_keypoint_is_one_in_its_cell_and_fades_around_it():
    heatmap = targets(person(HEAD, LEFT, RIGHT)).heatmap.unflatten(1, (HEIGHT, WIDTH))
    assert heatmap[0, 1, 4] == 1 and heatmap[1, 6, 2] == 1
    assert 0 < heatmap[0, 1, 5] < 1
    assert heatmap[0, 7, 11] < 1e-3


def test_an_unknown_keypoint_teaches_nothing():
    found = targets(person(HEAD, LEFT, RIGHT))
    assert not found.positive_weight[2].any() and not found.negative_weight[2].any()


def test_nothing_is_learned_away_from_the_person():
    negative = targets(person(HEAD, LEFT, RIGHT)).negative_weight.unflatten(1, (HEIGHT, WIDTH))
    assert negative[0, 3, 4] == 1 and not negative[:, :, 9:].any()


def test_nothing_is_learned_in_padding():
    valid = VALID.clone()
    valid[:, 4:] = False
    assert not targets(person(HEAD, LEFT, RIGHT), valid).negative_weight.unflatten(1, (HEIGHT, WIDTH))[..., 4:].any()


def test_a_box_without_keypoints_teaches_nothing():
    found = targets(person(RIGHT, RIGHT, RIGHT))
    assert not found.heatmap.any() and not found.negative_weight.any()


def test_another_number_of_keypoints_is_refused():
    with pytest.raises(ValueError, match=r"must be \(n, 3, 3\).*\(1, 1, 3\)"):
        targets(person(HEAD))


def test_the_loss_falls_as_the_maps_get_right(make_config):
    config, frame = make_config(), person(HEAD, LEFT, RIGHT)
    heatmap = targets(frame).heatmap.unflatten(1, (HEIGHT, WIDTH))
    right = (heatmap.clamp(1e-3, 1 - 1e-3)).logit()[None, None]
    losses = [
        keypoint_loss(config, logits, [[frame]], VALID[None]) for logits in (torch.zeros_like(right), right, -right)
    ]
    assert losses[1] < losses[0] < losses[2]


def test_frames_without_keypoints_switch_the_term_off(make_config):
    logits = torch.zeros(1, 2, 3, HEIGHT, WIDTH)
    without = {"boxes": torch.zeros(0, 4)}
    assert keypoint_loss(make_config(), logits, [[None, without]], VALID[None]) is None


def test_actions_teach_no_keypoints_but_read_them(make_model, make_clip):
    model = make_model().train()
    loss = model(make_clip(), labels=torch.tensor([1])).loss
    loss.backward()
    assert all(parameter.grad is None for parameter in model.kinetrack.keypoint_head.parameters())
    model.eval()
    clip = make_clip()
    before = model(clip).logits
    with torch.no_grad():
        model.kinetrack.keypoint_head.heatmap.bias += 3
    assert not torch.allclose(model(clip).logits, before)


def test_keypoints_are_learned_through_the_model(make_model, make_clip):
    model = make_model().train()
    frame = person(HEAD, LEFT, RIGHT) | {"class_labels": torch.tensor([0])}
    output = model(make_clip(frames=2), frame_labels=[[frame, None]])
    assert output.loss_terms["keypoint"] > 0
    output.loss_terms["keypoint"].backward()
    assert model.kinetrack.keypoint_head.heatmap.weight.grad.abs().sum() > 0
