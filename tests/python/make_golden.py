"""Writes tests/golden/: models of transformers, their logits, and twenty steps of training in PyTorch (float64).

tests/trainer/parity_test.cpp compares with them, so that the comparison needs no Python. Run again only to change them."""

import copy
import json

import torch
from safetensors.torch import save_file

from check_training import BATCH, LENGTH, LR, STEPS, config_text, train_in_torch
from common import ROOT, random_tokens, write_tokens
from models import CASES, make_model

GOLDEN = {"dense": "llama odd", "moe": "qwen3_moe", "grouped": "glm4_moe"}
SCORED = (1, 9, 40)  # tokens of each scored sequence


def write_logits(folder, model):
    sequences = [random_tokens(n, model.config.vocab_size, seed=n) for n in SCORED]
    (folder / "ids.txt").write_text("".join(" ".join(map(str, ids)) + "\n" for ids in sequences))
    model = copy.deepcopy(model).double()
    with torch.no_grad():
        logits = {f"logits.{i}": model(torch.tensor([ids])).logits[0].float() for i, ids in enumerate(sequences)}
    save_file(logits, folder / "logits.safetensors")


def write(name, case, root=ROOT / "tests/golden"):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(case)
    model.save_pretrained(folder / "model")
    (folder / "model/generation_config.json").unlink(missing_ok=True)
    write_logits(folder, model)
    tokens = random_tokens(STEPS * BATCH * LENGTH + 1, model.config.vocab_size)
    write_tokens(folder / "tokens", tokens)
    (folder / "train.txtpb").write_text(config_text(model, "tokens", "checkpoint", 1))
    steps = train_in_torch(model.double().train(), tokens)
    names = ("loss", "grad_norm", "aux_loss", "z_loss")
    lines = [json.dumps(dict(step=i, lr=LR, **dict(zip(names, values)), layers=[])) for i, values in enumerate(steps, 1)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    for name, case in GOLDEN.items():
        write(name, CASES[case])
