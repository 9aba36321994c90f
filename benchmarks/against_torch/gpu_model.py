#!/usr/bin/env python3
"""The models of bench_train_step in PyTorch on a GPU: the same batches, the same keys as JSON lines.

bf16 weights and moments (no float32 masters, which favours PyTorch: its optimizer moves half the bytes), fused AdamW,
gradient clipping.
"""
import argparse
import json
import math
import time

import torch

from models import MODELS, Model, flops_per_token


def measure(name, routing, compiled, steps, warmup):
    vocab, *_, seq, micro, batch = MODELS[name]
    torch.manual_seed(1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    model = Model(name, routing).cuda().bfloat16()
    for buffer in ("cos", "sin"):
        setattr(model, buffer, getattr(model, buffer).float())
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(vocab, (4, micro, seq + 1), device="cuda")

    def step(n):
        for m in range(batch // micro):
            data = ids[(n + m) % 4]
            objective, loss = run(data[:, :-1].contiguous(), data[:, 1:].contiguous())
            (objective * (micro / batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        return loss.detach()

    for n in range(warmup):
        step(n)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for n in range(steps):
        loss = step(n)
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / steps, loss.item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="dense-124m,coarse,fine,small-dense,small-moe8,small-moe64")
    parser.add_argument("--routing", default="balanced,skewed")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--peak-tflops", type=float, default=989.4)
    parser.add_argument("--json")
    args = parser.parse_args()
    for name in args.models.split(","):
        for routing in args.routing.split(",") if MODELS[name][6] and "small" not in name else ["balanced"]:
            system = "torch compiled" if args.compile else "torch"
            torch._dynamo.reset()
            try:
                seconds, loss = measure(name, routing, args.compile, args.steps, args.warmup)
            except Exception as error:  # the other models still count
                print(f"{system} {name} {routing}: {type(error).__name__}: {str(error)[:300]}", flush=True)
                continue
            tokens = MODELS[name][9] * MODELS[name][7] / seconds
            tflops = tokens * flops_per_token(name) / 1e12
            line = {"system": system, "version": torch.__version__, "model": name, "device": "CUDA", "precision": "BF16",
                    "routing": routing if MODELS[name][6] else "none", "sequence_length": MODELS[name][7],
                    "micro_batch": MODELS[name][8], "global_batch": MODELS[name][9], "step_seconds": seconds,
                    "tokens_per_second": tokens, "model_tflops": tflops, "mfu": tflops / args.peak_tflops,
                    "peak_memory_bytes": torch.cuda.max_memory_reserved(), "loss": loss}
            assert math.isfinite(loss)
            print(f"{system:<14} {name:<12} {routing:<9} {tokens:>9.0f} tok/s {seconds * 1e3:>9.3f} ms {tflops:>8.2f} TFLOP/s "
                  f"MFU {100 * tflops / args.peak_tflops:>5.1f}%  loss {loss:.3f}", flush=True)
            if args.json:
                with open(args.json, "a") as out:
                    out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
