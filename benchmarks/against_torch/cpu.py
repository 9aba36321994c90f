#!/usr/bin/env python3
"""Training steps on the CPU, Switchyard and PyTorch in turn: one run, the same weights, tokens, precision and threads.

    cpu.py [--models small-dense,small-moe8,small-moe64] [--precision FP32,BF16] [--threads 1,2] [--rounds 4]
           [--systems switchyard,eager,compiled] [--json FILE]

Every system is a process of its own that waits until it is asked for steps (A B C A B C ...), so that a noisy machine
disturbs all alike. A ratio is that of the medians of all steps but the first of a process. The losses of the last
step must agree: both started from the same weights and saw the same tokens.

PyTorch: torch.compile or eager; experts sorted and multiplied by torch._grouped_mm; fused attention; fused AdamW. In bf16
its weights and moments are bf16 without float32 masters, which costs it nothing and its loss a little.
Needs PyTorch and safetensors. The programs: build/release/switchyard and build/release/benchmarks/bench_steps.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import numpy
import torch
from safetensors.torch import load_file, save_file

from models import HEAD, MODELS, Model, flops_per_token

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SWITCHYARD_BUILD", ROOT / "build/release"))
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
    tensors = load_file(folder / "hf" / "model.safetensors")
    with torch.no_grad():
        for ours, pieces in hugging_face_names(name).items():
            parameter = model.get_parameter(ours)
            for theirs, begin, end, expert in pieces:
                (parameter if expert is None else parameter[expert])[begin:end] = tensors[theirs]


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


def write_config(name, precision, folder):
    vocab, d, layers, heads, kv, ffn, moe, sequence, _, batch = MODELS[name]
    experts = "" if moe is None else (f"moe {{ num_experts: {moe[0]} top_k: {moe[1]} moe_intermediate_size: {moe[2]} "
                                      f"normalize_topk: true aux_loss_coeff: 1e-2 }}")
    optimizer = " ".join(f"{k}: {v}" for k, v in OPTIMIZER.items())
    (folder / f"{precision}.txtpb").write_text(f"""
name: "{name}" precision: {precision}
model {{ vocab_size: {vocab} hidden_size: {d} num_layers: {layers} num_attention_heads: {heads} num_key_value_heads: {kv}
  head_dim: {HEAD} {f"intermediate_size: {ffn}" if ffn else ""} qk_norm: PER_HEAD rope_theta: 10000 rms_norm_eps: 1e-6
  {experts} }}
train {{ steps: 1000 global_batch_size: {batch} micro_batch_size: {batch} sequence_length: {sequence}
  init_from: "{folder}/checkpoint" }}
