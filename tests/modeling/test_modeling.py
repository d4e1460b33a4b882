"""The models as a whole: batches, padding, labels, gradients, saving, and the two presets."""

import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.modeling_kinetrack import (
    KineTrackForObjectTracking,
    KineTrackForVideoAnalysis,
    KineTrackForVideoClassification,
    KineTrackModel,
    KineTrackModelOutput,
    KineTrackOutput,
)

CLASSES = [KineTrackModel, KineTrackForVideoClassification, KineTrackForObjectTracking, KineTrackForVideoAnalysis]
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def content_mask(height, width, *sizes):
    mask = torch.zeros(len(sizes), height, width, dtype=torch.bool)
    for row, (rows, columns) in enumerate(sizes):
        mask[row, :rows, :columns] = True
    return mask


def frame_label(ids=(1, 2)):
    return {
        "boxes": torch.tensor([[4.0, 4.0, 30.0, 50.0], [40.0, 10.0, 80.0, 60.0]]),
        "class_labels": torch.tensor([0, 1]),
        "track_ids": torch.tensor(ids),
        "keypoints": torch.tensor([[[10.0, 10.0, 1.0], [8.0, 44.0, 1.0], [20.0, 44.0, 0.0]]] * 2),
    }


def all_labels():
    return {
        "labels": torch.tensor([1, 2]),
        "group_labels": {"fight": torch.tensor([0, 1])},
        "region_boxes": torch.tensor([[[4.0, 4.0, 30.0, 50.0]] * 3, [[40.0, 10.0, 80.0, 60.0]] * 3]),
        "frame_labels": [[frame_label(), None, frame_label()], [None, frame_label((3, 4)), frame_label((3, 4))]],
    }


# Outputs


@pytest.mark.parametrize("model_class", CLASSES)
def test_outputs_have_the_documented_shapes(make_model, make_clip, model_class):
    model = make_model(model_class, attention_window=4)
    boxes = torch.tensor([0.0, 0, 40, 40]).expand(2, 3, 4)
    labels = {} if model_class is KineTrackModel else {"region_boxes": boxes}
    output = model(make_clip(2, 3), output_hidden_states=True, **labels)
    shapes = {
        "last_hidden_state": (2, 3, 8, 4, 6),
        "spatial_attention": (2, 3, 4, 6),
        "temporal_attention": (2, 3),
        "keypoint_logits": (2, 3, 3, 8, 12),
        "cell_features": (2, 3, 16 + 4, 2, 3),
    }
    if model_class is KineTrackModel:
        shapes |= {"pooler_output": (2, 8 + 2 * 4 + 9 * (16 + 4)), "pyramid_features": (2, 3, 8, 8, 12)}
    if model_class in (KineTrackForVideoClassification, KineTrackForVideoAnalysis):
        shapes |= {"logits": (2, 3), "region_logits": (2, 3)}
        assert {name: tuple(t.shape) for name, t in output.group_logits.items()} == {"fight": (2, 2)}
    if model_class in (KineTrackForObjectTracking, KineTrackForVideoAnalysis):
        shapes |= {
            "heatmap_logits": (2, 3, 2, 8, 12),
            "distances": (2, 3, 4, 8, 12),
            "embeddings": (2, 3, 6, 8, 12),
        }
        assert (output.distances > 0).all()
        torch.testing.assert_close(output.embeddings.norm(dim=2), torch.ones(2, 3, 8, 12, dtype=torch.float64))
    got = {name: tuple(value.shape) for name, value in output.items() if torch.is_tensor(value)}
    assert got == shapes
    assert len(output.hidden_states) == 3
    state = output.state
    assert [tuple(t.shape) for t in (*state.hidden, *state.cache)] == [(2, 4, 6, 8)] * 2 + [(2, 2, 4, 6, 8)] * 2
    assert state.scores.shape == (2, 4) and state.features.shape == (2, 4, 8 + 3 * 3 + 3 * 20)
    assert state.motion.shape == (2, 4, 8, 12)


