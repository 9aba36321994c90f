"""The files of tests/golden, made again: does what they hold still come out of PyTorch and transformers?"""

import json
import pathlib
import sys
import tempfile

from safetensors.torch import load_file

from common import ROOT, relative
from make_golden import CASES, GOLDEN, write

# Absolute, of float32; relative. The steps are float64's, but transformers normalises and attends in float32 even then, so another
# processor's differ in the seventh digit (measured: 5e-7 in grad_norm, 4e-8 in the loss, AVX2 against AVX-512).
LOGITS, STEPS = 1e-5, 2e-6
KEPT = ROOT / "tests/golden"


def tensors_differ(kept, made):
    """The greatest difference of two safetensors files' tensors, infinite where they hold others."""
    kept, made = load_file(kept), load_file(made)
    if kept.keys() != made.keys():
        return float("inf")
    return max((kept[name] - made[name]).abs().max().item() for name in kept)


def steps_differ(kept, made):
    kept, made = ([json.loads(line) for line in path.read_text().splitlines()] for path in (kept, made))
    return max(relative([a[name] for a in made], [b[name] for b in kept]) for name in ("loss", "grad_norm", "aux_loss", "z_loss"))


def main():
    failed = False
    print("| golden | data | weights | logits | steps |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        for name, case in GOLDEN.items():
            write(name, CASES[case], pathlib.Path(temporary))
            kept, made = KEPT / name, pathlib.Path(temporary) / name
            data = all((kept / f).read_bytes() == (made / f).read_bytes() for f in ("ids.txt", "tokens.bin", "tokens.idx"))
            weights = tensors_differ(kept / "model/model.safetensors", made / "model/model.safetensors")
            logits = tensors_differ(kept / "logits.safetensors", made / "logits.safetensors")
            steps = steps_differ(kept / "metrics.jsonl", made / "metrics.jsonl")
            print(f"| {name} | {'same bytes' if data else 'OTHER'} | {weights:.1e} | {logits:.1e} | {steps:.1e} |")
            failed |= not data or weights > 0 or logits > LOGITS or steps > STEPS
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
