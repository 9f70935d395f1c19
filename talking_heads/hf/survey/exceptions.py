"""What single architectures ask for beyond the rules of `toy` and `inputs`."""

from fnmatch import fnmatchcase
from typing import Any

import torch

from ...anatomy.inputs import random, sought

_MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}
_MOE = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}

_SHARED_KEYS = {  # the last two layers take keys and values of the first two
    "num_kv_shared_layers": 2,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}

_RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 16, 32, 64],
    "depths": [1, 1, 1, 1],
    "out_features": ["stage4"],
}
_SWIN = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 32,
    "depths": (1, 1, 1, 1),
    "num_heads": (2, 2, 4, 4),
    "window_size": 4,
}
_MASKFORMER_SWIN = {
    "model_type": "maskformer-swin",
    **_SWIN,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
_RT_DETR_RESNET = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 16, 32, 64],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
    "out_indices": [2, 3, 4],
}
_RT_DETR = {
    "backbone_config": _RT_DETR_RESNET,
    "encoder_in_channels": [16, 32, 64],
    "decoder_in_channels": [64, 64, 64],
    "feat_strides": [8, 16, 32],
    "encode_proj_layers": [2],
    "num_denoising": 0,
    "num_queries": 8,
}
_HGNET: dict[str, Any] = {
    "backbone_config": {
        "model_type": "hgnet_v2",
        "stem_channels": [3, 16, 16],
        "hidden_sizes": [16, 32, 32, 64],
        "stage_in_channels": [16, 16, 32, 32],
        "stage_mid_channels": [8, 8, 16, 16],
        "stage_out_channels": [16, 32, 32, 64],
        "stage_num_blocks": [1, 1, 1, 1],
        "stage_numb_of_layers": [1, 1, 1, 1],
        "out_features": ["stage2", "stage3", "stage4"],
    },
    "encoder_in_channels": [32, 32, 64],
    "decoder_in_channels": [64, 64, 64],
    "feat_strides": [8, 16, 32],
    "encode_proj_layers": [2],
    "num_denoising": 0,
    "num_queries": 8,
}
_FOUR_STAGES = {
    "backbone_config": _HGNET["backbone_config"] | {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
}
_SERIES = {"prediction_length": 4, "context_length": 8, "lags_sequence": [1, 2], "num_time_features": 1}

# Fields by the name of the config class.
CONFIGS: dict[str, dict[str, Any]] = {
    "BltConfig": {"encoder_hash_byte_group_vocab": 500},
    "BambaConfig": {"attn_layer_indices": [1]},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 4}},
    "CohereCompassTextConfig": {"layer_types": None, "num_hidden_layers": 4},
    "ConditionalDetrConfig": {"backbone_config": _RESNET},
    "DbrxAttentionConfig": {"rope_theta": 10000.0, "clip_qkv": 8.0},
    "DecisionTransformerConfig": {"vocab_size": 128, "hidden_size": 64, "n_head": 4},
    "DeepseekV2Config": {"num_experts_per_tok": 2, "topk_group": 1, "n_group": 1},
    "DeepseekOcr2TextConfig": {"mlp_layer_types": ["dense", "sparse"], "num_experts_per_tok": 2},
    "DeformableDetrConfig": {"backbone_config": _RESNET},
    "DetrConfig": {"backbone_config": _RESNET},
    "DFineConfig": _HGNET,
    "Deimv2Config": _HGNET,
    "DiffusionGemmaTextConfig": {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
    "Dots1Config": _MOE,
    "Emu3Config": {"vocabulary_map": {"<image>": 4}},
    "Ernie4_5_MoeConfig": {"moe_k": 2},
    "Ernie4_5_VLMoeTextConfig": {
        "moe_k": 2,
        "moe_intermediate_size": [32, 32],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [3, 3, 2]},
    },
    "EsmConfig": {"vocab_size": 128, "pad_token_id": 1, "mask_token_id": 2},
    "EfficientLoFTRConfig": {
        "coarse_matching_threshold": 0.0,  # random features match little,
        "coarse_matching_border_removal": 0,  # and a toy picture is all border
        "hidden_size": 64,
        "num_attention_heads": 8,
        "out_features": [32, 32, 64, 64],
        "stage_num_blocks": [1, 1, 1, 1],
    },
    "Exaone4_5_VisionConfig": {"window_size": 32, "fullatt_block_indexes": (1,)},
    "FunAsrNanoAdaptorConfig": {"hidden_size": 64, "intermediate_size": 16},
    "Gemma3nTextConfig": _SHARED_KEYS | {"vocab_size_per_layer_input": 128},
    "Gemma4TextConfig": _SHARED_KEYS,
    "Gemma4UnifiedTextConfig": _SHARED_KEYS,
    "Glm4vTextConfig": _MROPE,
    "Glm4vMoeTextConfig": _MROPE,
    "GlmOcrTextConfig": _MROPE,
    "GlmImageTextConfig": _MROPE,
    "Glm5NextTextConfig": {"index_topk": 4, "index_kpool": 2},
    "GraniteMoeHybridConfig": {"layer_types": ["mamba", "attention"], "position_embedding_type": "rope"},
    "HunYuanVLTextConfig": _MROPE,
    "InformerConfig": _SERIES | {"distil": False},
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False},
    "Lfm2MoeConfig": {
        "layer_types": ["conv", "full_attention"],
        "num_dense_layers": 1,
        "num_hidden_layers": 2,
    },
    "Llama4VisionConfig": {"intermediate_size": 256, "projector_input_dim": 64, "projector_output_dim": 64},
    "LightGlueConfig": {"keypoint_detector_config": {"keypoint_decoder_dim": 65}},
    "LwDetrConfig": {"projector_scale_factors": [1.0]},
    "LwDetrViTConfig": {
        "image_size": 64,
        "patch_size": 8,
        "num_windows": 4,
        "out_features": ["stage1", "stage2"],
    },
    "MarkupLMConfig": {
        "max_xpath_tag_unit_embeddings": 256,
        "max_xpath_subs_unit_embeddings": 1024,
        "tag_pad_id": 216,
        "subs_pad_id": 1001,
    },
    "MaskFormerConfig": {"backbone_config": _MASKFORMER_SWIN},
    "MimiConfig": {"upsample_groups": 64, "num_filters": 8},
    "MimiDecoderConfig": {"upsample_groups": 64, "num_filters": 8},
    "MuseGlimmerAssistantConfig": {"target_layer_ids": [1]},
    "NeuCodecConfig": {"quantization_dim": 128},
    "Xcodec2Config": {"quantization_dim": 128},
    "NemotronConfig": {"num_key_value_heads": 2},
    "PaddleOCRTextConfig": _MROPE,
    "PatchTSMixerConfig": {"self_attn": True, "self_attn_heads": 2},
    "Pix2StructTextConfig": {"initializer_range": 0.02},
    "PocketTTSAudioTokenizerDecoderConfig": {"upsample_groups": 64},
    "Qwen2VLTextConfig": _MROPE,
    "Qwen2_5_VLTextConfig": _MROPE,
    "Qwen2_5_VLVisionConfig": {"window_size": 32, "fullatt_block_indexes": (1,)},
    "Qwen2_5OmniTextConfig": _MROPE,
    "Qwen2_5OmniTalkerConfig": _MROPE,
    "Qwen2_5OmniThinkerConfig": {"vision_start_token_id": 100, "vision_end_token_id": 101},
    "Qwen2_5OmniVisionEncoderConfig": {"window_size": 32, "fullatt_block_indexes": (1,)},
    "RecurrentGemmaConfig": {"block_types": ("recurrent", "attention"), "attention_window_size": 8},
    "RTDetrConfig": _RT_DETR,
    "RTDetrV2Config": _RT_DETR,
    "PPDocLayoutV2Config": _HGNET,
    "PPDocLayoutV3Config": _HGNET | _FOUR_STAGES | {"x4_feat_dim": 16},
    "PPDocLayoutV4Config": _HGNET,
    "PPOCRV5ServerRecConfig": _FOUR_STAGES,
    "PPLCNetV4Config": {"stem_channels": (3, 48, 96)},
    "SamHQVisionConfig": {"num_pos_feats": 32},
    "SamVisionConfig": {"num_pos_feats": 32},
    "SegformerConfig": {
        "depths": (1, 1, 1, 1),
        "hidden_sizes": (16, 32, 64, 64),
        "num_attention_heads": (2, 2, 4, 4),
        "sr_ratios": (2, 2, 1, 1),  # more than one key
    },
    "Step3p7TextConfig": {"sliding_window": 4},
    "SwinConfig": _SWIN,
    "TimeSeriesTransformerConfig": _SERIES,
    "XmodConfig": {"default_language": "en_XX"},
    "ZambaConfig": {
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "num_hidden_layers": 4,
        "use_mamba_kernels": False,
    },
    "Zamba2Config": {
        "layers_block_type": ["mamba", "hybrid"],
        "use_mamba_kernels": False,
        "n_mamba_heads": 2,
    },
}


