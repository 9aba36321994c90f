#!/usr/bin/env python3
"""Training steps on the CPU, Switchyard and PyTorch in turn: one run, the same weights, tokens, precision and threads.

    cpu.py [--models small-dense,small-moe8,small-moe64] [--precision FP32,BF16] [--threads 1,2] [--rounds 3]
           [--systems switchyard,eager,compiled] [--seconds 60] [--json FILE]
    cpu.py --ranks 2 [--models small-moe8,small-moe64] [--routing free|balanced|skewed]

Every system is a process of its own that waits until it is asked for steps (A B C A B C ...), so that a noisy machine
disturbs all alike. A ratio is that of the medians of the later half of each process's steps. Losses are compared at the
greatest step that both made: they started from the same weights and saw the same tokens.

--seconds is what a system may spend on a cell's steps: a slow one makes fewer, at least a second one. With --give-up one whose
first step took longer than that makes no second one, and later cells of its precision go without it (PyTorch's bf16 on a
processor without bf16 instructions takes a minute a step).

--ranks 2: both programs with two processes of one thread each and half of the experts in each (PyTorch: torch.distributed over
gloo), beside Switchyard's one rank with one thread.

PyTorch: torch.compile or eager; experts sorted and multiplied by torch._grouped_mm; fused attention; fused AdamW. In bf16
its weights and moments are bf16 without float32 masters, which costs it nothing and its loss a little.
Needs PyTorch and safetensors. The programs: build/release/switchyard and build/release/benchmarks/bench_steps, or those
under $SWITCHYARD_BUILD.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

from models import MODELS, flops_per_token
from task import write_config, write_tokens, write_weights
from worker import BUILD, Worker


def measure(cell, systems, args, folder, slow):
    """`slow`: why a system is left out, by (system, precision); grows."""
    skipped = {s: slow[s, cell["precision"]] for s in systems if (s, cell["precision"]) in slow}
    workers = {}
    try:
        for system in systems:
            if system in skipped:
                continue
            # One starts when the others wait: what a process does before its first step would disturb them.
            worker = workers[system] = Worker(system, cell, folder, args.seconds, args.timeout)
            worker.run(1)
            if args.give_up and worker.seconds and worker.seconds[0] > args.seconds and system != "compiled":
                for late in ("eager", "compiled"):
                    slow[late, cell["precision"]] = f"a step of {cell['model']} took {worker.seconds[0]:.0f} s"
            elif (system, cell["precision"]) not in slow:
                worker.run(1)
        for done in range(args.rounds):
            for worker in workers.values():
                if not worker.failure:
                    worker.run(worker.affordable(args.steps, args.rounds - done))
    finally:
        for worker in workers.values():
            worker.close()
    tokens = MODELS[cell["model"]][7] * MODELS[cell["model"]][9]
    flops = flops_per_token(cell["model"]) * tokens
    result = dict(cell, systems={s: w.summary(tokens, flops) for s, w in workers.items()})
    result["systems"] |= {s: {"skipped": why} for s, why in skipped.items()}
    return result | compare(result["systems"])


def compare(systems):
    measured = {s: r for s, r in systems.items() if "step_seconds" in r}
    ours, found = measured.get("switchyard"), {}
    if ours is None:
        return found
    rivals = [s for s in measured if not s.startswith("switchyard")]
    if rivals:
        rival = min(rivals, key=lambda s: measured[s]["step_seconds"])
        theirs = measured[rival]
        last = min(ours["steps"], theirs["steps"]) - 1
        found |= {"rival": rival, "ratio": theirs["step_seconds"] / ours["step_seconds"],
                  "ratio_quartiles": [theirs["quartiles"][0] / ours["quartiles"][1], theirs["quartiles"][1] / ours["quartiles"][0]],
                  "best_ratio": min(measured[s]["best_seconds"] for s in rivals) / ours["best_seconds"],
                  "loss_step": last + 1, "losses": [ours["losses"][last], theirs["losses"][last]],
                  "loss_difference": abs(theirs["losses"][last] / ours["losses"][last] - 1)}
    if "switchyard-1" in measured:
        found["scaling"] = measured["switchyard-1"]["step_seconds"] / ours["step_seconds"]
    return found


def show(result):
    ranks = f"{result['ranks']} ranks" if result["ranks"] > 1 else f"{result['threads']} thread{'s'[:result['threads'] - 1]}"
    print(f"{result['model']} {result['precision']} {ranks} {result['routing']}")
    for system, r in result["systems"].items():
        if "step_seconds" in r:
            text = (f"{r['tokens_per_second']:7.0f} tok/s {r['gflops']:6.1f} GF/s  {r['timed_steps']:3d} of {r['steps']:3d} steps timed "
                    f" {r['step_seconds'] * 1e3:8.1f} ms ({r['quartiles'][0] * 1e3:.1f}..{r['quartiles'][1] * 1e3:.1f}) "
                    f" {r['peak_memory_bytes'] / 2**20:5.0f} MiB  loss {r['losses'][-1]:.4f}")
            if r.get("exchange_share"):
                text += f"  exchange {100 * r['exchange_share']:.1f} %, of it waiting {100 * r['waiting_share']:.1f}"
            if r["page_faults"] is not None:
                text += f"  {r['page_faults']} faults, {r['system_allocations']} system allocations in the last request"
        else:
            text = f"not measured: {r.get('skipped')}" if "skipped" in r else ""
        print(f"  {system:<13}{text}{'  FAILED: ' + r['failure'] if r.get('failure') else ''}")
    if "ratio" in result:
        print(f"  ratio to {result['rival']} {result['ratio']:.2f} (best steps {result['best_ratio']:.2f}), losses at step "
              f"{result['loss_step']}: {result['losses'][0]:.5f} and {result['losses'][1]:.5f}")
    if "scaling" in result:
        print(f"  {result['ranks']} ranks are {result['scaling']:.2f} times as fast as one")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models")
    parser.add_argument("--precision", default="FP32,BF16")
    parser.add_argument("--threads")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--routing", default="free", choices=("free", "balanced", "skewed"),
                        help="balanced: experts in turn; skewed: a bias to the first experts")
    parser.add_argument("--systems")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="of each system in a round")
    parser.add_argument("--seconds", type=float, default=60, help="of each system in a cell")
    parser.add_argument("--timeout", type=float, default=600, help="for one answer")
    parser.add_argument("--give-up", action="store_true")
    parser.add_argument("--json", help="append one line per cell")
    args = parser.parse_args()
    several = args.ranks > 1
    models = args.models or ("small-moe8,small-moe64" if several else "small-dense,small-moe8,small-moe64")
    systems = args.systems or ("switchyard-1,switchyard,eager,compiled" if several else "switchyard,eager,compiled")
    threads = args.threads or ("1" if several else "1,2")
    slow = {}
    for name in models.split(","):
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            write_weights(name, folder / "hf")
            steps = 2 + args.rounds * args.steps
            write_tokens(folder / "tokens", steps * MODELS[name][9] * MODELS[name][7] + 1, MODELS[name][0])
            subprocess.run([str(BUILD / "switchyard"), "import", "--from", str(folder / "hf"), "--to",
                            str(folder / "checkpoint")], check=True, stdout=subprocess.DEVNULL)
            for precision in args.precision.split(","):
                for ranks in {1, args.ranks}:
                    write_config(name, precision, folder, ranks, args.routing)
                for count in map(int, threads.split(",")):
                    cell = {"model": name, "precision": precision, "threads": count, "ranks": args.ranks, "routing": args.routing}
                    result = measure(cell, systems.split(","), args, folder, slow)
                    show(result)
                    if args.json:
                        with open(args.json, "a") as out:
                            out.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
