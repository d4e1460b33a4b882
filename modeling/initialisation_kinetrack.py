"""What all KineTrack models share: how weights begin, how they are loaded, and which loss is theirs."""

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ..configuration.configuration_kinetrack import KineTrackConfig
from ..modeling.difference_kinetrack import MotionEncoder
from ..modeling.encoder_kinetrack import ChannelNorm, SpatialEncoder
from ..modeling.heads_kinetrack import TrackingHead, prior_bias
from ..modeling.loss_kinetrack import weighted_sum
from ..modeling.propagation_kinetrack import TemporalPropagation


class KineTrackPreTrainedModel(PreTrainedModel):
    """Weights, loading and saving shared by all KineTrack models."""

    config_class = KineTrackConfig
    base_model_prefix = "kinetrack"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["SpatialEncoder", "TemporalPropagation"]

    @torch.no_grad()
    def _init_weights(self, module):
        """Fills new parameters; the backbone initialises itself, but for timm's on the meta device."""
        std = self.config.initializer_range
        if isinstance(module, TemporalPropagation):
            # The convolution over time starts as the identity, and memories from about one to twenty frames long.
            # One call for the whole tensor: `init` leaves loaded tensors alone, but does not know a slice of one.
            identity = torch.zeros_like(module.temporal_weight)
            identity[-1] = 1
            init.copy_(module.temporal_weight, identity)
            for gate in (module.gate, module.backward_gate):
                if gate is not None:
                    init.copy_(gate.bias, torch.linspace(-3.0, 1.0, gate.bias.numel(), device=gate.bias.device))
        elif isinstance(module, SpatialEncoder):
            module.initialize_backbone(self.config)
        elif isinstance(module, MotionEncoder):
            init.constant_(module.gain, 0.1)
        elif isinstance(module, TrackingHead):
            init.zeros_(module.attention_gain)
            init.constant_(module.heatmap.bias, prior_bias())
            init.constant_(module.distance.bias, 2.0)
        elif isinstance(module, (ChannelNorm, nn.LayerNorm)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="linear")
            if module.bias is not None:
                init.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def _initialize_weights(self, module, *is_custom_code):
        # Of code that is not its own the library skips modules without tensors of their own, in the belief that all
        # they have was loaded. `_init_weights` needs no such care: `init` knows every tensor that was.
        super()._initialize_weights(module, *(False for _ in is_custom_code))

    def loss_function(self, *args, **kwargs):
        """The project's own losses are in `loss_kinetrack`; the library's are not used."""
        return weighted_sum(*args, **kwargs)
