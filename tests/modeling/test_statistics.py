"""Region statistics: their values, whose cells count, and that the model says the same as clip, stream and region."""

import numpy as np
import pytest
import torch
from kinetrack.modeling.statistics_kinetrack import region_statistics, window_statistics


def maps_and_weights():
    maps = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    weights = torch.zeros(2, 3, 4, 6, dtype=torch.float64)
    weights[:, 0] = 1.0
    weights[:, 1, 1:3, 2:5] = torch.rand(2, 2, 3, dtype=torch.float64)
    return maps, weights


def test_values_are_those_of_a_weighted_sample():
    maps, weights = maps_and_weights()
    mean, spread, highest = region_statistics(maps, weights)[1, 1].numpy().reshape(3, 5)
    cells, share = maps[1].flatten(1).numpy(), weights[1, 1].flatten().numpy()
    expected = np.average(cells, axis=1, weights=share)
    np.testing.assert_allclose(mean, expected)
    variance = np.average((cells - expected[:, None]) ** 2, axis=1, weights=share)
    np.testing.assert_allclose(spread, np.sqrt(variance + 0.01))
    np.testing.assert_allclose(highest, np.log(np.average(np.exp(cells), axis=1, weights=share)))


def test_cells_outside_do_not_count_and_nobody_is_zero():
    maps, weights = maps_and_weights()
    found = region_statistics(maps, weights)
    changed = torch.where(weights[:, 1:2] > 0, maps, 5 * maps + 7)
    torch.testing.assert_close(region_statistics(changed, weights)[:, 1], found[:, 1])
    assert found[:, 1].all() and not found[:, 2].any()


def test_large_features_stay_finite():
    found = region_statistics(torch.full((1, 1, 2, 2), 1e4), torch.ones(1, 1, 2, 2))
    assert found.isfinite().all()
    assert region_statistics(torch.full((1, 1, 2, 2), -1e4), torch.ones(1, 1, 2, 2)).isfinite().all()


@pytest.fixture
def model(make_model):
    return make_model(attention_window=4, keypoints=[])


def test_the_classifier_reads_how_statistics_go_through_the_window(model, make_clip):
    base = model.kinetrack(make_clip(frames=6))
    size = model.config.hidden_size
    cells = base.cell_features[0, -4:]  # (4, S, h, w)
    values = region_statistics(cells, torch.ones_like(cells[:, :1]))[:, 0]
    expected = window_statistics(values[None], torch.ones(1, 4, dtype=torch.bool))[0]
    torch.testing.assert_close(base.pooler_output[0, size:], expected)


def test_windows_have_mean_deviation_and_step():
    rng = np.random.default_rng(0)
    values, seen = rng.normal(size=(2, 5, 3)), np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1]], bool)
    found = window_statistics(torch.from_numpy(values), torch.from_numpy(seen)).numpy()
    for rows, there, one in zip(values, seen, found, strict=True):
        steps = np.abs(np.diff(rows, axis=0))[there[1:] & there[:-1]]
        np.testing.assert_allclose(one, np.concatenate([rows[there].mean(0), rows[there].std(0), steps.mean(0)]))


def test_a_window_of_one_frame_does_not_move_and_an_empty_one_is_nothing():
    values = torch.randn(2, 4, 3)
    seen = torch.tensor([[False, False, False, True], [False] * 4])
    found = window_statistics(values * seen.unsqueeze(2), seen)
    torch.testing.assert_close(found[0, :3], values[0, 3])
    assert not found[0, 3:].any() and not found[1].any()


def test_a_frame_like_the_last_has_no_change(model, make_clip):
    clip = make_clip(frames=2)
    cells = model.kinetrack(torch.cat([clip[:, :1], clip[:, :1], clip[:, 1:]], 1)).cell_features[0]
    change = cells[:, model.config.statistics_channels :]
    assert not change[0].any() and not change[1].any() and change[2].any()


def test_statistics_teach_the_classifier_alone(model, make_clip):
    boxes = torch.tensor([8.0, 8.0, 60.0, 60.0]).expand(1, 6, 4)
    model.train()(make_clip(), labels=torch.tensor([1]), region_boxes=boxes).loss_terms["movement"].backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {"action_head.movement_classifier.weight", "action_head.movement_classifier.bias"}


def test_r_alone_is_told_by_its_look(model, make_clip):
    summary = model.kinetrack(make_clip()).pooler_output
    look = model.action_head(summary[..., : model.config.hidden_size])[0]
    both, _ = model.action_head(summary)
    torch.testing.assert_close(both, look + model.action_head.classify_movement(summary))


def test_regions_need_cell_features_exactly_where_the_model_has_statistics(model, make_model):
    features, boxes = torch.zeros(1, 8, 4, 6, dtype=torch.float64), torch.tensor([[[8.0, 8.0, 60.0, 60.0]]])
    with pytest.raises(ValueError, match="its `cell_features`"):
        model.attend_regions(features, boxes)
    with pytest.raises(ValueError, match="no `cell_features`"):
        make_model(keypoints=[], statistics_channels=0).attend_regions(features, boxes, cell_features=features)


def test_a_region_counts_by_its_share_of_the_last_map(model, make_clip):
    base = model.kinetrack(make_clip(frames=1))
    features, cells = base.last_hidden_state[:, 0], base.cell_features[:, 0]  # cells of 64 x 96 pixels: (1, S, 2, 3)
    boxes = torch.tensor([[[0.0, 0.0, 48.0, 32.0]]])  # the first cell and half of the second
    _, pooled = model.attend_regions(features, boxes, cell_features=cells)
    shares = torch.tensor([[[[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(pooled[..., model.config.hidden_size :], region_statistics(cells, shares))


def test_statistics_channels_that_the_backbone_does_not_have_are_refused(make_model):
    with pytest.raises(ValueError, match="those of the backbone's last map, 16, got 7"):
        make_model(statistics_channels=7, attention_window=4, keypoints=[])