def _zeros(*shape: int) -> Any:
    return lambda model: torch.zeros(*shape, dtype=torch.long)


def _ones(*shape: int) -> Any:
    return lambda model: torch.ones(*shape, dtype=torch.long)


def _random(*shape: int | str) -> Any:
    """A random tensor whose sizes are numbers, or names of the config's fields."""
    return lambda model: random(*(x if isinstance(x, int) else sought(model.config, x, 1) for x in shape))


def _ids(*shape: int) -> Any:
    return lambda model: torch.randint(5, 60, shape, generator=torch.Generator().manual_seed(4))


_PAST = {
    "past_values": _random(2, 10),
    "past_time_features": _random(2, 10, 1),
    "past_observed_mask": lambda model: torch.ones(2, 10, dtype=torch.float64),
    "future_values": _random(2, 4),
    "future_time_features": _random(2, 4, 1),
}

# Arguments of forward by pattern of the model class's name; a function is called with the model.
INPUTS: dict[str, dict[str, Any]] = {
    "AST*": {"input_values": _random(2, "max_length", "num_mel_bins")},
    "AudioFlamingo3Encoder": {
        "input_features_mask": _ones(2, 64),
        "input_features": _random(2, "num_mel_bins", 64),
    },
    "Idefics*": {"pixel_values": _random(2, 1, 3, "image_size", "image_size")},
    "IdeficsModel": {"image_attention_mask": _ones(2, 10, 1)},
    "IdeficsForVisionText2Text": {"image_attention_mask": _ones(2, 10, 1)},
    "Idefics3VisionTransformer": {"pixel_values": _random(2, 3, "image_size", "image_size")},
    "EfficientLoFTR*": {"pixel_values": _random(2, 2, 3, 64, 64)},
    "FunAsrNanoEncoder": {"input_features": _random(2, 16, 560), "input_features_mask": _ones(2, 16)},
    "GlmImageVisionModel": {"pixel_values": _random(48, 192)},
    "HunYuanVLVisionTransformer": {"pixel_values": _random(48, 192)},
    "PPOCR*": {"pixel_values": _random(2, 3, 128, 256)},
    "GraniteSpeech5*": {"input_features": _random(2, 64, 320)},
    "KyutaiSpeechToText*": {"input_ids": _ids(2, 10, 33), "attention_mask": None},
    "NeuCodecModel": {"input_values": _random(2, 1, 4000), "input_features": _random(2, 12, 64)},
    "Pix2Struct*": {"flattened_patches": lambda model: random(2, 10, 66).abs()},  # row and column first
    "TimesFmModel": {
        "past_values": _random(2, 128),
        "past_values_padding": _zeros(2, 128),
        "freq": _ones(2, 1),
    },
    "TimesFm2_5Model": {"past_values": _random(2, 128)},
    "Xcodec2Model": {"input_values": _random(2, 1, 4000), "input_features": _random(2, 12, 64)},
    "Informer*": _PAST,
    "LightGlue*": {"pixel_values": _random(2, 2, 3, 64, 64)},
    "MimiModel": {"input_values": _random(2, 1, 4000)},
    "MimiEncoderModel": {"input_values": _random(2, 1, 4000)},
    "PeAudio*": {"input_values": _random(2, 1, 4000)},
    "Musicgen*": {"input_ids": _ids(8, 10), "decoder_input_ids": _ids(8, 10), "attention_mask": None},
    "PocketTTSAudioTokenizerEncoderModel": {"input_values": _random(2, 1, 4000)},
    "PocketTTSAudioTokenizerModel": {"input_values": _random(2, 1, 4000)},
    "TimeSeriesTransformer*": _PAST,
    "Udop*": {"bbox": lambda model: torch.arange(80.0, dtype=torch.float64).view(2, 10, 4) / 80},
    "VideoMAE*": {"pixel_values": _random(2, 16, 3, "image_size", "image_size")},
    "Vivit*": {"pixel_values": _random(2, 32, 3, "image_size", "image_size")},
    "Wav2Vec2Bert*": {"input_features": _random(2, 16, 64)},
}


def variants(kind: str) -> list[dict[str, Any]]:
    """The ways to build a model class: as it is, with features that have time first, and as a decoder with
    attention to an encoder."""
    given: dict[str, Any] = {}
    for pattern, values in INPUTS.items():
        if fnmatchcase(kind, pattern):
            given |= values
    found: list[dict[str, Any]] = [{"inputs": given}]
    if "input_features" not in given:
        found.append(
            {"inputs": given | {"input_features": _random(2, 64, "num_mel_bins")}, "only": "input_features"}
        )
    if kind.endswith(("LMHeadModel", "ForCausalLM", "Model", "Decoder")):
        decoder = {"is_decoder": True, "add_cross_attention": True}
        found.append({"inputs": given, "config": decoder})
    return found
