"""import, score and export against transformers: logits, round trip of the bits, loading of exports.

usage: check_weights.py [CASE]..."""

import sys
import tempfile

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from common import Table, pathlib, random_tokens, run, write_tokens
from models import CASES, EAGER, make_model

LOGITS = 1e-4
UPCYCLED = ("qwen3", "llama odd")


def logits_of(model, sequences):
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0] for ids in sequences]


def score(checkpoint, sequences, folder):
    lines = folder / "ids.txt"
    lines.write_text("".join(" ".join(map(str, ids)) + "\n" for ids in sequences))
    out = folder / "logits.safetensors"
    run("score", checkpoint, "--tokens", lines, "--out", out)
    tensors = load_file(out)
    return [tensors[f"logits.{i}"] for i in range(len(sequences))]


def worst(ours, theirs):
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))


def tensors_of(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def difference(a, b):
    """Where two sets of tensors differ in name, type, shape or bit; empty where nowhere."""
    if a.keys() != b.keys():
        return f"names: {sorted(a.keys() ^ b.keys())[:3]}"
    for name, tensor in a.items():
        other = b[name]
        if tensor.dtype != other.dtype or tensor.shape != other.shape:
            return f"{name}: {tensor.dtype} {tuple(tensor.shape)}, {other.dtype} {tuple(other.shape)}"
        if tensor.numpy().tobytes() != other.numpy().tobytes():
            return f"{name}: bits"
    return ""


def rounding(exact, narrow):
    """Where bfloat16 tensors are not the nearest to the exact ones; empty where nowhere."""
    if exact.keys() != narrow.keys():
        return f"names: {sorted(exact.keys() ^ narrow.keys())[:3]}"
    wrong = [name for name, tensor in exact.items() if not torch.equal(tensor.to(narrow[name].dtype), narrow[name])]
    return f"rounding: {wrong[:3]}" if wrong else ""


def load_strictly(folder):
    """(model, what transformers complains of)"""
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, dtype=torch.float32, **EAGER)
    complaints = "; ".join(f"{key}: {sorted(map(str, value))[:3]}" for key, value in info.items() if value)
    return model.eval(), complaints


def train_and_export(checkpoint, vocab_size, folder):
    """A few steps from the import, exported, and both scored. Returns the logits' difference and complaints."""
    write_tokens(folder / "data", random_tokens(600, vocab_size))
    (folder / "train.txtpb").write_text(
        f'name: "trained" threads: 1 train {{ steps: 5 global_batch_size: 4 micro_batch_size: 2 sequence_length: 16 '
        f'init_from: "{checkpoint}" }} optimizer {{ lr: 1e-2 }} data {{ train: "{folder}/data" }}')
    run("train", folder / "train.txtpb", "--run-dir", folder / "run")
    run("export", folder / "run", "--format", "hf", "--out", folder / "trained")
    model, complaints = load_strictly(folder / "trained")
    sequences = [random_tokens(33, vocab_size, seed=3)]
    return worst(score(folder / "run", sequences, folder), logits_of(model, sequences)), complaints


def check(table, name, case, folder):
    model = make_model(case)
    vocab_size = model.config.vocab_size
    model.save_pretrained(folder / "hf")
    run("import", "--from", folder / "hf", "--to", folder / "checkpoint")
    sequences = [random_tokens(n, vocab_size, seed=n) for n in (1, 7, 64, 100)]
    error = worst(score(folder / "checkpoint", sequences, folder), logits_of(model, sequences))
    run("export", folder / "checkpoint", "--format", "hf", "--dtype", "f32", "--out", folder / "back")
    round_trip = difference(tensors_of(folder / "hf"), tensors_of(folder / "back"))
    run("export", folder / "checkpoint", "--format", "hf", "--dtype", "bf16", "--out", folder / "narrow")
    round_trip = round_trip or rounding(tensors_of(folder / "hf"), tensors_of(folder / "narrow"))
    back, complaints = load_strictly(folder / "back")
    complaints = complaints or load_strictly(folder / "narrow")[1]
    complaints = complaints or difference(model.state_dict(), back.state_dict())
    trained, trained_complaints = train_and_export(folder / "checkpoint", vocab_size, folder)
    complaints = complaints or trained_complaints
    ok = error < LOGITS and not round_trip and not complaints and trained < LOGITS
    table.row(name, error, round_trip or "same bits", complaints or "clean", trained, ok=ok)


def check_upcycled(table, name, folder):
    """A dense model becomes a mixture of its copies, which computes the same, here and in transformers."""
    model = make_model(CASES[name])
    model.save_pretrained(folder / "hf")
    run("import", "--from", folder / "hf", "--to", folder / "mixture", "--upcycle", "num_experts=8,top_k=2")
    sequences = [random_tokens(64, model.config.vocab_size)]
    dense = logits_of(model, sequences)
    error = worst(score(folder / "mixture", sequences, folder), dense)
    run("export", folder / "mixture", "--format", "hf", "--dtype", "f32", "--out", folder / "back")
    back, complaints = load_strictly(folder / "back")
    again = worst(logits_of(back, sequences), dense)
    ok = error < LOGITS and again < LOGITS and not complaints
    table.row(f"{name}, upcycled to {back.config.model_type}", error, "", complaints or "clean", again, ok=ok)


if __name__ == "__main__":
    table = Table("model", "logits", "round trip", "loading", "logits of a trained export")
    for name in sys.argv[1:] or CASES:
        with table.guard(name), tempfile.TemporaryDirectory() as folder:
            check(table, name, CASES[name], pathlib.Path(folder))
    for name in [n for n in sys.argv[1:] or UPCYCLED if n in UPCYCLED]:
        with table.guard(name), tempfile.TemporaryDirectory() as folder:
            check_upcycled(table, name, pathlib.Path(folder))
    table.finish()
