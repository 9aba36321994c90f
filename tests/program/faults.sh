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
flip() {  # FILE OFFSET: another byte there
  local byte
  byte=$(od -An -tu1 -j "$2" -N 1 "$1")
  # shellcheck disable=SC2059
  printf "\\x$(printf %02x $((byte ^ 1)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
digits() {  # RUN: its metrics without what a clock or the machine says
  sed -E 's/"(tokens_per_second|step_seconds|exchange_seconds|exchange_wait_seconds|peak_memory_bytes)":[^,]*,//g' "$1/metrics.jsonl"
}
newest_step() { echo $((10#$(find "$1/checkpoints" -name 'step_*' -printf '%f\n' | sort | tail -1 | tr -d 'step_'))); }
state() { find "$1" -printf '%p %s %T@\n' | sort; }
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
for rank in 0 1; do
  expect 2 "mpirun started 2 processes, this one as rank $rank, but MPI sees 1" \
    env OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_RANK=$rank $(train) r
done
check "a refused start leaves nothing" test ! -e r

# Data, sizes.
expect 3 "nothere.idx" $(train) r --set data.train=nothere
expect 3 "the vocabulary has 50" $(train) r --set model.vocab_size=50
cp data.bin cut.bin && cp data.idx cut.idx && truncate -s -9 cut.bin
expect 3 "cut" $(train) r --set data.train=cut
for byte in 0 9 17 18 26 34 38 46 54; do
  cp data.bin flipped.bin && cp data.idx flipped.idx && flip flipped.idx $byte
  expect 3 "flipped." $(train) r --set data.train=flipped
done
cp data.bin other.bin && cp data.idx other.idx && cp data.json other.json && flip other.bin 40
expect 3 "other.bin: checksum" $(train) r --set data.train=other
expect 3 "other.bin: checksum" $(train) r --set data.validation=other
expect 2 "at most 4096" $(train) r --set model.moe.num_experts=5000
expect 2 "train.sequence_length (4294967296)" $(train) r --set train.sequence_length=4294967296
expect 2 "train.sequence_length (100000000)" "$program" plan config --world 1 --set train.sequence_length=100000000
expect 6 "out of memory" bash -c 'ulimit -v 4194304; "$@"' x $(train) r --set model.hidden_size=1000000 --set model.head_dim=64
expect 4 "step 2" $(train) nan --set optimizer.lr=1e30
expect 4 "is not finite after the last update" $(train) nan --resume never --set optimizer.lr=1e30 --set optimizer.weight_decay=1e20 --set train.steps=1
check "weights that are not finite are no checkpoint" test -z "$(ls nan/checkpoints)"

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
cp -r base shorter && sed -i 3,4d shorter/metrics.jsonl
expect 0 "metrics.jsonl: steps 3 to 4 are missing" $(train) shorter --set train.steps=5
expect 2 "model.hidden_size is 16 in the checkpoint and 32 in the config" $(train) base --set model.hidden_size=32
expect 6 "cannot be written" bash -c 'ulimit -f 24; "$@"' x $(train) base --set train.steps=6 --set model.vocab_size=257
check "the previous checkpoint is intact" "$program" inspect base/checkpoints/step_00000004
check "nothing is left of the failed one" test -z "$(find base -name '*.tmp')"
if unshare -m true 2>/dev/null && mkdir full && unshare -m mount -t tmpfs -o size=1m tmpfs full 2>/dev/null; then
  # Six checkpoints do not fit, the first does.
  expect 6 "No space left" unshare -m bash -c 'mount -t tmpfs -o size=320k tmpfs full && "$@"; code=$?
    cp -r full after; exit $code' x $(train) full/run --set train.steps=12
  check "a full disk leaves a checkpoint" "$program" eval after/run
  check "nothing is left of the one that did not fit" test -z "$(find after -name '*.tmp')"
else
  echo "not tested: a full disk (no file system can be mounted here)"
fi

# Commands on a run whose newest checkpoint is damaged take the one before, and say so; named itself, it is refused.
cp -r base flipped
newest=flipped/checkpoints/step_00000004
flip "$(find $newest -name 'weights*' | head -1)" 600
echo "1 2 3" >ids
for command in "eval flipped" "generate flipped --prompt a --max-tokens 1" "score flipped --tokens ids --out logits0" \
  "export flipped --format hf --out hf" "inspect flipped"; do
  expect 0 "step_00000004" "$program" $command
done
check "inspect says what is damaged" grep -q "NOT INTACT" out
for command in "eval $newest" "generate $newest --prompt a" "score $newest --tokens ids --out logits2" \
  "export $newest --format gguf --out gguf" "inspect $newest"; do
  expect 3 "weights" "$program" $command
done
for command in "eval none" "generate none --prompt a" "score none --tokens ids --out logits2" \
  "export none --format hf --out hf2" "inspect none"; do
  expect 3 "none of its 2 checkpoints is intact" "$program" $command
done
check "a refused command leaves nothing" test ! -e logits2 -a ! -e gguf -a ! -e hf2
state base >before
expect 0 "" "$program" eval base
expect 0 "" "$program" eval base/checkpoints/step_00000004
state base >after_eval
check "eval writes nothing" cmp before after_eval

expect 3 "$folder: cannot be read" "$program" score base --tokens "$folder" --out logits
expect 0 "" "$program" score base --tokens ids --out /dev/null
expect 2 "is the file of token ids" "$program" score base --tokens ids --out ./ids
expect 2 "lies in a checkpoint" "$program" score base --tokens ids --out base/checkpoints/step_00000004/logits
check "a device stays a device" test -c /dev/null
echo "1 2 x" >ids
expect 3 "ids:1:5" "$program" score base --tokens ids --out logits
check "no half of a file" test ! -e logits

# Two runs in one directory.
$(train) shared --set train.steps=1000000 >out 2>err &
job=$!
wait_for_steps shared 2
cp shared/config.txtpb resolved
expect 2 "another run is writing here (process $job on" $(train) shared --set train.steps=4 --set optimizer.lr=1
check "a second run touches nothing" cmp shared/config.txtpb resolved
kill -KILL $job
wait $job 2>/dev/null
expect 2 "model.hidden_size" $(train) shared --resume never --set model.hidden_size=0
expect 0 "" $(train) shared --resume never

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

# Closed standard streams, readers that leave, and results that cannot be written.
bash -c '"$@" <&- >&- 2>&-' x $(train) closed
check "no line is among the metrics" steps_are closed 4
check "nothing but JSON is in the metrics" bash -c '! grep -qv "^{.*}$" closed/metrics.jsonl'
expect 0 "" bash -c 'set -o pipefail; "$@" | head -1' x $(train) unread
check "the run went on without its reader" steps_are unread 4
for command in "eval unread" "inspect unread --json" "plan config --world 1" "--help"; do
  expect 6 "standard output cannot be written" bash -c '"$@" >/dev/full' x "$program" $command
done
expect 2 "is a file of the run itself" "$program" report unread --out unread/metrics.jsonl
check "the metrics are still there" steps_are unread 4
expect 2 "--run-dir: is empty" $(train) ""
expect 2 "absurdly large" $(train) absurd --set train.global_batch_size=1000000000000
mkfifo pipe
expect 3 "pipe: is a pipe or a device" "$program" prepare pipe --out piped
# What another process writes is not taken from it; what one left that was killed is.
mkdir .exported.tmp && echo 1 >.exported.tmp/left
flock .exported.tmp "$program" export unread --format hf --out exported >out 2>err
check "two exports to one place are refused" grep -q "exported: another process is writing it" err
expect 0 "" "$program" export unread --format hf --out exported
check "nothing else is in the export" test ! -e exported/left

if [ -n "$mpiexec" ]; then
  expect 2 'has another config than rank 0: "lr: 1", where rank 0 has "lr: 0.01"' "$mpiexec" --oversubscribe \
    -n 1 $(train) unlike --set optimizer.lr=0.01 : -n 1 $(train) unlike --set optimizer.lr=1
  expect 0 "" "$mpiexec" --oversubscribe -n 1 $(train) threads : -n 1 $(train) threads --set threads=2
  head -50 text >text2 && "$program" prepare text2 --out elsewhere/data >out 2>&1
  expect 3 "has other data there than rank 0" "$mpiexec" --oversubscribe -n 1 $(train) "$PWD/unlike" : \
    -n 1 --wdir elsewhere "$program" train ../config --run-dir "$PWD/unlike"
  mpi() { echo "$mpiexec" --oversubscribe -n "$1" $(train) "$2"; }
  expect 2 "train.global_batch_size (6)" $(mpi 4 r) --set train.global_batch_size=6
  expect 2 "parallel.expert (3) must divide" $(mpi 2 r) --set parallel.expert=3
  expect 3 "nothere.idx" $(mpi 2 r) --set data.train=nothere
  mkdir -p blocked/metrics.jsonl
  expect 2 "metrics.jsonl" $(mpi 2 blocked)
  # A rank that is killed: the others end within five seconds, and the next start goes on to the same digits.
  $(mpi 2 killed) --set parallel.expert=2 --set train.steps=1000000 >out 2>err &
  job=$!
  wait_for_steps killed 3
  kill -KILL "$(pgrep -P "$job" | tail -1)"
  for _ in $(seq 50); do kill -0 "$job" 2>/dev/null || break; sleep 0.1; done
  check "a lost rank ends the job within five seconds" bash -c "! kill -0 $job"
  wait "$job"
  # Not LATEST: the kill may fall between the checkpoint's own rename and LATEST's.
  last=$(newest_step killed)
  expect 0 "" $(mpi 2 killed) --set parallel.expert=2 --set train.steps=$((last + 2))
  check "goes on from the checkpoint before the kill" grep -q "resuming after step $last " out
  expect 0 "" $(mpi 2 straight) --set parallel.expert=2 --set train.steps=$((last + 2))
  digits straight >straight_digits
  digits killed >killed_digits
  check "the digits of a run that never stopped" cmp straight_digits killed_digits
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
