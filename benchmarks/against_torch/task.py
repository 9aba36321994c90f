"""What a cell of the comparison trains: one set of weights (as a Hugging Face checkpoint), of tokens, and a config."""
import json
import pathlib

import numpy
import torch
from safetensors.torch import load_file, save_file

from models import HEAD, MODELS, Model

OPTIMIZER = dict(lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip_norm=1.0)


def hugging_face_names(name):
    """Our torch model's parameter -> the Hugging Face tensors that it is made of, as (name, rows from, rows to, expert)."""
    vocab, d, layers, heads, kv, ffn, moe, *_ = MODELS[name]
    names = {"embedding.weight": [("model.embed_tokens.weight", 0, vocab, None)],
             "head.weight": [("lm_head.weight", 0, vocab, None)],
             "final": [("model.norm.weight", 0, d, None)]}
    for i in range(layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        rows = [0, heads * HEAD, (heads + kv) * HEAD, (heads + 2 * kv) * HEAD]
        names |= {
            ours + "first": [(theirs + "input_layernorm.weight", 0, d, None)],
            ours + "second": [(theirs + "post_attention_layernorm.weight", 0, d, None)],
            ours + "attention.qkv.weight": [(f"{theirs}self_attn.{p}_proj.weight", rows[j], rows[j + 1], None)
                                            for j, p in enumerate("qkv")],
            ours + "attention.out.weight": [(theirs + "self_attn.o_proj.weight", 0, d, None)],
            ours + "attention.q_norm": [(theirs + "self_attn.q_norm.weight", 0, HEAD, None)],
            ours + "attention.k_norm": [(theirs + "self_attn.k_norm.weight", 0, HEAD, None)]}
        if moe is None:
            names[ours + "feed_forward.up.weight"] = [(theirs + "mlp.gate_proj.weight", 0, ffn, None),
                                                      (theirs + "mlp.up_proj.weight", ffn, 2 * ffn, None)]
            names[ours + "feed_forward.down.weight"] = [(theirs + "mlp.down_proj.weight", 0, d, None)]
            continue
        experts, _, m = moe
        names[ours + "feed_forward.router.weight"] = [(theirs + "mlp.gate.weight", 0, experts, None)]
        names[ours + "feed_forward.up"] = [
            (f"{theirs}mlp.experts.{e}.{p}_proj.weight", j * m, (j + 1) * m, e)
            for e in range(experts) for j, p in enumerate(("gate", "up"))]
        names[ours + "feed_forward.down"] = [(f"{theirs}mlp.experts.{e}.down_proj.weight", 0, d, e) for e in range(experts)]
    return names


def write_weights(name, folder):
    torch.manual_seed(1)
    model, tensors = Model(name, "free"), {}
    for ours, pieces in hugging_face_names(name).items():
        value = model.get_parameter(ours).detach()
        for theirs, begin, end, expert in pieces:
            tensors[theirs] = (value if expert is None else value[expert])[begin:end].clone()
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    vocab, d, layers, heads, kv, ffn, moe, *_ = MODELS[name]
    config = dict(model_type="qwen3", vocab_size=vocab, hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads,
                  num_key_value_heads=kv, head_dim=HEAD, intermediate_size=ffn or 4 * d, rms_norm_eps=1e-6,
                  rope_theta=10000.0, tie_word_embeddings=False, hidden_act="silu", attention_bias=False)
    if moe:
        config |= dict(model_type="qwen3_moe", num_experts=moe[0], num_experts_per_tok=moe[1],
                       moe_intermediate_size=moe[2], norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[])
    (folder / "config.json").write_text(json.dumps(config))


def load_weights(model, name, folder):
    """Into a model that may hold only its rank's experts."""
    tensors = load_file(folder / "hf" / "model.safetensors")
    with torch.no_grad():
        for ours, pieces in hugging_face_names(name).items():
            parameter = model.get_parameter(ours)
            for theirs, begin, end, expert in pieces:
                if expert is None:
                    parameter[begin:end] = tensors[theirs]
                elif 0 <= expert - model.first_expert < parameter.shape[0]:
                    parameter[expert - model.first_expert, begin:end] = tensors[theirs]


def write_tokens(prefix, count, vocab):
    """Tokens with something to learn, as one document of Megatron's format."""
    random = numpy.random.default_rng(7)
    follower, tokens = random.permutation(vocab), numpy.zeros(count, dtype="<u2")
    fresh, follow = random.integers(vocab, size=count), random.random(count) < 0.7
    for i in range(1, count):
        tokens[i] = follower[tokens[i - 1]] if follow[i] else fresh[i]
    pathlib.Path(f"{prefix}.bin").write_bytes(tokens.tobytes())
    header = b"MMIDIDX\0\0" + numpy.array([1], "<u8").tobytes() + b"\x08" + numpy.array([1, 2], "<u8").tobytes()
    pathlib.Path(f"{prefix}.idx").write_bytes(header + numpy.array([count], "<i4").tobytes() +
                                             numpy.array([0, 0, 1], "<i8").tobytes())


def config_file(folder, precision, ranks):
    return folder / f"{precision}-{ranks}.txtpb"


def write_config(name, precision, folder, ranks=1, routing="free"):
    vocab, d, layers, heads, kv, ffn, moe, sequence, _, batch = MODELS[name]
    # Skewed: nothing pulls the loads even again.
    forced = {"free": "aux_loss_coeff: 1e-2", "balanced": "aux_loss_coeff: 1e-2 force_balance: true",
              "skewed": "expert_bias: true bias_update_rate: 0"}[routing]
    experts = "" if moe is None else (f"moe {{ num_experts: {moe[0]} top_k: {moe[1]} moe_intermediate_size: {moe[2]} "
                                      f"normalize_topk: true {forced} }}")
    optimizer = " ".join(f"{k}: {v}" for k, v in OPTIMIZER.items())
    config_file(folder, precision, ranks).write_text(f"""
name: "{name}" precision: {precision}
model {{ vocab_size: {vocab} hidden_size: {d} num_layers: {layers} num_attention_heads: {heads} num_key_value_heads: {kv}
  head_dim: {HEAD} {f"intermediate_size: {ffn}" if ffn else ""} qk_norm: PER_HEAD rope_theta: 10000 rms_norm_eps: 1e-6
  {experts} }}
parallel {{ expert: {ranks if moe else 1} }}
train {{ steps: 1000 global_batch_size: {batch} micro_batch_size: {batch // ranks} sequence_length: {sequence}
  init_from: "{folder}/checkpoint" }}
optimizer {{ {optimizer} }} schedule {{ kind: CONSTANT }}
data {{ train: "{folder}/tokens" shuffle: false }}
""")
