"""Which of Transformers' common tests KineTrack does not run as they are, and why. Nothing else skips or differs.

A parametrised test stands here once, under the name it has in the mixin.
"""

_NO_TEXT = "for models with tokens and their embeddings"
_NO_HEADS = (
    "for multi-head self-attention; KineTrack's are two single learned projections (test_common_expectations.py)"
)
_FLASH = "for Flash Attention kernels"
_NO_MOE = "for mixtures of experts"
_NO_ROPE = "for rotary position embeddings"
_NO_PLAN = "for models with a tensor-parallel plan"
_ACCELERATOR = "needs an accelerator; offload on the CPU is in test_common_expectations.py"
_NO_RENAMING = "for models whose weights are renamed while loading"
_NO_RECORDER = "for models that record hidden states by hooks; here the forward pass keeps them itself"

# What the mixins ask about a model, where KineTrack's answer is not the default.
SWITCHES = {
    "has_attentions": _NO_HEADS,
    "test_all_params_have_gradient": "off for tracking: nothing in it is a mean over time, so w_tau learns nothing",
    "test_can_init_all_missing_weights_before_2023": "on: it tells a model's age by a line our files lack",
    "test_resize_embeddings": _NO_TEXT,
}

# Tests (and the mixins' own functions) that KineTrack replaces by its own.
OVERRIDES = {
    "_prepare_for_class": "adds the labels of detection and tracking, which the mixin does not know",
    "test_hidden_states_output": "hidden states are (B, T, D, H/16, W/16), not (B, sequence, D)",
    "test_model_get_set_embeddings": "no embeddings: their absence is an error that says so",
    "test_video_processor_from_dict_with_kwargs": "the size is a canvas, height and width; there is no cropping",
    "test_call_sample_frames": "a clip shorter than `num_frames` is masked, which is no error",
}

# Tests that would fail for reasons that are none of KineTrack's.
SKIPS = {}

# Tests that the library itself skips for a model like this one, or on a machine without an accelerator.
LIBRARY_SKIPS = {
    **dict.fromkeys(
        [
            "test_causal_lm_loss_honors_shift_labels",
            "test_encoder_decoder_loss_no_double_shift",
            "test_enable_input_require_grads_with_gradient_checkpointing",
            "test_inputs_embeds",
            "test_inputs_embeds_matches_input_ids",
            "test_resize_embeddings_untied",
            "test_resize_embeddings_untied_no_reinit_on_post_init",
            "test_resize_embeddings_untied_with_deepspeed",
            "test_resize_embeddings_untied_with_deepspeed_multi_gpu",
            "test_resize_position_vector_embeddings",
            "test_resize_tokens_embeddings",
            "test_resize_tokens_embeddings_with_deepspeed",
            "test_resize_tokens_embeddings_with_deepspeed_multi_gpu",
        ],
        _NO_TEXT,
    ),
    **dict.fromkeys(
        [
            "test_attention_outputs",
            "test_attn_implementation_composite_models",
            "test_can_set_attention_dynamically",
            "test_can_set_attention_dynamically_composite_model",
            "test_eager_matches_sdpa_inference",
            "test_sdpa_can_dispatch_composite_models",
            "test_sdpa_can_dispatch_non_composite_models",
            "test_sliding_window_mask",
        ],
        _NO_HEADS,
    ),
    **dict.fromkeys(
        [
            "test_flash_attn_2_can_compile_with_attention_mask_None_without_graph_break",
            "test_flash_attn_2_can_dispatch_composite_models",
            "test_flash_attn_2_fp32_ln",
            "test_flash_attn_2_from_config",
            "test_flash_attn_2_inference_equivalence",
            "test_flash_attn_2_inference_equivalence_right_padding",
            "test_flash_attn_3_can_dispatch_composite_models",
            "test_flash_attn_3_from_config",
            "test_flash_attn_3_inference_equivalence",
            "test_flash_attn_3_inference_equivalence_right_padding",
            "test_flash_attn_4_can_dispatch_composite_models",
            "test_flash_attn_4_from_config",
            "test_flash_attn_4_inference_equivalence",
            "test_flash_attn_4_inference_equivalence_right_padding",
            "test_flash_attn_kernels_inference_equivalence",
            "test_flash_attn_kernels_mps_inference_equivalence",
            "test_kernels_can_load_without_crashing",
            "test_sdpa_can_dispatch_on_flash",
        ],
        _FLASH,
    ),
    **dict.fromkeys(
        [
            "test_eager_matches_batched_and_grouped_inference",
            "test_moe_models_record_router_logits",
            "test_output_router_logits_from_config",
        ],
        _NO_MOE,
    ),
    **dict.fromkeys(
        [
            "test_model_rope_scaling_frequencies",
            "test_model_rope_scaling_from_config",
            "test_model_rope_with_partial_rotation",
            "test_vision_axial_rope",
        ],
        _NO_ROPE,
    ),
    **dict.fromkeys(["test_tied_head_has_a_tp_plan_entry", "test_tp_plan_matches_params"], _NO_PLAN),
    **dict.fromkeys(
        [
            "test_can_load_with_device_context_manager",
            "test_can_load_with_global_device_set",
            "test_cpu_offload",
            "test_disk_offload_bin",
            "test_disk_offload_safetensors",
            "test_flex_attention_with_grads",
            "test_model_parallelism",
            "test_sdpa_can_compile_dynamic",
        ],
        _ACCELERATOR,
    ),
    **dict.fromkeys(["test_can_load_from_already_mapped_keys", "test_reverse_loading_mapping"], _NO_RENAMING),
    **dict.fromkeys(["test_can_capture_specific_layers_hidden_states", "test_capture_outputs_decorator"], _NO_RECORDER),
    **dict.fromkeys(
        ["test_keep_in_fp32_modules", "test_keep_in_fp32_modules_exist"], "no module is kept in float32 when loading"
    ),
    "test_override_instance_attributes_does_not_affect_other_instances": "the library keeps size and mean immutable",
    "test_can_compile_fast_video_processor": "slow, and needs an accelerator",
    "test_video_processor_preprocess_arguments": "for two older ways to check arguments; unknown ones are refused here",
    "test_torch_compile_for_training": "slow; compiling is in test_export.py",
    "test_can_load_ignoring_mismatched_shapes": "looks for the classifier among the model's children; ours is inside"
    " its head (test_common_expectations.py)",
}
