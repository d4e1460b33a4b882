"""Peaks, boxes and suppression of `decode_detections`."""

import math

import pytest
import torch
from kinetrack.processing.detection_kinetrack import decode_detections, find_peaks, objects_of, select_detections
from torchvision.ops import box_iou


def maps(number=1, classes=1, height=12, width=20, embedding=None):
    heatmap = torch.full((number, classes, height, width), -8.0)
    distances = torch.full((number, 4, height, width), 16.0)
    return heatmap, distances, None if embedding is None else torch.randn(number, embedding, height, width)


def test_a_peak_becomes_a_box_around_its_cell_centre():
    heatmap, distances, embeddings = maps(embedding=5)
    heatmap[0, 0, 3, 7] = 2.0
    distances[0, :, 3, 7] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    (found,) = decode_detections(heatmap, distances, embeddings)
    center_x, center_y = 7.5 * 8, 3.5 * 8
    expected = [[center_x - 10, center_y - 20, center_x + 30, center_y + 40]]
    torch.testing.assert_close(found["boxes"], torch.tensor(expected))
    torch.testing.assert_close(found["scores"], torch.tensor([2.0]).sigmoid())
    assert found["labels"].tolist() == [0]
    assert torch.equal(found["embeddings"][0], embeddings[0, :, 3, 7])


def test_boxes_are_amodal_and_reach_beyond_the_picture():
    heatmap, distances, _ = maps()
    heatmap[0, 0, 0, 0] = 2.0
    (found,) = decode_detections(heatmap, distances)
    assert found["boxes"][0].tolist() == [-12.0, -12.0, 20.0, 20.0]
    assert found["embeddings"] is None


def test_a_neighbour_with_a_lower_score_is_no_peak():
    heatmap, distances, _ = maps()
    heatmap[0, 0, 5, 5], heatmap[0, 0, 5, 6], heatmap[0, 0, 5, 8] = 3.0, 2.0, 1.0
    distances[:] = 4.0  # no overlap between boxes two cells apart, so only the 3x3 rule is at work
    (found,) = decode_detections(heatmap, distances)
    assert found["scores"].tolist() == torch.tensor([3.0, 1.0]).sigmoid().tolist()


def test_scores_at_the_threshold_stay_and_below_it_go():
    heatmap, distances, _ = maps()
    distances[:] = 4.0
    heatmap[0, 0, 2, 2], heatmap[0, 0, 8, 8] = math.log(0.31 / 0.69), math.log(0.29 / 0.71)
    (found,) = decode_detections(heatmap, distances, threshold=0.3)
    assert found["scores"].tolist() == pytest.approx([0.31])
    assert len(decode_detections(heatmap, distances, threshold=1.0)[0]["boxes"]) == 0
    assert len(decode_detections(heatmap, distances, threshold=0.0)[0]["boxes"]) > 2


def test_overlapping_boxes_of_one_class_become_one_and_of_two_classes_stay():
    heatmap, distances, _ = maps(classes=2)
    distances[:] = 40.0
    heatmap[0, 0, 5, 5], heatmap[0, 0, 5, 7], heatmap[0, 1, 5, 9] = 3.0, 2.0, 1.0
    (found,) = decode_detections(heatmap, distances, nms_threshold=0.5)
    assert found["labels"].tolist() == [0, 1]
    (all_three,) = decode_detections(heatmap, distances, nms_threshold=0.9)
    assert len(all_three["boxes"]) == 3


def test_the_best_are_kept_when_there_are_too_many():
    torch.manual_seed(0)
    heatmap = torch.randn(2, 3, 24, 40) * 3
    distances = torch.rand(2, 4, 24, 40) * 10
    few = decode_detections(heatmap, distances, max_detections=5)
    many = decode_detections(heatmap, distances, max_detections=1000)
    for limited, whole in zip(few, many, strict=True):
        assert len(limited["scores"]) == 5
        assert torch.equal(limited["scores"], whole["scores"][:5])
        assert (whole["scores"].diff() <= 0).all()
        for label in whole["labels"].unique():
            overlap = box_iou(*[whole["boxes"][whole["labels"] == label]] * 2).fill_diagonal_(0)
            assert overlap.max() <= 0.65


