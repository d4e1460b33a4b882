"""Losses against naive loops, and what labels switch on and off."""

import math

import pytest
import torch
from kinetrack.modeling.loss_kinetrack import (
    classification_loss,
    dense_targets,
    distance_loss,
    focal_loss,
    identity_loss,
    tracking_losses,
    weighted_sum,
)

STRIDE, ROWS, COLUMNS, CLASSES, RADIUS = 8, 8, 12, 2, 0.25
EXTENT = 0.54  # TTFNet's alpha

BOXES = {
    "one large": [(10.0, 5.0, 60.0, 50.0, 0, False, 1.0)],
    "two apart": [(4.0, 4.0, 20.0, 30.0, 0, False, 1.0), (50.0, 20.0, 90.0, 60.0, 1, False, 1.0)],
    "small before large": [(30.0, 20.0, 50.0, 44.0, 0, False, 1.0), (10.0, 4.0, 80.0, 60.0, 0, False, 0.5)],
    "nested with one centre": [(20.0, 20.0, 60.0, 50.0, 0, False, 1.0), (30.0, 25.0, 50.0, 45.0, 0, False, 1.0)],
    "smaller than a cell": [(33.0, 17.0, 35.0, 20.0, 1, False, 1.0)],
    "beyond the frame": [(-30.0, 10.0, 40.0, 90.0, 0, False, 1.0)],
    "centre outside": [(80.0, 10.0, 130.0, 40.0, 0, False, 1.0), (10.0, 10.0, 30.0, 40.0, 0, False, 1.0)],
    "wholly outside": [(200.0, 10.0, 230.0, 40.0, 0, False, 1.0), (10.0, 10.0, 30.0, 40.0, 0, False, 1.0)],
    "ignored": [(10.0, 10.0, 50.0, 40.0, 0, True, 1.0), (60.0, 10.0, 80.0, 40.0, 1, False, 0.5)],
    "person within an ignored crowd": [(0.0, 0.0, 90.0, 60.0, 0, True, 1.0), (40.0, 10.0, 60.0, 50.0, 0, False, 1.0)],
    "nothing": [],
}


def annotation(name):
    rows = BOXES[name]
    return {
        "boxes": torch.tensor([row[:4] for row in rows], dtype=torch.float32).reshape(-1, 4),
        "class_labels": torch.tensor([row[4] for row in rows], dtype=torch.long),
        "ignore": torch.tensor([row[5] for row in rows], dtype=torch.bool),
        "weight": torch.tensor([row[6] for row in rows], dtype=torch.float32),
    }


def valid_area(rows=ROWS, columns=COLUMNS):
    valid = torch.zeros(ROWS, COLUMNS, dtype=torch.bool)
    valid[:rows, :columns] = True
    return valid


def draw(frame, valid=None):
    return dense_targets(frame, CLASSES, ROWS, COLUMNS, STRIDE, RADIUS, valid_area() if valid is None else valid)


def naive_targets(rows, valid):
    """The targets by the definition, one box and one cell at a time."""
    heatmap = [[[0.0] * COLUMNS for _ in range(ROWS)] for _ in range(CLASSES)]
    positive = [[[0.0] * COLUMNS for _ in range(ROWS)] for _ in range(CLASSES)]
    negative = [[float(valid[i, j]) for j in range(COLUMNS)] for i in range(ROWS)]
    owner = [[-1] * COLUMNS for _ in range(ROWS)]
    kept, centers = [], []
    for number, (x1, y1, x2, y2, _, ignored, _) in enumerate(rows):
        j, i = math.floor((x1 + x2) / 2 / STRIDE), math.floor((y1 + y2) / 2 / STRIDE)
        if not ignored and 0 <= i < ROWS and 0 <= j < COLUMNS and valid[i, j]:
            kept.append(number)
            centers.append((i, j))
            continue
        for i in range(ROWS):
            for j in range(COLUMNS):
                if x1 <= (j + 0.5) * STRIDE <= x2 and y1 <= (i + 0.5) * STRIDE <= y2:
                    negative[i][j] = 0.0
    area = {n: (rows[n][2] - rows[n][0]) * (rows[n][3] - rows[n][1]) for n in kept}
    for number, (ci, cj) in zip(kept, centers, strict=True):
        x1, y1, x2, y2, label, _, weight = rows[number]
        w, h = x2 - x1, y2 - y1
        sigma_x, sigma_y = max(w * EXTENT / 6, STRIDE / 3), max(h * EXTENT / 6, STRIDE / 3)
        for i in range(ROWS):
            for j in range(COLUMNS):
                dx, dy = (j - cj) * STRIDE, (i - ci) * STRIDE
                bump = math.exp(-(dx**2) / (2 * sigma_x**2) - dy**2 / (2 * sigma_y**2))
                heatmap[label][i][j] = max(heatmap[label][i][j], bump)
                near = abs(dx) <= max(w * RADIUS, STRIDE / 2) and abs(dy) <= max(h * RADIUS, STRIDE / 2)
                if near and valid[i, j] and (owner[i][j] < 0 or area[number] <= area[owner[i][j]]):
                    owner[i][j] = number
        positive[label][ci][cj] = max(positive[label][ci][cj], weight)
    # A centre belongs to its own box, and to the smaller one where two share a cell.
    for number, (ci, cj) in sorted(zip(kept, centers, strict=True), key=lambda pair: -area[pair[0]]):
        owner[ci][cj] = number
    return heatmap, positive, negative, owner, kept, centers


