"""Ids of every kind of tokenizer against the reference libraries, and every line back again.

The corpus: Debian's installation manual in a dozen languages, our own sources, emoji and other trying text. Its manuals come
from scripts/get_manuals; MANUALS names another folder with LANGUAGE/install.LANGUAGE.txt.gz.
"""

import gzip
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unicodedata

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("SWITCHYARD", ROOT / "build/release/switchyard"))
TOKENIZE = PROGRAM.parent / "tests/tokenize/tokenize"
LANGUAGES = "cs da de el en es fr it ja ko pt ru sv vi zh_CN".split()
LINES = 300  # of each language
VOCABULARY = 3000
QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA = QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

EMOJI = [
    "😀😃😄😁😆😅🤣😂🙂🙃😉😊😇🥰😍🤩😘", "👍🏻👍🏼👍🏽👍🏾👍🏿 👩‍💻👨‍👩‍👧‍👦🏳️‍🌈🏴‍☠️🧑🏽‍🚀", "🇩🇪🇫🇷🇯🇵🇰🇷🇺🇳 #️⃣*️⃣0️⃣1️⃣",
    "☎️✂️✈️✉️✏️✒️ ✔ ✖ ✨ ❄ ❌ ❓ ❗ ❤️‍🔥", "🐶🐱🐭🐹🐰🦊🐻🐼🐻‍❄️🐨", "🍏🍎🍐🍊🍋🍌 = 6 fruits", "text😀text 😀 text  😀  ",
    "𝕬𝖇𝖈 𝟘𝟙𝟚 𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α∧¬β = ¬(¬α∨β)", "⡌⠁⠧⠑ ⠼⠁⠒ ⡍⠜⠇⠑⠹⠰⠎ ⡣⠕⠌", "╔══╦══╗ ║┌─╨─┐║ ▉▊▋▌▍▎▏",
]
TRYING = [
    " ", "  ", "\t", "\n", "\r\n", "\n\n\n", "a", " a", "a ", "  a  b   c    ", "\ta\t\tb", "x\ny\r\nz\n", "don't DON'T we'll I'D",
    "1 12 123 1234 12345 3.14159e-26 0xFF", "٠١٢٣٤٥٦٧٨٩ ⅷ ½ ²", "a\u00a0b\u2003c\u3000d\u200be\ufefff", "\u0000\u0001\u007f\u0080",
    "e\u0301 o\u0308\u0323 \u1112\u1161\u11ab \u212b \u0958 \u0344", "Å Å A\u030a \ufb01 \uff21\uff22", "العربية עברית हिन्दी ภาษาไทย",
    "가각간갇갈 각각", "~~~```---***___===+++", "a" * 300, "ab" * 200, " " * 50 + "x", "\n" * 20, "😀" * 40,
]


def manuals():
    if "MANUALS" in os.environ:
        return pathlib.Path(os.environ["MANUALS"])
    package = "usr/share/doc/installation-guide-amd64"
    for folder in [pathlib.Path("/") / package, ROOT / "data/quickstart/package/root" / package]:
        if (folder / "en").is_dir():
            return folder
    subprocess.run([ROOT / "scripts/get_manuals"], check=True)
    return ROOT / "data/quickstart/package/root" / package


def read_manual(folder, language):
    data = b"".join(gzip.open(path).read() for path in sorted((folder / language).glob("install.*.txt.gz")))
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("koi8-r")