def test_tuple_output_holds_the_same_values(make_model, make_clip):
    for model_class, output_class in (
        (KineTrackModel, KineTrackModelOutput),
        (KineTrackForVideoAnalysis, KineTrackOutput),
    ):
        model, clip = make_model(model_class), make_clip(1, 2)
        with torch.no_grad():
            named, plain = model(clip), model(clip, return_dict=False)
        assert isinstance(named, output_class) and isinstance(plain, tuple)
        assert len(plain) == len(named.to_tuple())
        assert torch.equal(plain[0], named.to_tuple()[0])


def test_heads_can_be_left_out_of_the_joint_model(make_model, make_clip):
    clip = make_clip(1, 2)
    with torch.no_grad():
        actions = make_model(tracking_head=False)(clip)
        objects = make_model(classification_head=False)(clip)
    assert actions.logits is not None and actions.heatmap_logits is None
    assert objects.logits is None and objects.heatmap_logits is not None


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"pixel_values_videos": torch.zeros(2, 3, 64, 96)}, "`pixel_values_videos` must be"),
        ({"pixel_values_videos": torch.zeros(1, 3, 2, 64, 96)}, "`pixel_values_videos` must be"),
        ({"pixel_values_videos": torch.zeros(1, 0, 3, 64, 96)}, "`pixel_values_videos` must be"),
        ({"pixel_values_videos": torch.zeros(1, 2, 3, 60, 96)}, "multiples of 32, got 60x96"),
        ({"frame_mask": torch.ones(1, 3, dtype=torch.bool)}, r"`frame_mask` must be \(1, 2\)"),
        ({"frame_mask": torch.tensor([[False, True]])}, "`frame_mask` must have the valid frames first"),
        ({"frame_mask": torch.tensor([[False, False]])}, "at least one"),
        ({"pixel_mask": torch.ones(1, 4, 6, dtype=torch.bool)}, r"`pixel_mask` must be \(1, 64, 96\)"),
        ({"labels": torch.tensor([3])}, "`labels` must be -100 or between 0 and 2, got \\[3\\].*`num_labels`"),
        ({"labels": torch.tensor([-1])}, "`labels` must be"),
        ({"group_labels": {"fight": torch.tensor([2])}}, "must be -100 or between 0 and 1"),
        ({"group_labels": {"mood": torch.tensor([0])}}, "`group_labels` has 'mood'"),
        ({"frame_labels": [[None]]}, "`frame_labels` must be 1 lists of 2 frames"),
        (
            {"frame_labels": [[{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "class_labels": torch.tensor([2])}, None]]},
            "`class_labels` must be between 0 and 1",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_wrong_input_raises_naming_it(make_model, inputs, message):
    model = make_model(dtype=torch.float32)
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        model(**({"pixel_values_videos": torch.zeros(1, 2, 3, 64, 96)} | inputs))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ({"out_features": ["stage3", "stage4"]}, "three feature maps.*gives 2"),
        ({"out_features": ["stage1", "stage2", "stage3"]}, "strides 8, 16 and 32"),
    ],
    ids=["two maps", "wrong strides"],
)
def test_unfit_backbone_raises_naming_the_field(make_config, backbone, message):
    settings = make_config().backbone_config.to_dict()
    settings = {key: settings[key] for key in ("model_type", "embedding_size", "hidden_sizes", "depths", "layer_type")}
    config = make_config(backbone_config=settings | backbone)
    with torch.no_grad(), pytest.raises(ValueError, match=f"`backbone_config`.*{message}"):
        KineTrackModel(config)(torch.zeros(1, 1, 3, 64, 96))