def test_cells_of_padding_neither_fire_nor_suppress():
    heatmap, distances, _ = maps()
    heatmap[0, 0, 4, 10], heatmap[0, 0, 4, 9] = 5.0, 1.0
    mask = torch.ones(1, 12, 20, dtype=torch.bool)
    mask[:, :, 10:] = False
    (found,) = decode_detections(heatmap, distances, cell_mask=mask)
    assert found["scores"].tolist() == [torch.tensor(1.0).sigmoid().item()]


def test_a_batch_equals_its_images_alone():
    torch.manual_seed(1)
    heatmap, distances, embeddings = torch.randn(4, 2, 12, 20), torch.rand(4, 4, 12, 20) * 30, torch.randn(4, 8, 12, 20)
    together = decode_detections(heatmap, distances, embeddings)
    for index, found in enumerate(together):
        one = slice(index, index + 1)
        (alone,) = decode_detections(heatmap[one], distances[one], embeddings[one])
        torch.testing.assert_close(found, alone, rtol=1e-6, atol=0)


def test_an_empty_map_gives_empty_tensors_of_the_right_shape():
    heatmap, distances, embeddings = maps(embedding=6)
    (found,) = decode_detections(heatmap, distances, embeddings)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "boxes": (0, 4),
        "scores": (0,),
        "labels": (0,),
        "embeddings": (0, 6),
    }
    assert found["labels"].dtype == torch.long


def test_half_precision_maps_and_non_finite_scores_are_survived():
    heatmap, distances, _ = maps()
    heatmap[0, 0, 2, 2], heatmap[0, 0, 8, 8] = 2.0, float("nan")
    (found,) = decode_detections(heatmap.half(), distances.half())
    assert len(found["boxes"]) == 1
    assert found["boxes"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distances": torch.zeros(1, 4, 6, 20)}, "distances"),
        ({"distances": torch.zeros(1, 3, 12, 20)}, "distances"),
        ({"heatmap_logits": torch.zeros(1, 1, 1, 12, 20)}, "Flatten"),
        ({"cell_mask": torch.ones(2, 12, 20, dtype=torch.bool)}, "cell_mask"),
        ({"threshold": 1.5}, "threshold"),
    ],
)
def test_maps_that_do_not_belong_together_are_named(change, message):
    heatmap, distances, _ = maps()
    with pytest.raises(ValueError, match=message):
        decode_detections(**{"heatmap_logits": heatmap, "distances": distances, **change})


def test_objects_of_maps_become_the_same_detections():
    torch.manual_seed(0)
    heatmap, distances, embeddings = (
        torch.randn(2, 3, 12, 20) * 3,
        torch.rand(2, 4, 12, 20) * 60,
        torch.randn(2, 5, 12, 20),
    )
    mask = torch.ones(2, 12, 20, dtype=torch.bool)
    mask[:, :, 15:] = False
    objects = objects_of(heatmap, distances, embeddings, mask, 8, 200)
    wanted = decode_detections(heatmap, distances, embeddings, mask, threshold=0.2)
    for index, expected in enumerate(wanted):
        found = select_detections({name: values[index] for name, values in objects.items()}, threshold=0.2)
        assert len(expected["scores"]) > 10
        assert found["labels"].dtype == torch.long
        for name in expected:
            torch.testing.assert_close(found[name], expected[name])


def test_peaks_are_the_best_in_the_order_of_cells_and_the_rest_is_zero():
    heatmap, mask = torch.full((1, 2, 6, 8), -9.0), torch.zeros(1, 6, 8, dtype=torch.bool)
    heatmap[0, 1, 1, 1], heatmap[0, 0, 4, 3], heatmap[0, 0, 1, 6] = 1.0, 3.0, 2.0
    mask[0, 4, 3] = mask[0, 1, 6] = True
    scores, labels, cells = find_peaks(heatmap[:, :1], mask, 2)
    assert cells.tolist() == [[1 * 8 + 6, 4 * 8 + 3]] and labels.tolist() == [[0, 0]]
    torch.testing.assert_close(scores, torch.tensor([[2.0, 3.0]]).sigmoid())
    assert find_peaks(heatmap[:, :1], mask, 1)[2].tolist() == [[4 * 8 + 3]]
    mask[0, 1, 1] = True
    scores, labels, cells = find_peaks(heatmap, mask, 60)
    assert labels[0, scores[0] > 0.5].tolist() == [0, 0, 1]
    assert not cells[0, scores[0] == 0].any()
    assert not any(values.any() for values in find_peaks(heatmap, torch.zeros_like(mask), 4))
