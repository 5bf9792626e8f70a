"""More families, built as `helpers.families` builds its own: they are scored, and their passes shared, not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import transformers as hf

from helpers.families import (
    _CHATML,
    _QWEN,
    Family,
    Made,
    Signs,
    Size,
    _pixels,
    _qwen_ids,
    _rope,
    _template,
    _text,
    _tower,
)

Token = Callable[[str], int]

_GLM = Signs(
    {"image_token": "<|image|>", "video_token": "<|video|>"},
    ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|user|>", "<|assistant|>"),
    _template("<|begin_of_image|><|image|><|end_of_image|>", turn="<|user|>\n", answer="<|assistant|>\n"),
)
_MISTRAL = Signs(
    {"image_token": "[IMG]"},
    ("[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"),
    _template("[IMG]", "<s>", "[INST]", "", "[/INST]"),
    bos="<s>",
)
_LLAVA = Signs({"image_token": "<image>"}, (), _template("<image>\n", "<s>", "USER: ", " ", "ASSISTANT:"), bos="<s>")
_LLAMA = Signs(
    {"image_token": "<|image|>"},
    ("<|python_tag|>",),
    _template("<|image|>", "<s>", "user\n", "\n", "assistant\n"),
    bos="<s>",
)
_LFM2 = Signs(
    {"image_token": "<image>", "image_start_token": "<|image_start|>", "image_end_token": "<|image_end|>",
     "image_thumbnail": "<|img_thumbnail|>"},
    ("<|im_start|>", "<|im_end|>"),
    _template("<image>", "<s>", **_CHATML),
    bos="<s>",
)  # fmt: skip
_GEMMA4 = Signs(
    {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
     "boa_token": "<|audio>", "eoa_token": "<audio|>"},
    ("<|turn>", "<turn|>", "<|video|>"),
    _template("<|image|>", "<bos>", "<|turn>{{ message['role'] }}\n", "<turn|>\n", "<|turn>model\n"),
    bos="<bos>",
)  # fmt: skip
_MINICPM = Signs(
    {"image_token": "<unused_image>", "video_token": "<unused_video>", "image_start_token": "<image>",
     "image_end_token": "</image>", "slice_start_token": "<slice>", "slice_end_token": "</slice>",
     "image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>"},
    ("<|im_start|>", "<|im_end|>"),
    _template("<unused_image>\n", **_CHATML),
)  # fmt: skip


def _two_layers(**more: Any) -> dict[str, Any]:
    return _tower(**more) | {"num_hidden_layers": 2}


def _qwen3_5_text(size: Size) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "partial_rotary_factor": 1.0}
    dims = {f"linear_{part}_head_dim": 8 for part in ("key", "value")}
    heads = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    kinds = ["full_attention" if at % 2 else "linear_attention" for at in range(size.layers)]
    return _text(size, rope_parameters=rope, layer_types=kinds, **dims, **heads)


def _qwen3_5(size: Size, token: Token) -> Made:
    config = hf.Qwen3_5Config(
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": size.width, "num_position_embeddings": 64},
        text_config=_qwen3_5_text(size), **_qwen_ids(token),
    )  # fmt: skip
    return config, _pixels(), lambda _: {}


def _qwen3_5_moe(size: Size, token: Token) -> Made:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
               "shared_expert_intermediate_size": 16}  # fmt: skip
    config = hf.Qwen3_5MoeConfig(
        vision_config={"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": size.width, "num_position_embeddings": 64},
        text_config=_qwen3_5_text(size) | experts, **_qwen_ids(token),
    )  # fmt: skip
    return config, _pixels(), lambda _: {}


def _qwen3_vl_moe(size: Size, token: Token) -> Made:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = hf.Qwen3VLMoeConfig(
        vision_config={"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": size.width, "num_position_embeddings": 64, "deepstack_visual_indexes": [0]},
        text_config=_text(size, **_rope(size), **experts), **_qwen_ids(token),
    )  # fmt: skip
    return config, _pixels(), lambda _: {}


def _glm_parts(size: Size, token: Token) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2], "partial_rotary_factor": 1.0}
    ids = {f"{kind}_{side}_token_id": token(f"<|{word}_of_{kind}|>")
           for kind in ("image", "video") for side, word in (("start", "begin"), ("end", "end"))}  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "num_heads": 2, "image_size": 64, "patch_size": 8,
              "out_hidden_size": size.width, "intermediate_size": 32}  # fmt: skip
    ids |= {f"{kind}_token_id": token(f"<|{kind}|>") for kind in ("image", "video")}
    return {"vision_config": vision, "text_config": _text(size, rope_parameters=rope), **ids}


GLM_PIXELS = {"size": {"shortest_edge": 256, "longest_edge": 16384}, "patch_size": 8, "merge_size": 2}


def _glm4v(size: Size, token: Token) -> Made:
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    return hf.Glm4vConfig(**_glm_parts(size, token)), Glm4vImageProcessorPil(**GLM_PIXELS), lambda _: {}


def _glm4v_moe(size: Size, token: Token) -> Made:
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    parts = _glm_parts(size, token)
    parts["text_config"] |= {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    return hf.Glm4vMoeConfig(**parts), Glm4vImageProcessorPil(**GLM_PIXELS), lambda _: {}


def _glm46v(size: Size, token: Token) -> Made:
    from transformers.models.glm46v.image_processing_pil_glm46v import Glm46VImageProcessorPil

    return hf.Glm46VConfig(**_glm_parts(size, token)), Glm46VImageProcessorPil(**GLM_PIXELS), lambda _: {}


def _lfm2_vl(size: Size, token: Token) -> Made:
    from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

    kinds = ["conv" if at % 2 == 0 else "full_attention" for at in range(size.layers)]
    config = hf.Lfm2VlConfig(
        vision_config={"model_type": "siglip2_vision_model", **_tower(num_patches=64, patch_size=8)},
        text_config={"model_type": "lfm2", **_text(size, layer_types=kinds)},
        image_token_id=token("<image>"), projector_hidden_size=32,
    )  # fmt: skip
    images = Lfm2VlImageProcessor(encoder_patch_size=8, tile_size=64, min_image_tokens=4, max_image_tokens=16,
                                  do_image_splitting=False, max_num_patches=64)  # fmt: skip
    return config, images, lambda _: {}


def _mistral3(size: Size, token: Token) -> Made:
    from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

    config = hf.Mistral3Config(
        vision_config=hf.PixtralVisionConfig(**_tower(image_size=64, patch_size=8, head_dim=8)),
        text_config=hf.MistralConfig(**_text(size)),
        image_token_index=token("[IMG]"), spatial_merge_size=2, tie_word_embeddings=False,
    )  # fmt: skip
    images = PixtralImageProcessorPil(size={"longest_edge": 64}, patch_size={"height": 8, "width": 8})
    return config, images, lambda _: {"patch_size": 8, "spatial_merge_size": 2}


def _llava(size: Size, token: Token) -> Made:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    config = hf.LlavaConfig(
        vision_config=hf.CLIPVisionConfig(**_two_layers(image_size=32, patch_size=8, projection_dim=16)),
        text_config=hf.LlamaConfig(**_text(size)), image_token_index=token("<image>"),
    )  # fmt: skip
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    extra = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return config, images, lambda _: extra


def _mllama(size: Size, token: Token) -> Made:
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    config = hf.MllamaConfig(
        vision_config={"hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2,
                       "intermediate_size": 32, "vision_output_dim": 32, "image_size": 32, "patch_size": 8,
                       "intermediate_layers_indices": [0]},
        text_config=_text(size, cross_attention_layers=[1], pad_token_id=token("<pad>"), bos_token_id=token("<s>"),
                          eos_token_id=token("<pad>")),
        image_token_index=token("<|image|>"),
    )  # fmt: skip
    return config, MllamaImageProcessorPil(size={"height": 32, "width": 32}, max_image_tiles=4), lambda _: {}


def _video_llama_3(size: Size, token: Token) -> Made:
    from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

    config = hf.VideoLlama3Config(
        vision_config=_tower(patch_size=8), text_config=hf.Qwen2Config(**_text(size)),
        image_token_id=token("<|image_pad|>"), video_token_id=token("<|video_pad|>"),
    )  # fmt: skip
    pixels = {"shortest_edge": 256, "longest_edge": 8192}
    return config, VideoLlama3ImageProcessorPil(size=pixels, patch_size=8, merge_size=2), lambda _: {}


def _gemma4(size: Size, token: Token) -> Made:
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    config = hf.Gemma4Config(
        text_config=_text(size, layer_types=["sliding_attention", "full_attention"], hidden_size_per_layer_input=8,
                          vocab_size_per_layer_input=size.rows, sliding_window=16, global_head_dim=16,
                          use_bidirectional_attention="vision"),
        vision_config=_tower(num_key_value_heads=2, head_dim=8, patch_size=4, position_embedding_size=256),
        image_token_id=token("<|image|>"), boi_token_id=token("<|image>"), eoi_token_id=token("<image|>"),
        video_token_id=token("<|video|>"), audio_token_id=token("<|audio|>"), boa_token_id=token("<|audio>"),
        eoa_token_index=token("<audio|>"),
    )  # fmt: skip
    return config, Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70), lambda _: {"image_seq_length": 70}


def _minicpm(size: Size, token: Token) -> Made:
    from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

    config = hf.MiniCPMV4_6Config(
        vision_config=_two_layers(image_size=64, patch_size=8),
        text_config={"model_type": "qwen3_5_text", **_qwen3_5_text(size)}, insert_layer_id=0, image_size=64,
        image_token_id=token("<unused_image>"), video_token_id=token("<unused_video>"),
    )  # fmt: skip
    return config, MiniCPMV4_6ImageProcessorPil(scale_resolution=64, patch_size=8, max_slice_nums=2), lambda _: {}


NEWER: dict[str, Family] = {
    "gemma4": (_gemma4, _GEMMA4, "Gemma4Processor"),
    "qwen3_5": (_qwen3_5, _QWEN, "Qwen3VLProcessor"),
    "qwen3_vl_moe": (_qwen3_vl_moe, _QWEN, "Qwen3VLProcessor"),
    "qwen3_5_moe": (_qwen3_5_moe, _QWEN, "Qwen3VLProcessor"),
    "glm4v": (_glm4v, _GLM, "Glm4vProcessor"),
    "glm4v_moe": (_glm4v_moe, _GLM, "Glm4vProcessor"),
    "glm46v": (_glm46v, _GLM, "Glm46VProcessor"),
    "lfm2_vl": (_lfm2_vl, _LFM2, "Lfm2VlProcessor"),
    "mistral3": (_mistral3, _MISTRAL, "PixtralProcessor"),
    "llava": (_llava, _LLAVA, "LlavaProcessor"),
    "mllama": (_mllama, _LLAMA, "MllamaProcessor"),
    "video_llama_3": (_video_llama_3, _QWEN, "VideoLlama3Processor"),
    "minicpmv4_6": (_minicpm, _MINICPM, "MiniCPMV4_6Processor"),
}
NEEDS_TORCHVISION = ("mistral3", "lfm2_vl")
"""Pixtral's processor imports it, and LFM2-VL has no other image processor."""
