"""Hierarchical attention: over space, over time, and within regions."""

import math

import pytest
import torch
from kinetrack.modeling.attention_kinetrack import (
    AttentionMemory,
    HierarchicalAttention,
    cell_overlap,
    masked_softmax,
    relative_entropy,
)
from kinetrack.modeling.modeling_kinetrack import KineTrackModel

STRIDE = 16


@pytest.fixture
def model(make_model):
    return make_model(KineTrackModel)


def region_weights(model, features, boxes, pixel_mask=None):
    """alpha (B, R, H, W), f (B, R, D) and score (B, R) within boxes (B, R, 4) of features (B, D, H, W)."""
    height, width = (side * STRIDE for side in features.shape[-2:])
    overlap = model.region_overlap(pixel_mask, boxes, len(features), height, width, features.device)
    overlap = overlap.to(features.dtype)
    return model.attention.attend_space(features.permute(0, 2, 3, 1), overlap)


def rectangle_mask(height, width, valid_height, valid_width):
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, :valid_height, :valid_width] = True
    return mask


def test_cell_overlap_equals_counting_subpixels():
    box = torch.tensor([5.25, 17.5, 40.75, 33.0], dtype=torch.float64)
    overlap = cell_overlap(box, 3, 4, STRIDE)
    counted = torch.zeros(3, 4, dtype=torch.float64)
    centers = (torch.arange(4 * STRIDE * 4, dtype=torch.float64) + 0.5) / 4  # four samples a pixel: exact on quarters
    inside_x = (centers > box[0]) & (centers < box[2])
    inside_y = (centers > box[1]) & (centers < box[3])
    for i in range(3):
        for j in range(4):
            rows = inside_y[i * STRIDE * 4 : (i + 1) * STRIDE * 4].sum()
            columns = inside_x[j * STRIDE * 4 : (j + 1) * STRIDE * 4].sum()
            counted[i, j] = rows * columns / (STRIDE * 4) ** 2
    torch.testing.assert_close(overlap, counted, rtol=0, atol=1e-12)


def test_whole_frame_attention_equals_equations_3_and_4(model):
    features = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        alpha, pooled, score = region_weights(model, features, None)
    w_s = model.attention.spatial_projection.weight[0].detach()
    w_tau = model.attention.temporal_projection.weight[0].detach()
    for b in range(2):
        powers = [[math.exp(float(w_s @ features[b, :, i, j])) for j in range(4)] for i in range(3)]
        total = sum(map(sum, powers))
        f = torch.zeros(8, dtype=torch.float64)
        for i in range(3):
            for j in range(4):
                assert alpha[b, 0, i, j].item() == pytest.approx(powers[i][j] / total, rel=1e-9)
                f += powers[i][j] / total * features[b, :, i, j]
        torch.testing.assert_close(pooled[b, 0], f)
        assert score[b, 0].item() == pytest.approx(float(w_tau @ f), rel=1e-9)


@pytest.mark.parametrize("spatial", [True, False])
@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("window", [None, 3, 16])
def test_alpha_and_beta_sum_to_one(make_model, make_clip, spatial, temporal, window):
    model = make_model(KineTrackModel, spatial_attention=spatial, temporal_attention=temporal, attention_window=window)
    frame_mask = torch.tensor([[True] * 6, [True, True] + [False] * 4])
    pixel_mask = torch.cat([rectangle_mask(64, 96, 64, 96), rectangle_mask(64, 96, 50, 72)])
    with torch.no_grad():
        output = model(make_clip(2, 6), frame_mask, pixel_mask)
        continued = model(make_clip(2, 3), None, pixel_mask, output.state)
    for result in (output, continued):
        alpha, beta = result.spatial_attention, result.temporal_attention
        torch.testing.assert_close(alpha.sum((-2, -1)), torch.ones(alpha.shape[:2], dtype=alpha.dtype))
        torch.testing.assert_close(beta.sum(-1), torch.ones(2, dtype=beta.dtype))
        assert (alpha >= 0).all() and (beta >= 0).all()
    assert (output.temporal_attention[1, 2:] == 0).all()
    alpha = output.spatial_attention[1]
    assert (alpha[:, :, 5:] == 0).all()  # 72 pixels reach into the fifth column and no further
    assert (alpha[:, 3, :5] > 0).all()  # 50 pixels reach into the fourth row


