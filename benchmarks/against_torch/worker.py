"""A process that makes training steps when it is asked for them, within a budget of time."""
import json
import os
import pathlib
import select
import signal
import statistics
import subprocess
import sys

from task import config_file

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("SWITCHYARD_BUILD", ROOT / "build/release"))


def command(system, cell, folder, pipes):
    """`system`: switchyard (the cell's ranks), switchyard-1 (one rank), switchyard-still (experts stay, without copies), eager or compiled."""
    if system in ("eager", "compiled"):
        return [sys.executable, str(HERE / "torch_steps.py"), cell["model"], cell["precision"], str(cell["threads"]), system,
                str(folder), cell["routing"], str(cell["ranks"])]
    ranks = ranks_of(system, cell)
    line = [str(BUILD / "benchmarks/bench_steps"), str(config_file(folder, cell["precision"], ranks))]
    if cell["routing"] == "skewed":
        line.insert(1, "--skewed")
    if system == "switchyard-still":
        line += ["parallel.rebalance_over_steps=0", "parallel.shadow_pairs=0"]
    if ranks == 1:
        return line
    return ["bash", "-c", f'source {ROOT}/scripts/env.sh; exec mpirun -n {ranks} "$@"', "steps", *line, "--requests", str(pipes)]


def ranks_of(system, cell):
    """Of Switchyard, started by mpirun."""
    return cell["ranks"] if system in ("switchyard", "switchyard-still") else 1


def write_end(path):
    """Of a pipe with a name, made anew. Open for reading as well, or it would wait for the reader."""
    pathlib.Path(path).unlink(missing_ok=True)
    os.mkfifo(path)
    return os.fdopen(os.open(path, os.O_RDWR), "w")


class Worker:
    """Spends at most about `budget` seconds on steps, and is killed when an answer takes longer than `timeout`."""

    def __init__(self, system, cell, folder, budget, timeout):
        self.budget, self.timeout = budget, timeout
        threads = str(cell["threads"])
        environment = dict(os.environ, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        # PyTorch's bf16 makes a primitive of oneDNN for every count of rows that an expert ever has, and keeps 1024 of
        # them: with more, two threads are up to six times as fast.
        environment.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "20000")
        pipes, ranks = folder / f"requests-{system}", ranks_of(system, cell)
        # Every rank reads its requests from a pipe of its own: a rank that waited in a collective for one to be handed on
        # would spin, and take a core from the program that has its turn.
        self.requests = [write_end(f"{pipes}.{r}") for r in range(ranks)] if ranks > 1 else []
        self.process = subprocess.Popen(command(system, cell, folder, pipes), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment, start_new_session=True)
        self.requests = self.requests or [self.process.stdin]
        self.seconds, self.losses, self.exchange, self.waiting = [], [], [], []
        self.last, self.failure = {}, None

    def run(self, steps):
        if steps <= 0 or self.failure:
            return
        try:
            for pipe in self.requests:
                pipe.write(f"{steps}\n")
                pipe.flush()
            ready, _, _ = select.select([self.process.stdout], [], [], self.timeout)
            line = self.process.stdout.readline() if ready else None
        except BrokenPipeError:
            line = ""
        if line is None:
            self.fail(f"no answer in {self.timeout:.0f} s")
        elif not line:
            self.fail(f"ended with {self.process.wait()}")
        else:
            self.last = json.loads(line)
            self.seconds += self.last["seconds"]
            self.losses += self.last["losses"]
            self.exchange += self.last.get("exchange_seconds", [])
            self.waiting += self.last.get("exchange_wait_seconds", [])

    def fail(self, why):
        self.failure = why
        self.kill()

    def affordable(self, wanted, rounds_left):
        """Steps of the next round that leave as many for the later ones."""
        left = self.budget - sum(self.seconds[1:])  # the first step compiles
        return min(wanted, int(left / rounds_left / min(self.seconds[1:] or self.seconds)))

    def timed(self):
        """The later half of the steps, and never the first one, which compiles and touches memory first, if there are others:
        PyTorch's bf16 experts get faster for a while (above)."""
        return self.seconds[max(2, len(self.seconds) // 2):] or self.seconds[1:] or self.seconds

    def summary(self, tokens, flops):
        if not self.seconds:
            return {"failure": self.failure}
        seconds = self.timed()
        median = statistics.median(seconds)
        quarters = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else [median] * 3
        result = {"steps": len(self.seconds), "timed_steps": len(seconds), "step_seconds": median, "best_seconds": min(seconds),
                  "quartiles": [quarters[0], quarters[2]], "tokens_per_second": tokens / median,
                  "gflops": flops / median * 1e-9, "first_step_seconds": self.seconds[0], "losses": self.losses,
                  "peak_memory_bytes": self.last["peak_memory_bytes"], "page_faults": self.last.get("page_faults"),
                  "system_allocations": self.last.get("system_allocations")}
        if self.failure:
            result["failure"] = self.failure
        if self.exchange:
            result["exchange_share"] = sum(self.exchange[-len(seconds):]) / sum(seconds)
            result["waiting_share"] = sum(self.waiting[-len(seconds):]) / sum(seconds)
        return result

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def close(self):
        if self.process.poll() is None:
            for pipe in self.requests:
                pipe.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
