"""Any 2D backbone by configuration alone: forward, backward, saving, batches and streams."""

import pytest
import torch
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.modeling.backbone_kinetrack import SimpleFeaturePyramid, indices_of_strides
from kinetrack.modeling.encoder_kinetrack import SpatialEncoder
from kinetrack.modeling.modeling_kinetrack import KineTrackForVideoAnalysis
from torch import nn

STAGES = {"out_features": ["stage2", "stage3", "stage4"]}
FRAMES = 3


def from_timm(name, out_indices, **model_args):
    settings = {"model_type": "timm_backbone", "backbone": name, "out_indices": out_indices}
    return settings | ({"model_args": model_args} if model_args else {})


def from_transformers(model_type, **settings):
    return {"model_type": model_type, **settings}


# Narrow versions of the real networks where the library can make them.
_NARROW = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 12, 16, 20]}
_DINOV2 = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
BACKBONES = {
    "resnet18": from_timm("resnet18", [2, 3, 4], channels=(8, 12, 16, 20)),
    "resnet50": from_timm("resnet50", [2, 3, 4], layers=(1, 1, 1, 1), channels=(4, 6, 8, 10)),
    "efficientnet_lite0": from_timm("tf_efficientnet_lite0", [2, 3, 4]),
    "mobilenetv3_small": from_timm("mobilenetv3_small_050", [2, 3, 4]),
    "convnext_atto": from_timm("convnext_atto", [1, 2, 3], depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)),
    "convnextv2_atto": from_timm("convnextv2_atto", [1, 2, 3], depths=(1, 1, 1, 1), dims=(8, 12, 16, 20)),
    "edgenext_xx_small": from_timm("edgenext_xx_small", [1, 2, 3], depths=(1, 1, 1, 1)),
    "mobilevit_xxs": from_timm("mobilevit_xxs", [2, 3, 4]),
    "fastvit_t8": from_timm("fastvit_t8", [1, 2, 3], layers=(1, 1, 1, 1)),
    "swin": from_timm(
        "swin_tiny_patch4_window7_224", [1, 2, 3], embed_dim=12, depths=(1, 2, 1, 1), num_heads=(1, 2, 2, 4)
    ),
    "vit": from_timm("vit_tiny_patch16_224", [-1], embed_dim=24, depth=3, num_heads=2),
    "vit with rotary positions": from_timm("vit_small_patch16_dinov3", [-1], embed_dim=32, depth=2, num_heads=2),
    "transformers resnet": from_transformers("resnet", embedding_size=8, **_NARROW, **STAGES),
    "transformers convnextv2": from_transformers("convnextv2", **_NARROW, **STAGES),
    "transformers swin": from_transformers(
        "swin", image_size=64, embed_dim=12, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4], window_size=4, **STAGES
    ),
    "transformers dinov2": from_transformers("dinov2", out_features=["stage3"], **_DINOV2),
}