def test_switched_off_levels_are_uniform(make_model, make_clip):
    model = make_model(KineTrackModel, spatial_attention=False, temporal_attention=False)
    with torch.no_grad():
        output = model(make_clip(1, 5))
    alpha, beta = output.spatial_attention, output.temporal_attention
    torch.testing.assert_close(alpha, torch.full_like(alpha, 1 / (4 * 6)))
    torch.testing.assert_close(beta, torch.full_like(beta, 1 / 5))
    mean = output.last_hidden_state.mean((1, 3, 4))
    torch.testing.assert_close(output.pooler_output, mean)


def test_with_attention_on_the_weights_are_not_uniform(make_model, make_clip):
    with torch.no_grad():
        output = make_model(KineTrackModel)(make_clip(1, 5))
    assert relative_entropy(output.spatial_attention.flatten(2)[0], torch.ones(5, 24)).max() < 0.99
    assert output.temporal_attention.std() > 1e-3


def test_features_without_overlap_change_nothing(model):
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    boxes = torch.tensor([[[20.0, 18.0, 50.0, 47.0], [0.0, 0.0, 16.0, 16.0]]])
    before = region_weights(model, features, boxes)
    changed = features.clone()
    changed[:, :, 3, :] = 1e4  # below both boxes
    changed[:, :, :, 4:] = -1e4  # right of both
    changed[:, :, 0, 1:] = 77  # the second box ends exactly where this begins
    after = region_weights(model, changed, boxes)
    for then, now in zip(before, after, strict=True):
        assert torch.equal(then, now)
    changed[:, :, 1, 2] += 1
    assert not torch.equal(region_weights(model, changed, boxes)[1][:, 0], before[1][:, 0])


@pytest.mark.parametrize("side", [8.0, 1.0, 1e-3])
def test_box_smaller_than_a_cell_sees_that_cell(model, side):
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    box = torch.tensor([[[35.0, 20.0, 35.0 + side, 20.0 + side]]], dtype=torch.float64)
    alpha, pooled, score = region_weights(model, features, box)
    assert alpha[0, 0, 1, 2] == 1
    assert alpha.sum() == 1
    torch.testing.assert_close(pooled[0, 0], features[0, :, 1, 2])
    assert score.isfinite().all()


def test_small_box_across_two_cells_weighs_them_by_overlap(make_model):
    model = make_model(KineTrackModel, spatial_attention=False)
    features = torch.randn(1, 8, 2, 2, dtype=torch.float64)
    alpha, _, _ = region_weights(model, features, torch.tensor([[[13.0, 2.0, 17.0, 4.0]]]))
    torch.testing.assert_close(alpha[0, 0], torch.tensor([[0.75, 0.25], [0, 0]], dtype=torch.float64))


@pytest.mark.parametrize(("height", "width"), [(64, 96), (64, 80), (50, 72), (41, 33), (5, 7)])
def test_box_over_the_valid_area_equals_no_region(model, height, width):
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    mask = rectangle_mask(64, 96, height, width)
    exact = torch.tensor([[[0.0, 0.0, width, height]]])
    larger = torch.tensor([[[-100.0, -3.0, width + 0.5, 1e4]]])  # amodal boxes reach beyond the frame
    whole = region_weights(model, features, None, mask)
    for boxes in (exact, larger):
        for wanted, got in zip(whole, region_weights(model, features, boxes, mask), strict=True):
            assert torch.equal(wanted, got)


def test_box_over_the_whole_unmasked_canvas_equals_no_region(model):
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    whole = region_weights(model, features, None)
    for wanted, got in zip(whole, region_weights(model, features, torch.tensor([[[0.0, 0, 96, 64]]])), strict=True):
        assert torch.equal(wanted, got)