# Batches and padding


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("scan", ["loop", "chunked"])
def test_batch_equals_each_sample_alone_for_mixed_lengths_and_sizes(make_model, make_clip, window, bidirectional, scan):
    model = make_model(attention_window=window, bidirectional=bidirectional, scan=scan, scan_chunk_size=4)
    clip = make_clip(3, 5)
    lengths, mask = [5, 2, 1], content_mask(64, 96, (64, 96), (50, 72), (33, 95))
    frame_mask = torch.arange(5)[None] < torch.tensor(lengths)[:, None]
    boxes = torch.tensor([[4.0, 4, 30, 50], [40.0, 10, 80, 60], [0.0, 0, 9, 9]])[:, None].expand(3, 5, 4)
    with torch.no_grad():
        batch = model(clip, frame_mask, mask, region_boxes=boxes)
        for row, length in enumerate(lengths):
            one = slice(row, row + 1)
            alone = model(clip[one, :length], None, mask[one], region_boxes=boxes[one, :length])
            for name, value in alone.items():
                if torch.is_tensor(value):
                    wanted = batch[name][one]
                    per_frame = name not in ("logits", "region_logits")
                    torch.testing.assert_close(
                        wanted[:, :length] if per_frame else wanted,
                        value,
                        **CLOSE,
                        msg=lambda m, name=name: f"{name}: {m}",
                    )
            torch.testing.assert_close(batch.group_logits["fight"][one], alone.group_logits["fight"], **CLOSE)


def test_loss_of_a_batch_does_not_depend_on_its_padding(make_model, make_clip):
    model = make_model()
    clip, mask = make_clip(2, 3), content_mask(64, 96, (64, 96), (56, 88))
    frame_mask = torch.tensor([[True] * 3, [True, True, False]])
    labels = all_labels()
    noisy = clip.clone()
    noisy[1, 2] = 40
    noisy[1, :, :, 56:] = -30
    with torch.no_grad():
        before = model(clip, frame_mask, mask, **labels).loss_terms
        labels["frame_labels"][1][2] = None  # what is behind the mask teaches nothing
        after = model(noisy, frame_mask, mask, **labels).loss_terms
    assert before.keys() == after.keys()
    for name, term in before.items():
        torch.testing.assert_close(after[name], term, **CLOSE)


@pytest.mark.parametrize("window", [None, 2])
def test_padding_frame_order_and_canvas_remainder_change_nothing(make_model, make_clip, window):
    model, clip = make_model(attention_window=window), make_clip(1, 6)
    frame_mask, mask = torch.tensor([[True] * 3 + [False] * 3]), content_mask(64, 96, (50, 72))
    shuffled = clip[:, [0, 1, 2, 5, 3, 4]]
    filled = clip.clone()
    filled[:, 3:] = 1e3
    filled[..., 50:, :] = -1e3
    filled[..., 72:] = 7.0
    with torch.no_grad():
        wanted = model(clip, frame_mask, mask)
        for changed in (shuffled, filled):
            got = model(changed, frame_mask, mask)
            assert torch.equal(got.logits, wanted.logits)
            assert torch.equal(got.temporal_attention, wanted.temporal_attention)
            assert torch.equal(got.state.features, wanted.state.features)
            for name in ("heatmap_logits", "distances", "embeddings", "last_hidden_state", "spatial_attention"):
                assert torch.equal(got[name][:, :3], wanted[name][:, :3]), name
            for now, then in zip(
                got.state.hidden + got.state.cache, wanted.state.hidden + wanted.state.cache, strict=True
            ):
                assert torch.equal(now, then)


def test_frames_in_view_do_matter(make_model, make_clip):
    """The counterpart of the tests above: what is not padding changes the result."""
    model, clip, mask = make_model(), make_clip(1, 4), content_mask(64, 96, (50, 72))
    with torch.no_grad():
        wanted = model(clip, None, mask).logits
        assert not torch.allclose(model(clip[:, [1, 0, 2, 3]], None, mask).logits, wanted)
        changed = clip.clone()
        changed[..., 49, 71] += 5  # the last valid pixel
        assert not torch.allclose(model(changed, None, mask).logits, wanted)
        assert not torch.allclose(model(clip).logits, wanted)


