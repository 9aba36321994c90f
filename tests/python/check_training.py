"""Twenty steps of `switchyard train` against the same steps in PyTorch: losses, gradient norms, auxiliary losses.

PyTorch computes them in float64 (transformers takes norms and softmax back to float32), and once more in float32: the
last columns say how far that lies from its own float64, which is what Switchyard's float32 may be measured by.

Both start from the same weights and take the same batches (DESIGN of the data: no shuffling, sample i is the tokens
i*S .. i*S+S). The router's losses are Switchyard's: per layer and micro-batch, coeff * E * sum_e f_e P_e with f_e the
share of assignments and P_e the mean score, and coeff * mean logsumexp(z)^2.

usage: check_training.py [--ranks 1,2] [CASE]..."""

import argparse
import copy
import tempfile

import torch
import torch.nn.functional as F

from common import Table, pathlib, random_tokens, read_metrics, relative, run, write_tokens
from models import CASES, make_model, routers

STEPS, BATCH, MICRO, LENGTH = 20, 8, 2, 24
LR, BETAS, EPS, DECAY, CLIP = 3e-3, (0.9, 0.95), 1e-8, 0.1, 1.0
AUX, Z, BIAS_RATE = 2e-2, 1e-3, 1e-3
LOSS, NORM = 1e-4, 1e-3


def sequences(tokens, step):
    """[BATCH, LENGTH + 1]: the samples of step `step`, from 0."""
    first = step * BATCH
    return torch.tensor([tokens[i * LENGTH : i * LENGTH + LENGTH + 1] for i in range(first, first + BATCH)])


class RouterWatch:
    """Collects the routers' losses and loads as the model computes."""

    def __init__(self, model):
        self.routers = routers(model)
        self.counts = [torch.zeros(r.weight.shape[0]) for r in self.routers]
        self.sigmoid = [hasattr(r, "e_score_correction_bias") for r in self.routers]
        self.clear()
        for i, router in enumerate(self.routers):
            router.register_forward_hook(lambda module, inputs, output, i=i: self.see(i, inputs[0], module, output))

    def clear(self):
        self.aux, self.z = 0.0, 0.0

    def see(self, i, x, module, output):
        logits = F.linear(x.reshape(-1, x.shape[-1]), module.weight)
        experts = output[2].reshape(logits.shape[0], -1)
        scores = logits.sigmoid() if self.sigmoid[i] else logits.softmax(-1)
        mean = (scores / scores.sum(-1, keepdim=True)).mean(0)
        count = torch.bincount(experts.flatten(), minlength=logits.shape[1]).to(logits.dtype)
        self.counts[i] += count
        self.aux = self.aux + AUX * logits.shape[1] * (count / experts.numel() * mean).sum()
        self.z = self.z + Z * logits.logsumexp(-1).square().mean()

    def move_biases(self):
        """Once per global batch: up where an expert had less than the mean, down where more."""
        for router, count, sigmoid in zip(self.routers, self.counts, self.sigmoid):
            if sigmoid:
                router.e_score_correction_bias += BIAS_RATE * torch.sign(count.mean() - count)
            count.zero_()


def train_in_torch(model, tokens):
    """[(loss, grad_norm, aux_loss, z_loss)] of every step."""
    watch = RouterWatch(model)
    parameters = list(model.parameters())
    groups = [dict(params=[p for p in parameters if p.ndim >= 2], weight_decay=DECAY),
              dict(params=[p for p in parameters if p.ndim < 2], weight_decay=0.0)]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, eps=EPS)
    history = []
    for step in range(STEPS):
        batch = sequences(tokens, step)
        sums = [0.0, 0.0, 0.0]
        for micro in batch.split(MICRO):
            watch.clear()
            logits = model(micro[:, :-1], use_cache=False).logits
            ce = F.cross_entropy(logits.flatten(0, 1), micro[:, 1:].flatten(), reduction="sum") / (BATCH * LENGTH)
            aux, z = watch.aux * MICRO / BATCH, watch.z * MICRO / BATCH
            (ce + aux + z).backward()
            sums = [s + torch.as_tensor(v).item() for s, v in zip(sums, (ce, aux, z))]
        norm = torch.nn.utils.clip_grad_norm_(parameters, CLIP).item()
        optimizer.step()
        optimizer.zero_grad()
        watch.move_biases()
        history.append((sums[0], norm, sums[1], sums[2]))
    return history


def expert_degree(model, ranks):
    """All ranks, where the experts divide among them."""
    return ranks if routers(model) and len(routers(model)[0].weight) % ranks == 0 else 1


def config_text(model, data, init_from, expert):
    moe = ""
    if routers(model):
        rate = f" bias_update_rate: {BIAS_RATE}" if hasattr(routers(model)[0], "e_score_correction_bias") else ""
        moe = f"model {{ moe {{ balance: AUX aux_loss_coeff: {AUX} z_loss_coeff: {Z}{rate} }} }}\n"
    return f"""name: "parity"
threads: 1
{moe}parallel {{ expert: {expert} }}
train {{
  steps: {STEPS}
  global_batch_size: {BATCH}
  micro_batch_size: {MICRO}
  sequence_length: {LENGTH}
  init_from: "{init_from}"
}}
optimizer {{ lr: {LR} beta1: {BETAS[0]} beta2: {BETAS[1]} eps: {EPS} weight_decay: {DECAY} clip_norm: {CLIP} }}
schedule {{ kind: CONSTANT }}
data {{ train: "{data}" shuffle: false }}
"""


def train_here(model, folder, ranks):
    config = folder / f"train{ranks}.txtpb"
    config.write_text(config_text(model, folder / "data", folder / "checkpoint", expert_degree(model, ranks)))
    run("train", config, "--run-dir", folder / f"run{ranks}", ranks=ranks)
    metrics = read_metrics(folder / f"run{ranks}")
    return [(m["loss"], m["grad_norm"], m["aux_loss"], m["z_loss"]) for m in metrics]


def check(table, name, case, ranks_list, folder):
    model = make_model(case)
    tokens = random_tokens(STEPS * BATCH * LENGTH + 1, model.config.vocab_size)
    write_tokens(folder / "data", tokens)
    model.save_pretrained(folder / "hf")
    run("import", "--from", folder / "hf", "--to", folder / "checkpoint")
    single = list(zip(*train_in_torch(copy.deepcopy(model).train(), tokens)))
    theirs = list(zip(*train_in_torch(model.double().train(), tokens)))
    yardstick = [relative(a, b) for a, b in zip(single[:2], theirs)]
    for ranks in ranks_list:
        ours = list(zip(*train_here(model, folder, ranks)))
        errors = [relative(a, b) if any(b) else 0.0 for a, b in zip(ours, theirs)]
        ok = errors[0] < LOSS and errors[1] < NORM and max(errors[2:]) < NORM and len(ours[0]) == STEPS
        layout = f"{ranks} x EP {expert_degree(model, ranks)}"
        table.row(name, layout, *errors, *yardstick, f"{theirs[0][0]:.3f} to {theirs[0][-1]:.3f}", ok=ok)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("cases", nargs="*", default=list(CASES))
    args = parser.parse_args()
    table = Table("model", "layout", "loss", "gradient norm", "aux loss", "z-loss", "loss, PyTorch float32",
                  "gradient norm, PyTorch float32", "loss from, to")
    for name in args.cases or CASES:
        with table.guard(name), tempfile.TemporaryDirectory() as folder:
            check(table, name, CASES[name], [int(r) for r in args.ranks.split(",")], pathlib.Path(folder))
    table.finish()
