"""Movement: what a window of poses says, and that neither place, size, padding nor the gaps in it say anything."""

import pytest
import torch
from kinetrack.modeling.pose_kinetrack import PoseEncoder, pose_features

WINDOW = 6


@pytest.fixture
def encoder(make_config, scatter):
    return scatter(PoseEncoder(make_config(attention_window=WINDOW, pose_channels=5))).double().eval()


@pytest.fixture
def poses():
    return torch.rand(2, WINDOW, 9, dtype=torch.float64) * 50 + 20


ALL = torch.ones(2, WINDOW, dtype=torch.bool)


def moved(poses, scale=1.0, shift=0.0):
    points = poses.unflatten(-1, (3, 3)).clone()
    points[..., :2] = points[..., :2] * scale + shift
    return points.flatten(2)


def test_neither_place_nor_size_counts(encoder, poses):
    torch.testing.assert_close(encoder(moved(poses, 2.5, -40.0), ALL), encoder(poses, ALL))


def test_movement_and_order_count(encoder, poses):
    still = poses[:, :1].expand_as(poses)
    assert not torch.allclose(encoder(still, ALL), encoder(poses, ALL))
    assert not torch.allclose(encoder(poses.flip(1), ALL), encoder(poses, ALL))


def test_what_was_not_seen_does_not_count(encoder, poses):
    seen = ALL.clone()
    seen[0, 2], seen[1, :3] = False, False
    garbage = torch.where(seen[..., None], poses, torch.full_like(poses, 1e4))
    torch.testing.assert_close(encoder(garbage, seen), encoder(torch.where(seen[..., None], poses, 0.0), seen))


def test_a_short_past_is_the_same_in_a_long_window(encoder, poses):
    padded = torch.cat([torch.zeros_like(poses), poses], 1)
    seen = torch.cat([~ALL, ALL], 1)
    torch.testing.assert_close(encoder(padded, seen), encoder(poses, ALL))


def test_somebody_who_was_never_there_does_not_move(encoder, poses):
    found = encoder(poses, ~ALL)
    assert found.shape == (2, 10) and not found.any()


def test_a_change_over_a_gap_is_not_made_up(poses):
    mask = torch.ones(2, WINDOW, 1, dtype=torch.float64)
    mask[:, 2] = 0
    features = pose_features(poses.unflatten(-1, (3, 3)), mask).unflatten(-1, (7, 3))
    assert not features[:, 2].any() and not features[:, 3, 2:4].any()
    assert features[:, 4, 2:4].all()


@pytest.fixture
def model(make_model):
    return make_model(attention_window=WINDOW)


def test_a_stream_says_what_the_clip_says(model, make_clip):
    clip = make_clip(batch=2, frames=9)
    whole, state = model(clip), None
    for moment in range(9):
        step = model(clip[:, moment : moment + 1], state=state)
        state = step.state
    torch.testing.assert_close(step.logits, whole.logits)
    torch.testing.assert_close(state.features, whole.state.features)


def test_a_box_over_the_whole_frame_is_no_box(model, make_clip):
    boxes = torch.tensor([0.0, 0.0, 96.0, 64.0]).expand(1, 4, 4)
    output = model(make_clip(frames=4), region_boxes=boxes)
    torch.testing.assert_close(output.region_logits, output.logits)


def test_actions_read_keypoints_but_teach_none(model, make_clip):
    clip, boxes = make_clip(), torch.tensor([8.0, 8.0, 60.0, 60.0]).expand(1, 6, 4)
    model.train()
    terms = model(clip, labels=torch.tensor([1]), region_boxes=boxes).loss_terms
    sum(terms.values()).backward()
    assert terms["movement"] > 0
    assert all(parameter.grad is None for parameter in model.kinetrack.keypoint_head.parameters())
    assert all(p.grad.any() for p in model.kinetrack.attention.pose_encoder.parameters())
    model.eval()
    before = model(clip).logits
    with torch.no_grad():
        model.kinetrack.keypoint_head.maps.weight += 3 * torch.randn_like(model.kinetrack.keypoint_head.maps.weight)
    assert not torch.allclose(model(clip).logits, before)


def test_keypoints_are_learned_through_the_model(model, make_clip):
    points = torch.tensor([[[36.0, 12.0, 1.0], [20.0, 52.0, 1.0], [0.0, 0.0, 0.0]]])
    frame = {"boxes": torch.tensor([[16.0, 8.0, 56.0, 56.0]]), "class_labels": torch.tensor([0]), "keypoints": points}
    term = model.train()(make_clip(frames=2), frame_labels=[[frame, None]]).loss_terms["keypoint"]
    term.backward()
    assert model.kinetrack.keypoint_head.maps.weight.grad.abs().sum() > 0
    assert model.kinetrack.encoder.smooth_pyramid.pointwise.weight.grad.abs().sum() > 0


def test_regions_need_keypoint_maps_exactly_where_the_model_has_keypoints(model, make_model):
    features, boxes = torch.zeros(1, 8, 4, 6, dtype=torch.float64), torch.tensor([[[8.0, 8.0, 60.0, 60.0]]])
    with pytest.raises(ValueError, match="keypoint_logits"):
        model.attend_regions(features, boxes)
    with pytest.raises(ValueError, match="keypoint_logits"):
        make_model(keypoints=[]).attend_regions(features, boxes, None, torch.zeros(1, 3, 8, 12))


def test_weights_that_are_kept_elsewhere_are_fetched(make_model, make_clip):
    from accelerate import cpu_offload

    model, clip = make_model(attention_window=4), make_clip(frames=4)
    with torch.no_grad():
        expected = model(clip).logits
        cpu_offload(model, execution_device=torch.device("cpu"))
        assert torch.equal(model(clip).logits, expected)