OUTSIDE = {
    "left": [-50.0, 10.0, -5.0, 30.0],
    "below the valid area": [10.0, 51.0, 30.0, 63.0],
    "right of the valid area, same cell": [73.0, 10.0, 79.0, 30.0],
    "touching": [72.0, 0.0, 90.0, 30.0],
    "far": [1e6, 1e6, 2e6, 2e6],
    "empty": [20.0, 20.0, 20.0, 40.0],
    "inverted": [40.0, 40.0, 20.0, 20.0],
    "not a number": [float("nan")] * 4,
    "infinite": [0.0, 0.0, float("inf"), float("inf")],
}


@pytest.mark.parametrize("where", OUTSIDE)
def test_box_outside_is_masked_out(model, where):
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[OUTSIDE[where], [10.0, 10.0, 40.0, 40.0]]])
    alpha, pooled, scores = region_weights(model, features, boxes, rectangle_mask(64, 96, 50, 72))
    assert scores[0, 0] == float("-inf") and scores[0, 1].isfinite()
    assert (alpha[0, 0] == 0).all() and (pooled[0, 0] == 0).all()
    beta, summary, _ = model.attention.attend_time(scores, pooled)  # the two regions as two frames of one tube
    assert beta.tolist() == [[0.0, 1.0]]
    torch.testing.assert_close(summary, pooled[:, 1])
    summary.sum().backward()
    assert features.grad.isfinite().all()


def test_tube_that_is_nowhere_in_view_gives_zeros_and_finite_gradients(model):
    for window in (None, 4):
        model.attention.window = window
        features = torch.randn(3, 8, 4, 6, dtype=torch.float64, requires_grad=True)
        boxes = torch.full((3, 1, 4), float("nan"))
        _, pooled, scores = region_weights(model, features, boxes)
        beta, summary, _ = model.attention.attend_time(scores.view(1, 3), pooled.view(1, 3, 8))
        assert (beta == 0).all() and (summary == 0).all()
        summary.sum().backward()
        assert features.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.attention.parameters())


def test_regions_of_one_call_do_not_see_each_other(model):
    features = torch.randn(1, 8, 4, 6, dtype=torch.float64)
    boxes = torch.tensor([[[0.0, 0, 30, 30], [20.0, 20, 60, 60], [70.0, 3, 90, 50]]])
    together = region_weights(model, features, boxes)
    for index in range(3):
        alone = region_weights(model, features, boxes[:, index : index + 1])
        for many, one in zip(together, alone, strict=True):
            torch.testing.assert_close(many[:, index], one[:, 0], rtol=1e-12, atol=1e-14)


def test_attend_regions_on_a_stream_equals_region_logits_of_the_clip(make_model, make_clip):
    model = make_model()
    clip = make_clip(1, 5)
    boxes = torch.tensor([[[0.0, 0, 40, 40], [5.0, 2, 45, 42], [float("nan")] * 4, [15.0, 6, 55, 46], [1.0, 1, 9, 9]]])
    with torch.no_grad():
        wanted = model(clip, region_boxes=boxes).region_logits
        state, scores, pooled = None, [], []
        for t in range(5):
            output = model(clip[:, t : t + 1], state=state)
            state = output.state
            score, f = model.attend_regions(output.last_hidden_state[:, 0], boxes[:, t : t + 1])
            scores.append(score)
            pooled.append(f)
        _, summary, _ = model.kinetrack.attention.attend_time(torch.cat(scores, 1), torch.cat(pooled, 1))
        torch.testing.assert_close(model.action_head(summary)[0], wanted, rtol=1e-9, atol=1e-12)


def test_region_over_every_frame_gives_the_clips_logits(make_model, make_clip):
    for window in (None, 3):
        model = make_model(attention_window=window)
        mask = rectangle_mask(64, 96, 50, 72)
        boxes = torch.tensor([0.0, 0, 72, 50]).expand(1, 5, 4)
        with torch.no_grad():
            output = model(make_clip(1, 5), pixel_mask=mask, region_boxes=boxes)
        torch.testing.assert_close(output.region_logits, output.logits, rtol=1e-12, atol=1e-14)


def naive_window(scores, pooled, window):
    """Eq. 5 from the last frame: (beta, R) of one sample, plain Python softmax over the last `window` frames."""
    start = 0 if window is None else max(0, len(scores) - window)
    powers = [0.0 if t < start else math.exp(float(scores[t])) for t in range(len(scores))]
    total = sum(powers)
    beta = (
        torch.tensor([p / total for p in powers], dtype=torch.float64) if total else torch.zeros(len(scores)).double()
    )
    return beta, (beta[:, None] * pooled).sum(0)


