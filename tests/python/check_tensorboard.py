"""RUN/tb, read by TensorBoard's own reader: every tag, scalars against metrics.jsonl, text, hparams, the picture.

The run is killed in the middle of a record, and goes on from a checkpoint before it: no step may show twice.
"""

import json
import logging
import pathlib
import shutil
import struct
import tempfile
import zlib

import common
import numpy
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util import tensor_util

logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of what it drops on a resume
LAYERS, EXPERTS, STEPS = 2, 4, 12
CONFIG = """
name: "board" seed: 3 threads: 1
model { hidden_size: 32 num_layers: %d num_attention_heads: 2
        moe { num_experts: %d top_k: 2 moe_intermediate_size: 16 aux_loss_coeff: 0.01 z_loss_coeff: 0.001 } }
train { steps: %d global_batch_size: 2 micro_batch_size: 1 sequence_length: 32 }
eval { every_steps: 4 batches: 2 } checkpoint { every_steps: 4 } log { every_steps: 3 }
sample { every_steps: 6 prompts: "The layers" prompts: "# <b>" max_tokens: 8 }
"""
SCALARS = {  # tag: the figure of metrics.jsonl
    "train/loss": lambda m: m["loss"],
    "train/aux_loss": lambda m: m["aux_loss"],
    "train/z_loss": lambda m: m["z_loss"],
    "train/grad_norm": lambda m: m["grad_norm"],
    "train/lr": lambda m: m["lr"],
    "throughput/tokens_per_second": lambda m: m["tokens_per_second"],
    "throughput/step_seconds": lambda m: m["step_seconds"],
    "throughput/exchange_share": lambda m: m["exchange_seconds"] / m["step_seconds"],
    "throughput/exchange_bytes": lambda m: m["exchange_bytes"],
    "throughput/gradient_bytes": lambda m: m["gradient_bytes"],
    "throughput/parameter_bytes": lambda m: m["parameter_bytes"],
    "memory/peak_bytes": lambda m: m["peak_memory_bytes"],
    "moe/max_violation_max": lambda m: max(x["max_violation"] for x in m["layers"]),
    "moe/max_violation_mean": lambda m: sum(x["max_violation"] for x in m["layers"]) / LAYERS,
    "moe/drop_rate_max": lambda m: max(x["drop_rate"] for x in m["layers"]),
    "moe/drop_rate_mean": lambda m: sum(x["drop_rate"] for x in m["layers"]) / LAYERS,
    "moe/router_entropy_mean": lambda m: sum(x["router_entropy"] for x in m["layers"]) / LAYERS,
    "moe/dead_experts": lambda m: sum(x["dead_experts"] for x in m["layers"]),
}
for layer in range(LAYERS):
    for name in ("max_violation", "rank_overload", "router_entropy", "drop_rate", "dead_experts"):
        SCALARS[f"moe/layer_{layer:02}/{name}"] = lambda m, layer=layer, name=name: m["layers"][layer][name]
PICTURED = [1, 3, 4, 6, 8, 9, 12]  # every third step, evaluations, the first and the last


def train(folder, steps):
    """Trains to `steps`, as a run of STEPS that is stopped there."""
    config = folder / "board.txtpb"
    config.write_text(CONFIG % (LAYERS, EXPERTS, steps))
    data = ["--set", f"data.train={folder}/text", "--set", f"data.validation={folder}/text"]
    common.run("train", config, *data, "--run-dir", folder / "run")


def interrupted_run(folder):
    manual = folder / "manual.txt"
    manual.write_text("".join(p.read_text() for p in sorted((common.ROOT / "docs").glob("*.md"))))
    common.run("prepare", manual, "--out", folder / "text")
    train(folder, 10)
    shutil.rmtree(folder / "run/checkpoints/step_00000010")
    [events] = (folder / "run/tb").iterdir()
    events.write_bytes(events.read_bytes()[:-7])
    train(folder, STEPS)
    assert len(list((folder / "run/tb").iterdir())) == 2
    return folder / "run"


def read(run):
    board = EventAccumulator(str(run / "tb"), size_guidance={"scalars": 0, "tensors": 0})
    board.Reload()
    return board


def series(board, tag):
    return [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in board.Tensors(tag)]