@pytest.mark.parametrize("valid", [valid_area(), valid_area(6, 9)], ids=["whole", "part"])
@pytest.mark.parametrize("name", BOXES)
def test_dense_targets_equal_a_naive_loop_over_cells(name, valid):
    target = draw(annotation(name), valid)
    heatmap, positive, negative, owner, kept, centers = naive_targets(BOXES[name], valid)
    grid = (CLASSES, ROWS, COLUMNS)
    torch.testing.assert_close(target.heatmap.view(grid), torch.tensor(heatmap), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(target.positive_weight.view(grid), torch.tensor(positive))
    torch.testing.assert_close(target.negative_weight.view(grid), torch.tensor([negative] * CLASSES))
    assert target.kept.tolist() == kept
    assert target.centers.tolist() == [i * COLUMNS + j for i, j in centers]
    owners = [[-1 if index < 0 else kept[index] for index in row] for row in target.box_index.view(ROWS, -1).tolist()]
    assert owners == owner
    for order, number in enumerate(kept):
        cells = target.box_index == order
        if cells.any():
            assert target.box_weight[cells].sum().item() == pytest.approx(BOXES[name][number][6])
            assert target.box_weight[cells].unique().numel() == 1
    assert (target.box_weight[target.box_index < 0] == 0).all()


def naive_focal(logits, targets, alpha, beta):
    total, count = 0.0, 0.0
    for frame, target in enumerate(targets):
        for c in range(CLASSES):
            for cell in range(ROWS * COLUMNS):
                p = 1 / (1 + math.exp(-float(logits[frame, c].flatten()[cell])))
                weight, bump = float(target.positive_weight[c, cell]), float(target.heatmap[c, cell])
                if weight > 0:
                    total -= weight * (1 - p) ** alpha * math.log(p)
                    count += weight
                elif target.negative_weight[c, cell] > 0:
                    total -= (1 - bump) ** beta * p**alpha * math.log(1 - p)
    return total / max(count, 1)


@pytest.mark.parametrize(
    "names", [["two apart", "ignored"], ["one large"], ["nothing"], ["small before large"]], ids=str
)
def test_focal_loss_equals_a_naive_loop(names):
    targets = [draw(annotation(name), valid_area(7, 10)) for name in names]
    logits = torch.randn(len(names), CLASSES, ROWS, COLUMNS) * 2
    loss = focal_loss(logits, targets, 2.0, 4.0)
    assert loss.item() == pytest.approx(naive_focal(logits, targets, 2.0, 4.0), rel=1e-4)


def test_focal_loss_is_finite_with_finite_gradients_at_extreme_logits():
    targets = [draw(annotation("two apart"))]
    for value in (-200.0, 200.0):
        logits = torch.full((1, CLASSES, ROWS, COLUMNS), value, requires_grad=True)
        loss = focal_loss(logits, targets, 2.0, 4.0)
        loss.backward()
        assert loss.isfinite() and logits.grad.isfinite().all()


def naive_giou(a, b):
    area = lambda r: (r[2] - r[0]) * (r[3] - r[1])  # noqa: E731
    across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(across, 0) * max(down, 0)
    union = area(a) + area(b) - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return inter / union - (hull - union) / hull


def test_distance_loss_equals_a_naive_giou_loop():
    names = ["small before large", "ignored", "beyond the frame"]
    frames = [annotation(name) for name in names]
    targets = [draw(frame) for frame in frames]
    distances = torch.rand(3, 4, ROWS, COLUMNS) * 30 + 1
    total, weight = 0.0, 0.0
    for index, (target, name) in enumerate(zip(targets, names, strict=True)):
        rows = [BOXES[name][n] for n in target.kept.tolist()]
        cells = target.box_index.tolist()
        for cell, owner in enumerate(cells):
            if owner < 0:
                continue
            x, y = (cell % COLUMNS + 0.5) * STRIDE, (cell // COLUMNS + 0.5) * STRIDE
            left, top, right, bottom = distances[index].flatten(1)[:, cell].tolist()
            share = rows[owner][6] / cells.count(owner)
            total += share * (1 - naive_giou((x - left, y - top, x + right, y + bottom), rows[owner][:4]))
            weight += share
    assert distance_loss(distances, targets, frames, STRIDE).item() == pytest.approx(total / max(weight, 1), rel=1e-5)


def test_distance_loss_is_zero_for_the_right_boxes_and_none_without_boxes():
    frame = annotation("beyond the frame")
    target = draw(frame)
    x = (torch.arange(COLUMNS) + 0.5) * STRIDE
    y = ((torch.arange(ROWS) + 0.5) * STRIDE)[:, None]
    x1, y1, x2, y2 = frame["boxes"][0]
    distances = torch.stack([(x - x1).expand(ROWS, -1), (y - y1).expand(-1, COLUMNS)] * 2)
    distances[2], distances[3] = x2 - x, (y2 - y).expand(-1, COLUMNS)
    assert distance_loss(distances[None], [target], [frame], STRIDE).item() == pytest.approx(0, abs=1e-6)
    nothing = annotation("nothing")
    assert distance_loss(distances[None], [draw(nothing)], [nothing], STRIDE) is None


def naive_contrastive(vectors, keys, frames, temperature):
    losses = []
    for i in range(len(keys)):
        positives = [j for j in range(len(keys)) if keys[j] == keys[i] and frames[j] != frames[i]]
        if not positives:
            continue
        total = sum(math.exp(float(vectors[i] @ vectors[j]) / temperature) for j in range(len(keys)) if j != i)
        terms = [-math.log(math.exp(float(vectors[i] @ vectors[j]) / temperature) / total) for j in positives]
        losses.append(sum(terms) / len(terms))
    return sum(losses) / len(losses) if losses else None


@pytest.mark.parametrize(
    ("keys", "frames"),
    [
        ([1, 2, 1, 2, 1, 3], [0, 0, 1, 1, 2, 2]),
        ([1, 1, 2], [0, 1, 1]),
        ([7, 7, 7, 8], [0, 0, 1, 1]),  # the same key twice in one frame is no positive of itself there
    ],
)
def test_identity_loss_equals_a_naive_loop(keys, frames):
    vectors = torch.nn.functional.normalize(torch.randn(len(keys), 6, dtype=torch.float64), dim=1)
    loss = identity_loss(vectors, torch.tensor(keys), torch.tensor(frames), 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(naive_contrastive(vectors, keys, frames, 0.1), rel=1e-5)


def test_anchor_without_a_positive_in_another_frame_is_left_out():
    vectors = torch.nn.functional.normalize(torch.randn(3, 6), dim=1)
    assert identity_loss(vectors, torch.tensor([1, 2, 3]), torch.tensor([0, 0, 1]), 0.1) is None
    assert identity_loss(vectors, torch.tensor([1, 1, 2]), torch.tensor([0, 0, 1]), 0.1) is None
    assert identity_loss(vectors[:0], torch.tensor([]), torch.tensor([]), 0.1) is None


def test_identity_loss_has_finite_gradients():
    vectors = torch.nn.functional.normalize(torch.randn(4, 6), dim=1).requires_grad_()
    identity_loss(vectors, torch.tensor([1, 2, 1, 9]), torch.tensor([0, 0, 1, 1]), 0.01).backward()
    assert vectors.grad.isfinite().all()


def test_classification_loss_equals_its_definition_and_skips_missing_labels():
    logits, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([2, -100, 0, -100])
    expected = []
    for row in (0, 2):
        log_p = logits[row] - torch.logsumexp(logits[row], 0)
        expected.append(-(0.9 * log_p[labels[row]] + 0.1 * log_p.mean()))
    loss = classification_loss(logits, labels, 0.1)
    assert loss.item() == pytest.approx(float(sum(expected) / 2), rel=1e-6)
    assert classification_loss(logits, torch.full((4,), -100), 0.1) is None


def test_weighted_sum_gives_all_groups_one_weight():
    terms = {"action": torch.tensor(2.0), "group_fight": torch.tensor(3.0), "group_street_view": torch.tensor(5.0)}
    assert weighted_sum(terms, {"action": 1.0, "group": 0.5}).item() == 6.0
    assert weighted_sum({}, {"action": 1.0}) is None


def test_wrong_object_class_raises_naming_the_classes():
    for label in (-1, CLASSES):
        frame = annotation("one large") | {"class_labels": torch.tensor([label])}
        with pytest.raises(ValueError, match="`class_labels` must be between 0 and 1 .*object_classes"):
            draw(frame)


# From here on, through `tracking_losses`, the terms of a whole batch.


@pytest.fixture
def maps():
    """heatmap logits, distances and embeddings of B=2, T=2."""
    generator = torch.Generator().manual_seed(4)
    heatmap = torch.randn(2, 2, CLASSES, ROWS, COLUMNS, generator=generator)
    distances = torch.rand(2, 2, 4, ROWS, COLUMNS, generator=generator) * 20 + 1
    embeddings = torch.nn.functional.normalize(torch.randn(2, 2, 6, ROWS, COLUMNS, generator=generator), dim=2)
    return heatmap, distances, embeddings


def with_ids(name, ids):
    return annotation(name) | {"track_ids": torch.tensor(ids, dtype=torch.long)}


def terms_of(config, maps, labels, valid=None):
    valid = valid_area()[None].expand(2, -1, -1) if valid is None else valid
    return tracking_losses(config, *maps, labels, valid)


def test_terms_are_those_that_have_labels(make_config, maps):
    config = make_config()
    tracked, untracked = with_ids("two apart", [3, 4]), annotation("two apart")
    assert set(terms_of(config, maps, [[tracked, tracked], [None, None]])) == {"heatmap", "box", "identity"}
    assert set(terms_of(config, maps, [[tracked, None], [None, None]])) == {"heatmap", "box"}
    assert set(terms_of(config, maps, [[untracked] * 2, [None, None]])) == {"heatmap", "box"}
    assert set(terms_of(config, maps, [[annotation("nothing"), None], [None, None]])) == {"heatmap"}
    assert terms_of(config, maps, [[None, None], [None, None]]) == {}


def test_unlabelled_frame_has_no_gradient(make_config, maps):
    heatmap = maps[0].requires_grad_()
    labels = [[with_ids("two apart", [3, 4]), None], [None, with_ids("one large", [5])]]
    sum(terms_of(make_config(), (heatmap, *maps[1:]), labels).values()).backward()
    assert (heatmap.grad[0, 1] == 0).all() and (heatmap.grad[1, 0] == 0).all()
    assert (heatmap.grad[0, 0] != 0).any() and (heatmap.grad[1, 1] != 0).any()


def test_frame_labelled_as_empty_has_negatives_only(make_config, maps):
    heatmap = maps[0].requires_grad_()
    terms = terms_of(make_config(), (heatmap, *maps[1:]), [[annotation("nothing"), None], [None, None]])
    terms["heatmap"].backward()
    assert (heatmap.grad[0, 0] > 0).all()


def test_ignored_area_and_padding_have_no_gradient(make_config, maps):
    heatmap = maps[0].requires_grad_()
    valid = torch.stack([valid_area(6, 9), valid_area()])
    labels = [[annotation("ignored"), None], [None, None]]
    terms_of(make_config(), (heatmap, *maps[1:]), labels, valid)["heatmap"].backward()
    gradient = heatmap.grad[0, 0].abs().sum(0)
    assert (gradient[1:5, 1:6] == 0).all()  # the cells with centres 12..44 and 12..36, within (10, 10, 50, 40)
    assert (gradient[6:] == 0).all() and (gradient[:, 9:] == 0).all()
    assert (gradient[0, :9] > 0).all()


def test_ignored_boxes_teach_neither_position_nor_identity(make_config, maps):
    frame = with_ids("ignored", [1, 2])
    other = with_ids("ignored", [1, 2])
    terms = terms_of(make_config(), maps, [[frame, other], [None, None]])
    keys = {"boxes": frame["boxes"][1:], "class_labels": frame["class_labels"][1:], "weight": frame["weight"][1:]}
    alone = keys | {"track_ids": torch.tensor([2])}
    wanted = terms_of(make_config(), maps, [[alone, alone], [None, None]])
    assert terms["box"] == wanted["box"]
    assert terms["identity"] == wanted["identity"]
    assert terms["heatmap"] != wanted["heatmap"]  # the ignored box masks negatives


def test_box_wholly_outside_changes_nothing(make_config, maps):
    both = with_ids("wholly outside", [8, 9])
    inside = {name: value[1:] for name, value in both.items()}
    with_outside = terms_of(make_config(), maps, [[both, both], [None, None]])
    without = terms_of(make_config(), maps, [[inside, inside], [None, None]])
    assert set(with_outside) == set(without) == {"heatmap", "box", "identity"}
    for name, term in with_outside.items():
        assert torch.equal(term, without[name])


def test_frame_with_only_outside_boxes_is_an_empty_frame(make_config, maps):
    outside = {name: value[:1] for name, value in with_ids("wholly outside", [8, 9]).items()}
    terms = terms_of(make_config(), maps, [[outside, None], [None, None]])
    empty = terms_of(make_config(), maps, [[annotation("nothing"), None], [None, None]])
    assert set(terms) == {"heatmap"}
    assert torch.equal(terms["heatmap"], empty["heatmap"])


def test_uncertain_boxes_count_by_their_weight(make_config, maps):
    """A machine-made box of weight 0.5 moves positive and distance terms half as much as a certain one."""
    first, second = annotation("two apart"), annotation("two apart")
    second["weight"] = torch.tensor([1.0, 0.5])
    target, half = draw(first), draw(second)
    assert half.positive_weight.sum() == 1.5 and target.positive_weight.sum() == 2.0
    assert torch.equal(half.heatmap, target.heatmap)
    losses = []
    for number in range(2):
        alone = {name: value[number : number + 1] for name, value in first.items()}
        losses.append(distance_loss(maps[1][0, :1], [draw(alone)], [alone], STRIDE))
    mixed = distance_loss(maps[1][0, :1], [half], [second], STRIDE)
    torch.testing.assert_close(mixed, (losses[0] + 0.5 * losses[1]) / 1.5)


def test_unknown_identities_are_neither_positives_nor_negatives(make_config, maps):
    config = make_config()
    known = with_ids("two apart", [3, -1])
    terms = terms_of(config, maps, [[known, known], [None, None]])
    first = {name: value[:1] for name, value in known.items()}
    alone = terms_of(config, maps, [[first, first], [None, None]])
    assert torch.equal(terms["identity"], alone["identity"])
    unknown = with_ids("two apart", [-1, -1])
    assert "identity" not in terms_of(config, maps, [[unknown, unknown], [None, None]])


def test_identity_term_uses_embeddings_at_centres_of_the_whole_batch(make_config, maps):
    labels = [[with_ids("two apart", [3, 4]), with_ids("one large", [3])], [with_ids("one large", [7]), None]]
    loss = terms_of(make_config(), maps, labels)["identity"]
    cells = [(0, 0, 2, 1), (0, 0, 5, 8), (0, 1, 3, 4), (1, 0, 3, 4)]  # (b, t, row, column) of the centres
    vectors = torch.stack([maps[2][b, t, :, i, j] for b, t, i, j in cells])
    assert loss.item() == pytest.approx(naive_contrastive(vectors, [3, 4, 3, 7], [0, 0, 1, 2], 0.1), rel=1e-4)


@pytest.mark.parametrize(
    "labels", [[[None, None]], [[None], [None, None]], [[None, None, None], [None, None]]], ids=len
)
def test_frame_labels_of_another_length_raise(make_config, maps, labels):
    with pytest.raises(ValueError, match="`frame_labels`"):
        terms_of(make_config(), maps, labels)


def test_cells_whose_centre_is_padding_teach_nothing(make_model, make_clip):
    model, pixel_mask = make_model(), torch.zeros(1, 64, 96, dtype=torch.bool)
    pixel_mask[:, :52, :53] = True  # cell 6 reaches from 48 to 56, with its centre at 52
    output = model(make_clip(1, 1), pixel_mask=pixel_mask, frame_labels=[[annotation("nothing")]])
    (gradient,) = torch.autograd.grad(output.loss_terms["heatmap"], output.heatmap_logits)
    learns = (gradient[0, 0] != 0).all(0)
    assert torch.equal(learns, valid_area(6, 7))