def corpus():
    """Lines with their ends, so that line breaks are tokenised as well."""
    folder, lines = manuals(), []
    for language in LANGUAGES:
        own = [line for line in read_manual(folder, language).splitlines(keepends=True) if len(line.strip()) > 20]
        step = max(1, len(own) // LINES)
        lines += own[::step][:LINES]
    languages = len(lines)
    for path in sorted([*ROOT.glob("trainer/data/*.cpp"), *ROOT.glob("kernels/cuda/*.cu*"), *ROOT.glob("tests/python/*.py")]):
        lines += path.read_text().splitlines(keepends=True)[:40]
    return lines + EMOJI + TRYING, languages, len(lines) - languages


def byte_level(lines, pattern, nfc):
    made = tokenizers.Tokenizer(models.BPE())
    if nfc:
        made.normalizer = normalizers.NFC()
    if pattern:
        made.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(lines, trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return made


def sentencepiece_model(lines, folder, prefix):
    text = folder / "corpus.txt"
    text.write_text("".join(line if line.endswith("\n") else line + "\n" for line in lines if "\0" not in line))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / f"spm{prefix:d}"), model_type="bpe", vocab_size=VOCABULARY, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, add_dummy_prefix=prefix, max_sentence_length=100000,
        allow_whitespace_only_pieces=True, split_digits=True, character_coverage=0.9995, minloglevel=2)
    return folder / f"spm{prefix:d}.model"


def ours(path, lines):
    texts = "".join(json.dumps(line) + "\n" for line in lines)
    done = subprocess.run([TOKENIZE, path], input=texts, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{TOKENIZE} {path}: {done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


class Report:
    def __init__(self):
        self.failed = False
        print("| tokenizer | reference | lines | tokens | other ids | not itself again |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)

    def compare(self, name, reference, path, lines, expected, itself=lambda line: line):
        mine = ours(path, lines)
        other = [line for line, a, e in zip(lines, mine, expected, strict=True) if a["ids"] != e]
        lost = [line for line, a in zip(lines, mine, strict=True) if a["text"] != itself(line)]
        tokens = sum(len(ids) for ids in expected)
        print(f"| {name} | {reference} | {len(lines)} | {tokens} | {len(other)} | {len(lost)} |", flush=True)
        for line in (other + lost)[:3]:
            print(f"    {line!r}")
        self.failed |= bool(other or lost)


def compare_with_tokenizers(report, name, path, lines, itself=lambda line: line):
    reference = tokenizers.Tokenizer.from_file(str(path))
    expected = [reference.encode(line, add_special_tokens=False).ids for line in lines]
    report.compare(name, "tokenizers", path, lines, expected, itself)


def main():
    lines, languages, code = corpus()
    print(f"{len(lines)} lines: {languages} in {len(LANGUAGES)} languages, {code} of code, "
          f"{len(EMOJI)} with emoji and symbols, {len(TRYING)} others; tokenizers {tokenizers.__version__}, "
          f"sentencepiece {sentencepiece.__version__}\n")
    report = Report()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "corpus.txt").write_text("".join(lines))
        subprocess.run([PROGRAM, "prepare", folder / "corpus.txt", "--out", folder / "own", "--train-tokenizer",
                        "--vocab-size", str(VOCABULARY)], check=True, capture_output=True)
        own = next(path for path in folder.glob("own*.json") if path.name != "own.json")
        compare_with_tokenizers(report, "trained by prepare", own, lines)
        for kind, pattern, nfc in [("GPT-2's", None, False), ("Qwen's, NFC", QWEN, True), ("Llama 3's", LLAMA, False)]:
            path = folder / "byte_level.json"
            byte_level(lines, pattern, nfc).save(str(path))
            composed = (lambda line: unicodedata.normalize("NFC", line)) if nfc else (lambda line: line)
            compare_with_tokenizers(report, f"byte-level, {kind} words", path, lines, composed)
        for prefix in [False, True]:
            path = sentencepiece_model(lines, folder, prefix)
            model = sentencepiece.SentencePieceProcessor(model_file=str(path))
            # SentencePiece ends a text at a NUL, and takes its own marker for a space.
            plain = [line for line in lines if "\0" not in line and "\u2581" not in line]
            what = "SentencePiece, byte fallback" + (", prefix" if prefix else "")
            report.compare(what, "sentencepiece", path, plain, [model.encode(line) for line in plain])
    sys.exit("failed" if report.failed else 0)


if __name__ == "__main__":
    main()