def png_pixels(data):
    """The RGBA pixels of a PNG whose rows are less the row above; every chunk's checksum is compared."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        body, crc = data[at + 4 : at + 8 + length], data[at + 8 + length : at + 12 + length]
        assert struct.unpack(">I", crc)[0] == zlib.crc32(body)
        chunks[body[:4]], at = body[4:], at + 12 + length
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    rows = numpy.frombuffer(zlib.decompress(chunks[b"IDAT"]), numpy.uint8).reshape(height, 1 + 4 * width)
    assert (rows[:, 0] == 2).all()
    return rows[:, 1:].cumsum(axis=0, dtype=numpy.uint8).reshape(height, width, 4)


def check_scalars(table, board, metrics, evaluations):
    for tag, figure in SCALARS.items():
        values = series(board, tag)
        steps = [step for step, _ in values]
        difference = common.relative([float(v) for _, v in values], [figure(m) for m in metrics])
        table.row(tag, f"steps {steps[0]} to {steps[-1]}", difference,
                  ok=steps == list(range(1, STEPS + 1)) and difference < 1e-6)
    for tag, field in (("eval/loss", "loss"), ("eval/bits_per_byte", "bits_per_byte")):
        values = series(board, tag)
        difference = common.relative([float(v) for _, v in values], [e[field] for e in evaluations])
        table.row(tag, f"steps {[s for s, _ in values]}", difference,
                  ok=[s for s, _ in values] == [4, 8, 12] and difference < 1e-6)


def check_loads(table, board, metrics):
    for layer in range(LAYERS):
        tag, worst = f"moe/layer_{layer:02}/load", 0
        values = series(board, tag)
        for step, bars in values:
            load = metrics[step - 1]["layers"][layer]["load"]
            worst = max(worst, float(abs(bars[:, 2] / bars[:, 2].sum() - load).max()))
            assert (bars[:, 0] == range(EXPERTS)).all() and (bars[:, 1] == bars[:, 0] + 1).all()
        table.row(tag, f"steps {[s for s, _ in values]}", worst,
                  ok=[s for s, _ in values] == PICTURED and worst < 1e-12)
    pictures = series(board, "moe/load")
    for step, (width, height, png) in pictures:
        pixels = png_pixels(png)
        cell = pixels.shape[0] // LAYERS
        assert pixels.shape == (LAYERS * cell, EXPERTS * cell, 4) == (int(height), int(width), 4)
        for layer in range(LAYERS):
            for expert, load in enumerate(metrics[step - 1]["layers"][layer]["load"]):
                red, _, blue, alpha = pixels[layer * cell + cell // 2, expert * cell + cell // 2]
                distance = min(1.0, abs(numpy.log2(max(load, 1e-9) * EXPERTS)) / 2)
                assert abs(alpha - 216 * distance**0.75) <= 1 and (alpha == 0 or (red > blue) == (load * EXPERTS > 1))
    table.row("moe/load", f"steps {[s for s, _ in pictures]}", f"PNG {pixels.shape[1]} x {pixels.shape[0]}",
              ok=[s for s, _ in pictures] == PICTURED)


def check_text(table, board, run):
    def shown(path):
        return b"".join(b"    " + line + b"\n" for line in path.read_bytes().removesuffix(b"\n").split(b"\n"))

    samples = [(step, shown(run / f"samples/step_{step:08}.txt")) for step in (6, 12)]
    values = [(s, v.item()) for s, v in series(board, "samples")]
    table.row("samples", f"steps {[s for s, _ in values]}", "equal to samples/", ok=values == samples)
    values = [(s, v.item()) for s, v in series(board, "config")]
    table.row("config", f"steps {[s for s, _ in values]}", "equal to config.txtpb",
              ok=values[-1][1] == shown(run / "config.txtpb") and [s for s, _ in values] == [1, 9])


def check_hparams(table, board, run):
    tags = board.PluginTagToContent("hparams")
    start = plugin_data_pb2.HParamsPluginData.FromString(tags["_hparams_/session_start_info"])
    experiment = plugin_data_pb2.HParamsPluginData.FromString(tags["_hparams_/experiment"]).experiment
    values = start.session_start_info.hparams
    ok = values["model.moe.num_experts"].number_value == EXPERTS and values["name"].string_value == "board"
    ok &= values["precision"].string_value == "FP32" and values["data.shuffle"].bool_value
    ok &= sorted(h.name for h in experiment.hparam_infos) == sorted(values)
    metrics = [m.name.tag for m in experiment.metric_infos]
    ok &= set(metrics) <= set(board.Tags()["tensors"])
    table.row("_hparams_/session_start_info", f"{len(values)} fields", "", ok=ok)
    table.row("_hparams_/experiment", ", ".join(metrics), "", ok=ok)


def main():
    table = common.Table("tag", "shows", "difference")
    with tempfile.TemporaryDirectory() as folder:
        run = interrupted_run(pathlib.Path(folder))
        metrics = common.read_metrics(run)
        evaluations = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
        board = read(run)
        with table.guard("scalars"):
            check_scalars(table, board, metrics, evaluations)
        with table.guard("loads"):
            check_loads(table, board, metrics)
        with table.guard("text"):
            check_text(table, board, run)
        with table.guard("hparams"):
            check_hparams(table, board, run)
        expected = {*SCALARS, "eval/loss", "eval/bits_per_byte", "moe/load", "samples", "config"}
        expected |= {f"moe/layer_{layer:02}/load" for layer in range(LAYERS)}
        expected |= {"_hparams_/experiment", "_hparams_/session_start_info"}
        found = set(board.Tags()["tensors"])
        table.row("all tags", f"{len(found)}", " ".join(sorted(found ^ expected)), ok=found == expected)
    table.finish()


main()
