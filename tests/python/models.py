"""Tiny random transformers models, one per case: every feature that changes the mathematics is in some case."""

import torch
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

# The shortest code that transformers has for each block; its grouped products ask for aligned sizes as well.
EAGER = dict(attn_implementation="eager", experts_implementation="eager")

SMALL = dict(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=128, rms_norm_eps=1e-5, bos_token_id=None, eos_token_id=None,
             pad_token_id=None, tie_word_embeddings=False)
# No size is a multiple of a vector's width, and head_dim is not hidden_size / num_attention_heads.
ODD = dict(SMALL, vocab_size=101, hidden_size=30, num_hidden_layers=3, num_attention_heads=3, num_key_value_heads=1,
           head_dim=14, rope_parameters=dict(rope_type="default", rope_theta=5e5))

# name: (model_type, config)
CASES = {
    "qwen3_moe": ("qwen3_moe", dict(SMALL, head_dim=8, intermediate_size=48, moe_intermediate_size=24, num_experts=8,
                                    num_experts_per_tok=2, norm_topk_prob=True)),
    "qwen3_moe odd": ("qwen3_moe", dict(ODD, intermediate_size=37, moe_intermediate_size=19, num_experts=7,
                                        num_experts_per_tok=3, norm_topk_prob=False, tie_word_embeddings=True)),
    "qwen3_moe mixed": ("qwen3_moe", dict(SMALL, num_hidden_layers=5, head_dim=16, intermediate_size=40,
                                          moe_intermediate_size=16, num_experts=4, num_experts_per_tok=1,
                                          norm_topk_prob=False, decoder_sparse_step=2, mlp_only_layers=[3])),
    "mixtral": ("mixtral", dict(SMALL, intermediate_size=40, num_local_experts=8, num_experts_per_tok=2)),
    "mixtral odd": ("mixtral", dict(ODD, intermediate_size=21, num_local_experts=5, num_experts_per_tok=3,
                                    tie_word_embeddings=True)),
    "qwen2_moe": ("qwen2_moe", dict(SMALL, intermediate_size=48, moe_intermediate_size=24, num_experts=8,
                                    num_experts_per_tok=2, shared_expert_intermediate_size=40,
                                    norm_topk_prob=False)),
    "qwen2_moe mixed": ("qwen2_moe", dict(SMALL, num_hidden_layers=4, intermediate_size=31, moe_intermediate_size=17,
                                          num_experts=6, num_experts_per_tok=3, shared_expert_intermediate_size=23,
                                          norm_topk_prob=True, mlp_only_layers=[1], tie_word_embeddings=True)),
    "olmoe": ("olmoe", dict(SMALL, intermediate_size=24, num_experts=8, num_experts_per_tok=3, norm_topk_prob=False)),
    "olmoe normalized": ("olmoe", dict(SMALL, num_key_value_heads=4, intermediate_size=20, num_experts=4,
                                       num_experts_per_tok=2, norm_topk_prob=True)),
    "glm4_moe": ("glm4_moe", dict(SMALL, num_hidden_layers=3, head_dim=16, intermediate_size=48,
                                  moe_intermediate_size=24, n_routed_experts=8, num_experts_per_tok=4, n_group=4,
                                  topk_group=2, n_shared_experts=1, first_k_dense_replace=1, routed_scaling_factor=1.5,
                                  partial_rotary_factor=0.5, norm_topk_prob=True, attention_bias=True,
                                  use_qk_norm=True)),
    "glm4_moe plain": ("glm4_moe", dict(SMALL, head_dim=12, intermediate_size=48, moe_intermediate_size=18,
                                        n_routed_experts=6, num_experts_per_tok=2, n_group=1, topk_group=1,
                                        n_shared_experts=2, first_k_dense_replace=0, routed_scaling_factor=1.0,
                                        partial_rotary_factor=1.0, norm_topk_prob=True, attention_bias=False,
                                        use_qk_norm=False)),
    "qwen3": ("qwen3", dict(SMALL, head_dim=8, intermediate_size=48)),
    "qwen3 odd": ("qwen3", dict(ODD, intermediate_size=37, tie_word_embeddings=True)),
    "llama": ("llama", dict(SMALL, intermediate_size=48)),
    "llama odd": ("llama", dict(ODD, intermediate_size=37, tie_word_embeddings=True)),
}
# What llama.cpp computes as well: it fixes whether the router normalises, and has no groups and no mixed layers.
GGUF_CASES = {
    "qwen3moe": CASES["qwen3_moe"],
    "llama (Mixtral)": CASES["mixtral"],
    "llama (dense)": CASES["llama"],
    "qwen2moe": CASES["qwen2_moe"],
    "glm4moe": ("glm4_moe", dict(CASES["glm4_moe"][1], n_group=1, topk_group=1)),
    "qwen3": CASES["qwen3"],
    "llama (Mixtral odd)": CASES["mixtral odd"],
    "llama (dense odd)": CASES["llama odd"],
    "qwen3moe (tied)": ("qwen3_moe", dict(CASES["qwen3_moe"][1], tie_word_embeddings=True)),
    "qwen2moe (tied)": ("qwen2_moe", dict(CASES["qwen2_moe"][1], tie_word_embeddings=True)),
    "glm4moe (plain)": CASES["glm4_moe plain"],
    "qwen3 (odd)": CASES["qwen3 odd"],
}


def make_model(case, seed=1):
    """The case's model in float32 with every parameter random, norms' weights and biases included."""
    model_type, fields = case
    torch.manual_seed(seed)
    config = CONFIG_MAPPING[model_type](**fields)
    model = AutoModelForCausalLM.from_config(config, **EAGER).float().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight") or name.endswith("layernorm.weight"):
                p.uniform_(0.7, 1.3)
            elif p.ndim < 2:
                p.uniform_(-0.1, 0.1)
            else:
                p.normal_(std=0.3 if "embed" in name or "lm_head" in name else 0.15)
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.uniform_(-0.1, 0.1)
    return model


def routers(model):
    """The MoE layers' routers in order; their output is (logits, weights, experts)."""
    return [m for m in model.modules() if type(m).__name__.endswith("TopKRouter") or type(m).__name__.endswith("TopkRouter")]
