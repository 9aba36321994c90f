#!/usr/bin/env python3
"""Training steps in PyTorch when they are asked for; reads and answers as bench_steps does.

    torch_steps.py MODEL PRECISION THREADS eager|compiled FOLDER ROUTING [RANKS]

Rank 0 starts the other ranks. Several ranks: gloo; experts are spread over the ranks, the rest is replicated and its gradients
are summed by DistributedDataParallel, in buckets and while the backward pass goes on.
In bf16, weights and moments are bf16 without float32 masters, which costs PyTorch nothing and its loss a little.
"""
import json
import os
import pathlib
import resource
import subprocess
import sys
import time

import numpy
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from models import MODELS, Model
from task import OPTIMIZER, load_weights


def is_expert(name):
    return name.endswith(("feed_forward.up", "feed_forward.down"))


class Trainer:
    def __init__(self, name, precision, compiled, folder, routing, ranks, rank):
        self.name, self.ranks, self.rank, self.done = name, ranks, rank, 0
        model = Model(name, routing, ranks, rank)
        load_weights(model, name, folder)
        if precision == "BF16":
            model.bfloat16()
            for buffer in ("cos", "sin"):
                setattr(model, buffer, getattr(model, buffer).float())
        named = list(model.named_parameters())
        self.experts = [p for n, p in named if is_expert(n)] if ranks > 1 else []
        self.shared = [p for n, p in named if ranks == 1 or not is_expert(n)]
        groups = [dict(params=[p for _, p in named if p.dim() > 1], weight_decay=OPTIMIZER["weight_decay"]),
                  dict(params=[p for _, p in named if p.dim() < 2], weight_decay=0.0)]
        self.optimizer = torch.optim.AdamW(groups, lr=OPTIMIZER["lr"], betas=(OPTIMIZER["beta1"], OPTIMIZER["beta2"]),
                                           eps=OPTIMIZER["eps"], fused=True)
        if ranks > 1:
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
                model, [n for n, _ in named if is_expert(n)])
            model = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
        self.run = torch.compile(model) if compiled else model
        self.tokens = torch.from_numpy(numpy.fromfile(f"{folder}/tokens.bin", dtype="<u2").astype(numpy.int64))

    def clip(self):
        """By the norm over every logical parameter, those of the other ranks' experts too."""
        if self.ranks == 1:
            torch.nn.utils.clip_grad_norm_(self.shared, OPTIMIZER["clip_norm"])
            return
        shared = torch.nn.utils.get_total_norm([p.grad for p in self.shared]).double()
        experts = torch.nn.utils.get_total_norm([p.grad for p in self.experts]).double().square()
        dist.all_reduce(experts)
        norm = (shared.square() + experts).sqrt().float()
        torch.nn.utils.clip_grads_with_norm_(self.shared + self.experts, OPTIMIZER["clip_norm"], norm)

    def step(self):
        begin = time.perf_counter()
        sequence, batch = MODELS[self.name][7], MODELS[self.name][9]
        own = batch // self.ranks
        starts = (torch.arange(own) + self.done * batch + self.rank * own) * sequence
        data = self.tokens[starts[:, None] + torch.arange(sequence + 1)]
        objective, loss = self.run(data[:, :-1].contiguous(), data[:, 1:].contiguous())
        objective.backward()
        if self.ranks > 1:  # the experts' gradients are sums over the ranks, of losses that are means over a rank's tokens
            torch._foreach_div_([p.grad for p in self.experts], float(self.ranks))
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.ranks == 1)
        self.done += 1
        loss = loss.detach().double() / self.ranks
        if self.ranks > 1:
            dist.all_reduce(loss)
        return time.perf_counter() - begin, loss.item()


def wanted_steps(rank, ranks):
    count = torch.zeros(1, dtype=torch.int64)
    if rank == 0:
        line = sys.stdin.readline()
        count[0] = int(line) if line else 0
    if ranks > 1:
        dist.broadcast(count, 0)
    return int(count)


def main():
    name, precision, threads, system, folder, routing = sys.argv[1:7]
    ranks = int(sys.argv[7]) if len(sys.argv) > 7 else 1
    rank = int(os.environ.get("BENCH_RANK", "0"))
    others = []
    if rank == 0:
        others = [subprocess.Popen([sys.executable, *sys.argv], env=dict(os.environ, BENCH_RANK=str(r)),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for r in range(1, ranks)]
    torch.set_num_threads(int(threads))
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous-{os.getppid() if rank else os.getpid()}",
                                rank=rank, world_size=ranks)
    trainer = Trainer(name, precision, system == "compiled", pathlib.Path(folder), routing, ranks, rank)
    while steps := wanted_steps(rank, ranks):
        seconds, losses = zip(*(trainer.step() for _ in range(steps)))
        if rank == 0:
            print(json.dumps({"seconds": seconds, "losses": losses,
                              "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}), flush=True)
    if ranks > 1:
        dist.destroy_process_group()
    for other in others:
        other.wait()


if __name__ == "__main__":
    main()
