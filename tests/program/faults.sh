#!/usr/bin/env bash
# faults.sh PROGRAM [MPIEXEC]: the program as a black box where something is wrong: exit codes, one line that says what,
# the previous checkpoint intact, nothing left behind.
set -u
program=$1 mpiexec=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

# expect CODE TEXT COMMAND...: the exit code, and a line of stderr with TEXT (empty: anything).
expect() {
  local code=$1 text=$2 got
  shift 2
  timeout 60 "$@" >out 2>err </dev/null
  got=$?
  if [ "$got" -ne "$code" ] || { [ -n "$text" ] && ! grep -qF -- "$text" err; }; then
    echo "FAILED (exit code $got, not $code, or no \"$text\"): $*"
    head -5 err
    failures=$((failures + 1))
  fi
}
check() {  # check MESSAGE COMMAND...
  local message=$1
  shift
  "$@" >/dev/null 2>&1 || { echo "FAILED: $message"; failures=$((failures + 1)); }
}
steps_are() {  # RUN N: metrics.jsonl has steps 1..N, each once
  [ "$(grep -o '^{"step":[0-9]*' "$1/metrics.jsonl" | cut -d: -f2 | tr '\n' ' ')" = "$(seq -s' ' 1 "$2") " ]
}
wait_for_steps() {  # RUN N
  for _ in $(seq 400); do [ "$(cat "$1/metrics.jsonl" 2>/dev/null | wc -l)" -ge "$2" ] && return; sleep 0.05; done
  return 1
}

for i in $(seq 100); do echo "line $i: the quick brown fox jumps over the lazy dog $((i * i)) times"; done >text
"$program" prepare text --out data >out 2>&1 || { cat out; exit 1; }
cat >config <<'C'
name: "faults"
threads: 1
model {
  hidden_size: 16 num_layers: 1 num_attention_heads: 2
  moe { num_experts: 4 top_k: 2 moe_intermediate_size: 16 }
}
train { steps: 4 global_batch_size: 4 sequence_length: 16 }
data { train: "data" validation: "data" }
checkpoint { every_steps: 2 }
C
train() { echo "$program" train config --run-dir; }

# Usage and configuration.
for command in train eval generate score import export prepare inspect plan; do
  expect 0 "" "$program" $command --help
done
expect 2 'did you mean "train"' "$program" trian
expect 2 "--bogus" "$program" train config --bogus
expect 2 "nothere" "$program" train nothere
expect 2 "foo" $(train) r --set model.foo=1
expect 2 "model.moe.top_k (5)" $(train) r --set model.moe.top_k=5
expect 2 "parallel.expert (2) must divide" $(train) r --set parallel.expert=2
expect 2 "OMPI" env -u OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE=2 bash -c '"$@" 2>&1 | sed "s/^switchyard: mpirun/OMPI/" >&2; exit "${PIPESTATUS[0]}"' x $(train) r
check "a refused start leaves nothing" test ! -e r

# Data, sizes.
expect 3 "nothere.idx" $(train) r --set data.train=nothere
expect 3 "the vocabulary has 50" $(train) r --set model.vocab_size=50
cp data.bin cut.bin && cp data.idx cut.idx && truncate -s -9 cut.bin
expect 3 "cut" $(train) r --set data.train=cut
expect 6 "out of memory" bash -c 'ulimit -v 4194304; "$@"' x $(train) r --set model.hidden_size=1000000
expect 4 "step 2" $(train) nan --set optimizer.lr=1e30

# Checkpoints.
expect 0 "" $(train) base
for file in base/checkpoints/step_00000004/*; do
  cp -r base damaged
  truncate -s -1 "damaged/${file#base/}"
  expect 0 "$(basename "$file")" $(train) damaged --set train.steps=5
  check "goes on after step 2" grep -q "resuming after step 2" out
  check "each step once" steps_are damaged 5
  rm -rf damaged
done
cp -r base none && truncate -s -1 none/checkpoints/step_*/manifest.json
expect 3 "none of its 2 checkpoints is intact" $(train) none
cp -r base lost && rm lost/checkpoints/LATEST
expect 0 "LATEST" $(train) lost --set train.steps=5
expect 2 "model.hidden_size is 16 in the checkpoint and 32 in the config" $(train) base --set model.hidden_size=32
expect 6 "cannot be written" bash -c 'ulimit -f 24; "$@"' x $(train) base --set train.steps=6 --set model.vocab_size=257
check "the previous checkpoint is intact" "$program" inspect base/checkpoints/step_00000004
check "nothing is left of the failed one" test -z "$(find base -name '*.tmp')"
echo "1 2 x" >ids
expect 3 "ids:1:5" "$program" score base --tokens ids --out logits
check "no half of a file" test ! -e logits

# Signals.
stop() {  # SIGNAL: a run that got it after a few steps; its exit code
  rm -rf stopped
  $(train) stopped --set train.steps=1000000 --set eval.every_steps=2 --set eval.batches=0 >out 2>err &
  local job=$!
  wait_for_steps stopped 3 && kill "-$1" "$job"
  wait "$job"
}
check "SIGTERM ends with exit code 0" stop TERM
done_steps=$(wc -l <stopped/metrics.jsonl)
expect 0 "" $(train) stopped --set train.steps=$((done_steps + 2)) --set eval.every_steps=2 --set eval.batches=0
check "goes on where it stopped" grep -q "resuming after step $done_steps" out
check "each step once after a stop" steps_are stopped $((done_steps + 2))
check "no evaluation is missing" test "$(wc -l <stopped/eval.jsonl)" -ge $(((done_steps + 2) / 2))

if [ -n "$mpiexec" ]; then
  mpi() { echo "$mpiexec" --oversubscribe -n "$1" $(train) "$2"; }
  expect 2 "train.global_batch_size (6)" $(mpi 4 r) --set train.global_batch_size=6
  expect 2 "parallel.expert (3) must divide" $(mpi 2 r) --set parallel.expert=3
  expect 3 "nothere.idx" $(mpi 2 r) --set data.train=nothere
  $(mpi 2 hang) --set parallel.expert=2 --set train.steps=1000000 --set parallel.timeout_seconds=1 >out 2>err &
  job=$!
  wait_for_steps hang 2
  rank=$(pgrep -P "$job" | tail -1)
  kill -STOP "$rank"
  for _ in $(seq 100); do kill -0 "$job" 2>/dev/null || break; sleep 0.1; done
  kill -CONT "$rank" 2>/dev/null
  wait "$job"
  check "a hang is exit code 5, not $?" grep -Eq "rank . waited 1 s for rank . in group .* bytes" err
fi

[ "$failures" -eq 0 ] && echo "all as it should be"
exit $((failures > 0))