def scatter_statistics(model):
    """Weights and BatchNorm statistics off their initial values, mildly: deep networks would overflow otherwise."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        for name, low, high in (("running_mean", -0.1, 0.1), ("running_var", 0.7, 1.4)):
            if getattr(module, name, None) is not None:
                getattr(module, name).data.uniform_(low, high, generator=generator)
    for name, parameter in model.named_parameters():
        if "backbone" not in name:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        elif parameter.dim() <= 1 or "gamma" in name:  # layer scale starts at 1e-6 and would hide its branch
            parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator).abs())
    return model


@pytest.fixture(scope="module", params=BACKBONES, ids=str)
def model(request, make_config):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = make_config(backbone_config=BACKBONES[request.param], attention_window=4, statistics_channels=0)
        config.statistics_channels = SpatialEncoder(config).channels[2]
        return scatter_statistics(KineTrackForVideoAnalysis(config)).eval()


@pytest.fixture(scope="module")
def clip(make_clip):
    return make_clip(2, FRAMES, 64, 96, dtype=torch.float32)


@pytest.fixture(scope="module")
def whole(model, clip):
    with torch.no_grad():
        return model(clip)


PER_FRAME = ("spatial_attention", "last_hidden_state", "heatmap_logits", "distances", "embeddings")
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def test_maps_have_strides_8_16_and_32(model, clip):
    with torch.no_grad():
        features, pyramid, fine, coarse = model.kinetrack.encoder(clip[:, 0])
    channels = model.kinetrack.encoder.channels
    assert features.shape == (2, 8, 4, 6) and pyramid.shape == (2, 8, 8, 12) and fine.shape == (2, channels[0], 8, 12)
    assert coarse.shape == (2, channels[2], 2, 3)
    for maps in (features, pyramid, fine, coarse):
        assert maps.isfinite().all() and maps.std() > 1e-3


def test_frames_and_clips_do_not_mix(model, clip, whole):
    with torch.no_grad():
        alone = [model(clip[row : row + 1]) for row in range(2)]
        frames = [model.kinetrack.encoder(clip[:, t])[0] for t in range(FRAMES)]
        together = model.kinetrack.encoder(clip.flatten(0, 1))[0].unflatten(0, (2, FRAMES))
    torch.testing.assert_close(torch.stack(frames, 1), together, **CLOSE)
    for name in ("logits", *PER_FRAME):
        torch.testing.assert_close(torch.cat([output[name] for output in alone]), whole[name], **CLOSE)


def test_stream_equals_clip(model, clip, whole):
    steps, state = [], None
    with torch.no_grad():
        for t in range(FRAMES):
            steps.append(model(clip[:, t : t + 1], state=state))
            state = steps[-1].state
    torch.testing.assert_close(steps[-1].logits, whole.logits, **CLOSE)
    for name in PER_FRAME:
        torch.testing.assert_close(torch.cat([step[name] for step in steps], 1), whole[name], **CLOSE)


def test_gradients_reach_the_backbone_and_statistics_stay_frozen(model, clip):
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    try:
        # In PyTorch 2.14.1 oneDNN corrupts memory in the gradient of FastViT's stem: 1x1, stride 2, three channels.
        with torch.backends.mkldnn.flags(enabled=False):
            output = model(clip)
            (output.logits.square().sum() + output.heatmap_logits.square().mean() + output.distances.mean()).backward()
        gradients = {
            name: parameter.grad
            for name, parameter in model.kinetrack.encoder.named_parameters()
            if parameter.grad is not None
        }
        # The first layer is the farthest from the loss; norms of maps that are not used have no gradient.
        first = next(name for name, parameter in model.kinetrack.encoder.named_parameters() if parameter.dim() == 4)
        assert first in gradients and gradients[first].abs().max() > 0
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        assert len(gradients) > 0.8 * len(list(model.kinetrack.encoder.parameters()))
        assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    finally:
        model.eval().zero_grad()


def test_saved_and_loaded_model_gives_the_same(model, clip, whole, tmp_path):
    model.save_pretrained(tmp_path)
    loaded, report = KineTrackForVideoAnalysis.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    # Buffers that are not in the file, such as positions, are made anew.
    for kind in ("named_parameters", "named_buffers"):
        ours, theirs = dict(getattr(model, kind)()), dict(getattr(loaded, kind)())
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        output = loaded.eval()(clip)
    for name in ("logits", *PER_FRAME):  # where tensors lie in memory can change a kernel's order of sums
        torch.testing.assert_close(output[name], whole[name], **CLOSE)


def test_another_canvas_works_too(model, make_clip):
    with torch.no_grad():
        assert model(make_clip(1, 1, 96, 32, dtype=torch.float32)).heatmap_logits.shape[-2:] == (12, 4)


# What is not in the table


def test_pyramid_of_a_plain_transformer_is_a_transposed_convolution_the_map_and_its_maximum():
    pyramid = SimpleFeaturePyramid(6, eps=1e-5)
    middle = torch.randn(2, 6, 4, 6)
    fine, same, coarse = pyramid((middle,))
    normed = nn.functional.layer_norm(middle.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)
    kernel = pyramid.up.weight.view(3, 2, 2, 6).permute(3, 0, 1, 2)  # (C, C/2, 2, 2)
    up = nn.functional.conv_transpose2d(normed, kernel, stride=2)
    up = up + pyramid.up.bias.view(3, 2, 2).repeat(1, 4, 6)
    torch.testing.assert_close(fine, nn.functional.layer_norm(up.permute(0, 2, 3, 1), (3,)).permute(0, 3, 1, 2))
    torch.testing.assert_close(same, normed)
    torch.testing.assert_close(coarse, nn.functional.max_pool2d(normed, 2))
    assert fine.shape == (2, 3, 8, 12) and coarse.shape == (2, 6, 2, 3)


@pytest.mark.parametrize(
    ("backbone_config", "message"),
    [
        (from_timm("resnet18", [1, 2, 3]), r"gives 3 maps at stride 4, 8, 16. Set `out_indices=\[2, 3, 4\]`"),
        (from_timm("resnet18", [-1]), r"gives 1 map at stride 32. Set `out_indices=\[2, 3, 4\]`"),
        (from_timm("convnextv2_atto", [2, 3]), r"gives 2 maps at stride 16, 32. Set `out_indices=\[1, 2, 3\]`"),
        (from_timm("vit_tiny_patch16_224", [9, 10, 11]), r"stride 16, 16, 16. Set `out_indices=\[-1\]`"),
        (from_timm("vit_small_patch14_dinov2", [-1], depth=1), "stride 14.*choose another backbone"),
        (from_timm("levit_128s", [0, 1, 2]), "levit_128s works at one input size only"),
        (from_transformers("resnet", out_features=["stage4"]), r"gives 1 map. Choose them by `out_features` from"),
        (
            from_transformers("dinov2", out_features=["stage1"], **(_DINOV2 | {"patch_size": 14})),
            "stride 14.*patch_size=16",
        ),
    ],
    ids=lambda value: value.get("backbone", value["model_type"]) if isinstance(value, dict) else "",
)
def test_backbone_without_these_strides_says_what_would_do(make_config, backbone_config, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        KineTrackForVideoAnalysis(make_config(backbone_config=backbone_config))


def test_wrong_stages_of_a_hierarchical_network_are_seen_in_the_maps(make_config, make_clip):
    stages = {"out_features": ["stage1", "stage2", "stage3"]}
    backbone = from_transformers("resnet", embedding_size=8, **_NARROW, **stages)
    model = KineTrackForVideoAnalysis(make_config(backbone_config=backbone))
    with torch.no_grad(), pytest.raises(ValueError, match="must give feature maps at strides 8, 16 and 32"):
        model(make_clip(1, 1, dtype=torch.float32))


def test_network_of_one_size_works_when_the_canvas_is_fixed(make_config, make_clip):
    backbone = from_timm("efficientformerv2_s0", [1, 2, 3], img_size=[64, 64], depths=(1, 1, 1, 1))
    model = KineTrackForVideoAnalysis(make_config(backbone_config=backbone)).eval()
    with torch.no_grad():
        assert model(make_clip(1, 1, 64, 64, dtype=torch.float32)).logits.isfinite().all()


def test_dropped_paths_are_random_in_training_only(make_config, make_clip):
    backbone = from_timm("convnextv2_atto", [1, 2, 3], depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), drop_path_rate=0.9)
    model = scatter_statistics(KineTrackForVideoAnalysis(make_config(backbone_config=backbone)))
    clip = make_clip(1, 2, 64, 64, dtype=torch.float32)
    with torch.no_grad():
        in_training = [model.train()(clip).last_hidden_state for _ in range(2)]
        in_use = [model.eval()(clip).last_hidden_state for _ in range(2)]
    assert not torch.equal(*in_training) and torch.equal(*in_use)


def test_norms_that_are_not_pytorchs_have_frozen_statistics_too(make_config, make_clip):
    """timm's EvoNorm-B0 uses batch statistics in training, but is no BatchNorm class."""
    from timm.layers import EvoNorm2dB0

    model = KineTrackForVideoAnalysis(make_config(backbone_config=BACKBONES["transformers resnet"]))
    norm = EvoNorm2dB0(8)
    model.kinetrack.encoder.backbone.embedder.embedder.normalization = norm
    before = norm.running_var.clone()
    model.train()(make_clip(1, 2, 64, 64, dtype=torch.float32))
    assert torch.equal(norm.running_var, before)


@pytest.mark.parametrize(
    ("strides", "indices"),
    [
        ([2, 4, 8, 16, 32], [2, 3, 4]),
        ([4, 8, 16, 32], [1, 2, 3]),
        ([8, 16, 16, 32], [0, 2, 3]),
        ([16, 16, 16], [-1]),
        ([16, 32, 64], None),
        ([14], None),
    ],
)
def test_indices_of_strides(strides, indices):
    assert indices_of_strides(strides) == indices


def test_nano_fits_its_file_size():
    with torch.device("meta"):
        model = KineTrackForVideoAnalysis(KineTrackConfig.from_preset("nano", num_labels=30))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) * 4 <= 20e6