def test_integer_masks_mean_the_same_as_boolean_ones(make_model, make_clip):
    model, clip = make_model(attention_window=2), make_clip(1, 4)
    frame_mask, mask = torch.tensor([[True, True, True, False]]), content_mask(64, 96, (50, 72))
    boxes = torch.tensor([0.0, 0, 40, 40]).expand(1, 4, 4)
    labels = {"region_boxes": boxes, "frame_labels": [[frame_label()] * 4]}
    with torch.no_grad():
        wanted = model(clip, frame_mask, mask, **labels)
        got = model(clip, frame_mask.long(), mask.long(), **labels)
    for name in ("logits", "heatmap_logits", "region_logits", "loss"):
        assert torch.equal(got[name], wanted[name])


# Labels and gradients


def test_loss_is_the_weighted_sum_of_named_terms(make_model, make_clip):
    model = make_model(attention_window=4, loss_weights={"box": 3.0, "group": 0.25, "heatmap": 0.0})
    with torch.no_grad():
        output = model(make_clip(2, 3), **all_labels())
    terms = output.loss_terms
    weights = {"action": 1.0, "region": 1.0, "movement": 1.0, "attention": 0.1, "group_fight": 0.25}
    weights |= {"heatmap": 0.0, "box": 3.0, "identity": 0.5, "keypoint": 1.0}
    assert set(terms) == set(weights)
    assert output.loss.item() == pytest.approx(sum(weights[name] * terms[name].item() for name in terms))


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"labels": None}, {"action", "region", "movement", "attention"}),
        ({"labels": torch.tensor([-100, -100])}, {"action", "region", "movement", "attention"}),
        ({"group_labels": None}, {"group_fight"}),
        ({"group_labels": {"fight": torch.tensor([-100, -100])}}, {"group_fight"}),
        ({"region_boxes": None}, {"region", "movement", "attention"}),
        ({"region_boxes": torch.full((2, 3, 4), float("nan"))}, {"region", "movement", "attention"}),
        ({"frame_labels": None}, {"heatmap", "box", "identity", "keypoint"}),
        ({"frame_labels": [[None] * 3] * 2}, {"heatmap", "box", "identity", "keypoint"}),
        ({"frame_labels": [[frame_label(), None, None], [None] * 3]}, {"identity"}),
    ],
    ids=[
        "no labels",
        "labels -100",
        "no groups",
        "groups -100",
        "no tube",
        "tube absent",
        "no boxes",
        "no frame",
        "one",
    ],
)
def test_missing_labels_switch_their_terms_off(make_model, make_clip, changes, missing):
    with torch.no_grad():
        output = make_model(attention_window=4)(make_clip(2, 3), **(all_labels() | changes))
    everything = {"action", "region", "movement", "attention", "group_fight", "heatmap", "box", "identity", "keypoint"}
    assert set(output.loss_terms) == everything - missing
    assert output.loss.isfinite()


def test_without_labels_there_is_no_loss(make_model, make_clip):
    labels = {"labels": torch.tensor([-100]), "frame_labels": [[None, None]]}
    with torch.no_grad():
        for output in (make_model()(make_clip(1, 2)), make_model()(make_clip(1, 2), **labels)):
            assert output.loss is None and output.loss_terms is None


def test_a_missing_label_leaves_the_other_samples_loss_alone(make_model, make_clip):
    model, clip = make_model(), make_clip(2, 3)
    labels = all_labels() | {"labels": torch.tensor([-100, 2])}
    boxes = labels["region_boxes"].clone()
    with torch.no_grad():
        terms = model(clip, labels=labels["labels"], region_boxes=boxes).loss_terms
        alone = model(clip[1:], labels=torch.tensor([2]), region_boxes=boxes[1:]).loss_terms
        boxes[0] = float("nan")
        absent = model(clip, labels=torch.tensor([1, 2]), region_boxes=boxes).loss_terms
    torch.testing.assert_close(terms, alone, **CLOSE)
    torch.testing.assert_close(absent["region"], alone["region"], **CLOSE)