@pytest.mark.parametrize("window", [None, 1, 4, 7, 30])
@pytest.mark.parametrize("split", [[9], [1] * 9, [4, 5], [1, 6, 2]], ids=str)
def test_temporal_attention_of_any_split_equals_naive_softmax_over_the_window(make_config, window, split):
    attention = HierarchicalAttention(make_config(attention_window=window, keypoints=[], statistics_channels=0))
    scores, pooled = 3 * torch.randn(2, 9, dtype=torch.float64), torch.randn(2, 9, 8, dtype=torch.float64)
    scores[0, 2] = float("-inf")  # a frame in which the region was not there
    memory, seen = None, 0
    for part_scores, part_pooled in zip(scores.split(split, 1), pooled.split(split, 1), strict=True):
        beta, summary, memory = attention.attend_time(part_scores, part_pooled, None, memory)
        seen += part_scores.shape[1]
        for row in range(2):
            wanted, representation = naive_window(scores[row, :seen], pooled[row, :seen], window)
            torch.testing.assert_close(summary[row], representation, rtol=1e-9, atol=1e-12)
            if window is not None or seen == part_scores.shape[1]:
                count = min(seen, beta.shape[1])
                torch.testing.assert_close(beta[row, -count:], wanted[-count:], rtol=1e-9, atol=1e-12)
        assert memory.scores.shape == (2, window or 1)  # the memory does not grow


@pytest.mark.parametrize("window", [None, 1, 3, 20])
def test_masked_frames_do_not_enter_temporal_attention_nor_its_memory(make_config, window):
    attention = HierarchicalAttention(make_config(attention_window=window, keypoints=[], statistics_channels=0))
    scores, pooled = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 6, 8, dtype=torch.float64)
    lengths = [6, 4, 1]
    frame_mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    beta, summary, memory = attention.attend_time(scores, pooled, frame_mask)
    for row, length in enumerate(lengths):
        alone = attention.attend_time(scores[row : row + 1, :length], pooled[row : row + 1, :length])
        torch.testing.assert_close(beta[row, :length], alone[0][0])
        assert (beta[row, length:] == 0).all()
        torch.testing.assert_close(summary[row], alone[1][0])
        torch.testing.assert_close(memory.scores[row], alone[2].scores[0])
        torch.testing.assert_close(memory.features[row], alone[2].features[0])


def test_running_softmax_is_exact_over_a_thousand_frames_of_large_scores(make_config):
    attention = HierarchicalAttention(make_config(attention_window=None))
    scores = 200 * torch.randn(1, 1000, dtype=torch.float64)  # exp() of these overflows
    pooled = torch.randn(1, 1000, 8, dtype=torch.float64)
    memory: AttentionMemory | None = None
    for t in range(1000):
        _, summary, memory = attention.attend_time(scores[:, t : t + 1], pooled[:, t : t + 1], None, memory)
    wanted = (scores.softmax(1).unsqueeze(1) @ pooled).squeeze(1)
    torch.testing.assert_close(summary, wanted, rtol=1e-9, atol=1e-12)


def test_masked_softmax_is_zero_with_zero_gradient_where_nothing_is_valid():
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, float("-inf")]], requires_grad=True)
    mask = torch.tensor([[False, False, False], [True, True, False]])
    weights = masked_softmax(logits, mask, dim=1)
    assert weights[0].tolist() == [0, 0, 0]
    torch.testing.assert_close(weights[1, :2], torch.tensor([4.0, 5.0]).softmax(0))
    weights.square().sum().backward()
    assert logits.grad[0].tolist() == [0, 0, 0]
    assert logits.grad.isfinite().all()


def test_relative_entropy_is_one_when_uniform_and_zero_when_certain():
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0, 1, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]])
    valid = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]], dtype=torch.bool)
    torch.testing.assert_close(relative_entropy(weights, valid), torch.tensor([1.0, 0.0, 0.5, 1.0]))
