"""The teacher: its weights are arrays and nothing else, and its layers are those of the paper."""

import pickle

import pytest
import torch
from kinetrack.hub_scripts.i3d import I3D, read_i3d_weights


@pytest.mark.parametrize(("frames", "height", "width"), [(16, 64, 96), (9, 65, 97)])
def test_features_are_at_strides_8_and_32(teacher_file, frames, height, width):
    network = I3D(read_i3d_weights(teacher_file)).eval()
    features = network(torch.randn(1, 3, frames, height, width))
    assert features.shape == (1, 8, -(-frames // 8), -(-height // 32), -(-width // 32))


def test_a_unit_is_a_convolution_a_norm_and_a_relu(teacher_file):
    weights = read_i3d_weights(teacher_file)
    network = I3D(weights).double()
    convolution = torch.nn.Conv3d(3, 2, 7, stride=2, bias=False)
    norm = torch.nn.BatchNorm3d(2, eps=1e-3).eval()
    name = "Conv3d_1a_7x7"
    with torch.no_grad():
        convolution.weight.copy_(torch.from_numpy(weights[f"params/{name}/Conv_0/kernel"]).permute(4, 3, 0, 1, 2))
        norm.bias.copy_(torch.from_numpy(weights[f"params/{name}/BatchNorm_0/bias"]))
        norm.running_mean.copy_(torch.from_numpy(weights[f"batch_stats/{name}/BatchNorm_0/mean"]))
        norm.running_var.copy_(torch.from_numpy(weights[f"batch_stats/{name}/BatchNorm_0/var"]))
        frames = torch.randn(1, 3, 16, 32, 32, dtype=torch.float64)
        padded = torch.nn.functional.pad(
            frames, (2, 3) * 3
        )  # an even side at stride 2 lacks five, the third at the end
        expected = norm.double()(convolution.double()(padded)).relu()
        torch.testing.assert_close(network.stem(frames), expected, rtol=1e-5, atol=1e-6)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.ckpt"
    path.write_bytes(pickle.dumps({"params": print}))
    with pytest.raises(pickle.UnpicklingError, match="builtins.print"):
        read_i3d_weights(path)