def assert_every_parameter_learns(model, **inputs):
    model.train()
    model(**inputs).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert (parameter.grad != 0).any(), f"{name} has a gradient of zero"


@pytest.mark.parametrize(
    "overrides", [{}, {"bidirectional": True}, {"attention_window": 2}, {"scan": "chunked"}], ids=str
)
def test_every_parameter_receives_a_gradient(make_model, make_clip, overrides):
    assert_every_parameter_learns(
        make_model(classifier_dropout=0.0, **overrides), pixel_values_videos=make_clip(2, 3), **all_labels()
    )


@pytest.mark.parametrize("model_class", [KineTrackForVideoClassification, KineTrackForObjectTracking])
def test_parameters_without_gradient_are_only_those_the_task_cannot_use(make_model, make_clip, model_class):
    model = make_model(model_class)
    model(make_clip(2, 3), **all_labels()).loss.backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    # Nothing in tracking is a mean over time.
    tracking = model_class is KineTrackForObjectTracking
    assert without == ({"kinetrack.attention.temporal_projection.weight"} if tracking else set())


def test_backbone_statistics_stay_frozen_in_training(make_model, make_clip):
    model = make_model().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(make_clip(2, 3), **all_labels()).loss.backward()
    assert before  # the backbone has BatchNorms
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    clip = make_clip(2, 3)
    with torch.no_grad():
        # Dropout is before the classifier and nowhere else, so all maps are those of evaluation.
        training, evaluation = model(clip), model.eval()(clip)
    assert torch.equal(training.heatmap_logits, evaluation.heatmap_logits)


def test_a_few_steps_of_training_lower_the_loss(make_model, make_clip):
    model = make_model(dtype=torch.float32, classifier_dropout=0.0, loss_weights={"attention": 1.0}).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    clip, losses = make_clip(2, 3, dtype=torch.float32), []
    for _ in range(25):
        output = model(clip, **all_labels())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append({name: term.item() for name, term in output.loss_terms.items()})
    for name, first in losses[0].items():
        assert losses[-1][name] < first, name


# Saving and loading