optimizer {{ {optimizer} }} schedule {{ kind: CONSTANT }}
data {{ train: "{folder}/tokens" shuffle: false }}
""")


def torch_worker(name, precision, threads, compiled, folder):
    """Answers on stdout as bench_steps does."""
    import resource
    import time
    torch.set_num_threads(threads)
    model = Model(name, "free")
    load_weights(model, name, folder)
    if precision == "BF16":
        model.bfloat16()
        for buffer in ("cos", "sin"):
            setattr(model, buffer, getattr(model, buffer).float())
    parameters = list(model.parameters())
    groups = [dict(params=[p for p in parameters if p.dim() > 1], weight_decay=OPTIMIZER["weight_decay"]),
              dict(params=[p for p in parameters if p.dim() < 2], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER["lr"], betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]),
                                  eps=OPTIMIZER["eps"], fused=True)
    run = torch.compile(model) if compiled else model
    tokens = torch.from_numpy(numpy.fromfile(f"{folder}/tokens.bin", dtype="<u2").astype(numpy.int64))
    sequence, batch = MODELS[name][7], MODELS[name][9]
    done = 0

    def step():
        nonlocal done
        begin = time.perf_counter()
        starts = (torch.arange(batch) + done * batch) * sequence
        data = tokens[starts[:, None] + torch.arange(sequence + 1)]
        objective, loss = run(data[:, :-1].contiguous(), data[:, 1:].contiguous())
        objective.backward()
        torch.nn.utils.clip_grad_norm_(parameters, OPTIMIZER["clip_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        done += 1
        return time.perf_counter() - begin, loss.item()

    for line in sys.stdin:
        seconds, losses = zip(*(step() for _ in range(int(line))))
        print(json.dumps({"seconds": seconds, "losses": losses,
                          "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)


class Worker:
    def __init__(self, command, threads):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.seconds, self.losses, self.last = [], [], {}

    def run(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        self.last = json.loads(line)
        self.seconds += self.last["seconds"]
        self.losses += self.last["losses"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def start(system, name, precision, threads, folder):
    if system == "switchyard":
        return Worker([str(BUILD / "benchmarks/bench_steps"), str(folder / f"{precision}.txtpb")], threads)
    return Worker([sys.executable, __file__, "--worker", name, precision, str(threads), system, str(folder)], threads)


def measure(name, precision, threads, systems, rounds, steps, folder):
    workers = {s: start(s, name, precision, threads, folder) for s in systems}
    try:
        for worker in workers.values():
            worker.run(2)  # compiles, and warms caches
        for _ in range(rounds):
            for worker in workers.values():
                worker.run(steps)
    finally:
        for worker in workers.values():
            worker.close()
    flops = flops_per_token(name) * MODELS[name][7] * MODELS[name][9]
    result = {"model": name, "precision": precision, "threads": threads, "steps": 2 + rounds * steps}
    for system, worker in workers.items():
        seconds = worker.seconds[2:]
        quarters = statistics.quantiles(seconds, n=4)
        result[system] = {"step_seconds": statistics.median(seconds), "best_seconds": min(seconds), "quartiles": [quarters[0], quarters[2]],
                          "tokens_per_second": MODELS[name][7] * MODELS[name][9] / statistics.median(seconds),
                          "gflops": flops / statistics.median(seconds) * 1e-9, "loss": worker.losses[-1],
                          "first_step_seconds": worker.seconds[0], "peak_memory_bytes": worker.last["peak_memory_bytes"],
                          "page_faults": worker.last.get("page_faults"),
                          "system_allocations": worker.last.get("system_allocations")}
    rivals = [s for s in systems if s != "switchyard"]
    if rivals and "switchyard" in systems:
        rival = min(rivals, key=lambda s: result[s]["step_seconds"])
        result["ratio"] = result[rival]["step_seconds"] / result["switchyard"]["step_seconds"]
        result["best_ratio"] = min(result[s]["best_seconds"] for s in rivals) / result["switchyard"]["best_seconds"]
        result["loss_difference"] = abs(result[rival]["loss"] / result["switchyard"]["loss"] - 1)
    return result


def show(result):
    text = f"{result['model']:<12} {result['precision']} {result['threads']} thread{'s' if result['threads'] > 1 else ' '}"
    for system in ("switchyard", "eager", "compiled"):
        if system in result:
            r = result[system]
            text += f" | {system} {r['tokens_per_second']:7.0f} tok/s {r['gflops']:5.1f} GF/s {r['peak_memory_bytes'] / 2**20:5.0f} MiB"
    if "ratio" in result:
        text += f" | ratio {result['ratio']:.2f} (best {result['best_ratio']:.2f}), loss differs by {result['loss_difference']:.1e}"
    print(text, flush=True)


def main():
    if sys.argv[1:2] == ["--worker"]:
        name, precision, threads, system, folder = sys.argv[2:]
        return torch_worker(name, precision, int(threads), system == "compiled", pathlib.Path(folder))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="small-dense,small-moe8,small-moe64")
    parser.add_argument("--precision", default="FP32,BF16")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--systems", default="switchyard,eager,compiled")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="of each system in a round")
    parser.add_argument("--json", help="append one line per cell")
    args = parser.parse_args()
    for name in args.models.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            write_weights(name, folder / "hf")
            steps = 2 + args.rounds * args.steps
            write_tokens(folder / "tokens", steps * MODELS[name][9] * MODELS[name][7] + 1, MODELS[name][0])
            subprocess.run([str(BUILD / "switchyard"), "import", "--from", str(folder / "hf"), "--to",
                            str(folder / "checkpoint")], check=True, stdout=subprocess.DEVNULL)
            for precision in args.precision.split(","):
                write_config(name, precision, folder)
                for threads in map(int, args.threads.split(",")):
                    result = measure(name, precision, threads, args.systems.split(","), args.rounds, args.steps, folder)
                    show(result)
                    if args.json:
                        with open(args.json, "a") as out:
                            out.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
