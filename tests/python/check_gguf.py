"""export --format gguf, loaded by llama.cpp itself: probabilities of the next token against transformers.

usage: check_gguf.py [ARCH]..."""

import sys
import tempfile

import torch
import xllamacpp

from common import Table, pathlib, random_tokens, run
from models import GGUF_CASES, make_model

PROBABILITY = 1e-4
LENGTHS = (1, 5, 17, 64)


def serve(path):
    """llama.cpp with the model, on one thread and with nothing in half precision: the cache would be f16."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 128, 1, 0
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.warmup = False
    params.verbosity = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    return xllamacpp.Server(params)


def next_token(server, ids, vocab_size):
    """[vocab_size] probabilities after `ids`."""
    answers = []
    server.handle_completions(dict(prompt=ids, n_predict=1, n_probs=vocab_size, temperature=1.0, cache_prompt=False,
                                   ignore_eos=True), answers.append)
    choices = answers[0]["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
    found = torch.zeros(vocab_size)
    for choice in choices:
        found[choice["id"]] = choice["logprob"]
    if len(choices) != vocab_size:
        raise RuntimeError(f"{len(choices)} probabilities, {vocab_size} asked for")
    return found.exp()


def check(table, arch, case, folder):
    model = make_model(case)
    vocab_size = model.config.vocab_size
    model.save_pretrained(folder / "hf")
    run("import", "--from", folder / "hf", "--to", folder / "checkpoint")
    said = run("export", folder / "checkpoint", "--format", "gguf", "--dtype", "f32", "--out", folder / "gguf")
    (file,) = (folder / "gguf").iterdir()
    server = serve(file)
    error, greatest = 0.0, 0.0
    for n in LENGTHS:
        ids = random_tokens(n, vocab_size, seed=n)
        with torch.no_grad():
            theirs = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
        ours = next_token(server, ids, vocab_size)
        error = max(error, (ours - theirs).abs().max().item())
        greatest = max(greatest, theirs.max().item())
    named = f"exported as {arch.split()[0]} " in said
    table.row(arch, error, f"{greatest:.2f}", ok=named and error < PROBABILITY)


if __name__ == "__main__":
    table = Table("architecture", "probabilities", "the greatest")
    for name in sys.argv[1:] or GGUF_CASES:
        with table.guard(name), tempfile.TemporaryDirectory() as folder:
            check(table, name, GGUF_CASES[name], pathlib.Path(folder))
    table.finish()