def in_fresh_memory(model):
    """A weight in a mapped file may begin at any byte, and where it begins decides the last bit of a dot product."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def settings_of(config):
    settings = config.to_dict()
    return {key: value for key, value in settings.items() if key not in ("_name_or_path", "architectures", "dtype")}


@pytest.mark.parametrize("model_class", CLASSES)
def test_save_and_load_round_trip_gives_bit_equal_outputs(make_model, make_clip, tmp_path, model_class):
    model = make_model(model_class, dtype=torch.float32, bidirectional=model_class is KineTrackModel)
    model.save_pretrained(tmp_path)
    loaded, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert not loaded.training
    clip = make_clip(2, 3, dtype=torch.float32)
    with torch.no_grad():
        wanted, got = model(clip), in_fresh_memory(loaded)(clip)
    for name, value in wanted.items():
        if torch.is_tensor(value):
            assert torch.equal(got[name], value), name
    before, after = settings_of(model.config), settings_of(loaded.config)
    assert settings_of(model.config.backbone_config) == settings_of(loaded.config.backbone_config)
    assert {**before, "backbone_config": None} == {**after, "backbone_config": None}


@pytest.mark.parametrize("model_class", CLASSES[:3])
def test_a_part_loads_from_the_whole_models_folder(make_model, make_clip, tmp_path, model_class):
    whole = make_model(dtype=torch.float32)
    whole.save_pretrained(tmp_path)
    part, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    clip = make_clip(1, 3, dtype=torch.float32)
    with torch.no_grad():
        wanted, got = whole(clip), in_fresh_memory(part)(clip)
    assert torch.equal(got.last_hidden_state, wanted.last_hidden_state)
    for name in ("logits", "heatmap_logits", "distances", "embeddings"):
        if got.get(name) is not None:
            assert torch.equal(got[name], wanted[name])


def test_parts_that_a_checkpoint_lacks_start_as_in_a_new_model(make_model, tmp_path):
    make_model(KineTrackForVideoClassification, dtype=torch.float32).save_pretrained(tmp_path)
    model, info = KineTrackForVideoAnalysis.from_pretrained(tmp_path, output_loading_info=True)
    assert any(name.startswith("tracking_head") for name in info["missing_keys"])
    assert_fresh_tracking_head(model.tracking_head)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def assert_fresh_tracking_head(head):
    torch.testing.assert_close(head.heatmap.bias.sigmoid(), torch.full_like(head.heatmap.bias, 0.01))
    assert (head.distance.bias == 2).all()
    assert (head.attention_gain == 0).all()
    assert (head.stem.norm.weight == 1).all() and (head.stem.norm.bias == 0).all()
    assert 0.1 < head.stem.pointwise.weight.std() * head.stem.pointwise.weight.shape[1] ** 0.5 < 2


def test_new_weights_are_as_documented(make_config):
    model = KineTrackForVideoAnalysis(make_config(hidden_size=32, bidirectional=True))
    assert_fresh_tracking_head(model.tracking_head)
    for block in model.kinetrack.propagation:
        # The convolution over time starts as the identity; memories last from about one to twenty frames.
        assert (block.temporal_weight[-1] == 1).all() and (block.temporal_weight[:-1] == 0).all()
        for gate in (block.gate, block.backward_gate):
            torch.testing.assert_close(gate.bias, torch.linspace(-3, 1, 32))
    classifier = model.action_head.classifier
    assert (classifier.bias == 0).all() and 0.01 < classifier.weight.std() < 0.03
    assert 0.01 < model.kinetrack.attention.spatial_projection.weight.std() < 0.03


# Presets


@pytest.fixture(scope="module", params=["nano", "base"])
def preset(request):
    """The real architecture of a preset with random weights, and a clip of 64x96."""
    torch.manual_seed(0)
    config = KineTrackConfig.from_preset(
        request.param,
        id2label={0: "walk", 1: "run", 2: "sit"},
        label_groups={"fight": ["noFight", "fight"]},
        object_classes=["person", "ball"],
        attention_window=4,
        classifier_dropout=0.0,
    )
    return KineTrackForVideoAnalysis(config).eval(), torch.randn(2, 3, 3, 64, 96)


def test_preset_streams_as_it_runs_a_clip(preset):
    model, clip = preset
    with torch.no_grad():
        whole, state, maps = model.eval()(clip), None, []
        for t in range(3):
            output = model(clip[:, t : t + 1], state=state)
            state = output.state
            maps.append(output.heatmap_logits)
    torch.testing.assert_close(output.logits, whole.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.cat(maps, 1), whole.heatmap_logits, rtol=1e-4, atol=1e-4)


def test_preset_saves_and_loads_bit_equal(preset, tmp_path):
    model, clip = preset
    model.eval().save_pretrained(tmp_path)
    loaded = KineTrackForVideoAnalysis.from_pretrained(tmp_path)
    weights = loaded.state_dict()
    assert all(torch.equal(weights.pop(name), tensor) for name, tensor in model.state_dict().items())
    assert not weights
    with torch.no_grad():
        wanted, got = model(clip), in_fresh_memory(loaded)(clip)
    for name in ("logits", "heatmap_logits", "distances", "embeddings", "last_hidden_state"):
        assert torch.equal(got[name], wanted[name]), name


def test_preset_learns_in_every_parameter(preset):
    model, clip = preset
    with torch.no_grad():
        model.tracking_head.attention_gain.fill_(0.1)  # at 0, as in a new model, alpha gets no gradient from tracking
    try:
        assert_every_parameter_learns(model, pixel_values_videos=clip, **all_labels())
    finally:
        model.zero_grad(set_to_none=True)
        model.eval()
