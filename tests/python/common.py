"""What the checks share: the program under test, token files, and how a difference is measured."""

import contextlib
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("SWITCHYARD", str(ROOT / "build/release/switchyard"))
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


def run(*args, ranks=1):
    """Runs the program and returns its stdout; an exit code other than 0 is an error with its stderr."""
    command = [PROGRAM, *map(str, args)]
    if ranks > 1:
        command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def write_tokens(prefix, tokens):
    """One document in Megatron's format: u16 tokens and an index."""
    tokens = numpy.asarray(tokens, dtype="<u2")
    pathlib.Path(f"{prefix}.bin").write_bytes(tokens.tobytes())
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, 1, 2)
    index += struct.pack("<iqqq", len(tokens), 0, 0, 1)
    pathlib.Path(f"{prefix}.idx").write_bytes(index)


def random_tokens(count, vocab_size, seed=7):
    """Tokens with something to learn: each is mostly a function of the one before."""
    random = numpy.random.default_rng(seed)
    follower = random.permutation(vocab_size)
    tokens = [0]
    while len(tokens) < count:
        tokens.append(int(follower[tokens[-1]] if random.random() < 0.7 else random.integers(vocab_size)))
    return tokens


def read_metrics(run_dir):
    return [json.loads(line) for line in (pathlib.Path(run_dir) / "metrics.jsonl").read_text().splitlines()]


def relative(ours, theirs):
    """The greatest |a - b| / |b| of two series."""
    return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(ours, theirs, strict=True))


class Table:
    """Prints a line per case as it is known, and remembers failures."""

    def __init__(self, *columns):
        self.columns, self.failed = columns, []
        print("| " + " | ".join(columns) + " |")
        print("|" + " --- |" * len(columns), flush=True)

    def row(self, name, *values, ok):
        text = [v if isinstance(v, str) else f"{v:.1e}" for v in values]
        print("| " + " | ".join([name, *text]) + (" |" if ok else " | FAILED"), flush=True)
        if not ok:
            self.failed.append(name)

    @contextlib.contextmanager
    def guard(self, name):
        """A case that breaks off is a failed row; the others go on."""
        try:
            yield
        except Exception as error:
            self.row(name, f"{type(error).__name__}: {error}", ok=False)

    def finish(self):
        if self.failed:
            sys.exit(f"failed: {', '.join(self.failed)}")
