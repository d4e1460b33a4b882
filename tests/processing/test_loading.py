"""What is loaded as a model, and what never is."""

import pytest
from kinetrack.configuration.configuration_kinetrack import KineTrackConfig
from kinetrack.processing.loading import load_model
from kinetrack.processing.video_processing_kinetrack import KineTrackVideoProcessor


def test_pickled_weights_are_refused_unread(tmp_path):
    KineTrackConfig(trained=True).save_pretrained(tmp_path)
    KineTrackVideoProcessor().save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    with pytest.raises(ValueError, match=r"are a pickle \(pytorch_model.bin\).*save_pretrained`\.$"):
        load_model(tmp_path)
