#!/usr/bin/env bash
# plan.sh PROGRAM [MPIEXEC]: what `switchyard plan` says before the start is what the run then reports: its peak memory within
# 15 %, and its exchange within 5 %. (A token travels once to each rank that holds any of its experts, so the router has a say.)
set -u
program=$1 mpiexec=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failures=0

for i in $(seq 2000); do echo "line $i: the quick brown fox jumps over the lazy dog $((i * i)) times"; done >text
"$program" prepare text --out data >out 2>&1 || { cat out; exit 1; }
cat >common <<'C'
name: "plan"
threads: 1
train { steps: 3 global_batch_size: 8 micro_batch_size: 2 sequence_length: 256 }
data { train: "data" }
checkpoint { every_steps: 0 }
C
cat common - >mixture <<'C'
model {
  hidden_size: 96 num_layers: 4 num_attention_heads: 4
  moe { num_experts: 8 top_k: 2 moe_intermediate_size: 96 aux_loss_coeff: 1e-2 }
}
C
cat common - >dense <<'C'
model { hidden_size: 96 num_layers: 4 num_attention_heads: 4 intermediate_size: 256 }
C

last() { grep -o "\"$1\":[0-9]*" "$2" | tail -1 | cut -d: -f2; }

# compare RANKS EXCHANGE CONFIG OPTION...: EXCHANGE is "near", or "bound" where drops make it less, or "any" where ranks with
# unlike numbers of experts exchange unlike amounts, or copies of experts keep rows at home. Experts stay: which of
# them share a rank changes, by some hundredths, how many tokens have to leave it, and the plan knows no loads.
compare() {
  local ranks=$1 exchange=$2 start=()
  shift 2
  set -- "$@" --set parallel.rebalance_over_steps=0
  if [ "$ranks" -gt 1 ]; then
    [ -n "$mpiexec" ] || return
    start=("$mpiexec" --oversubscribe -n "$ranks")
  fi
  rm -rf run
  if ! "${start[@]}" "$program" train "$@" --run-dir run >out 2>&1 ||
     ! "$program" plan "$@" --world "$ranks" --json >plan 2>&1; then
    echo "FAILED: $ranks ranks, $*"
    tail -3 out plan
    failures=$((failures + 1))
    return
  fi
  local planned used sent counted verdict=ok
  planned=$(last total plan) used=$(last peak_memory_bytes run/metrics.jsonl)
  sent=$(last exchange plan) counted=$(last exchange_bytes run/metrics.jsonl)
  [ "$(last shadows plan)" -ge "$(last shadow_bytes run/metrics.jsonl)" ] || verdict=FAILED
  [ $((planned * 100)) -ge $((used * 85)) ] && [ $((planned * 100)) -le $((used * 115)) ] || verdict=FAILED
  case $exchange in
    near) [ $((sent * 100)) -ge $((counted * 95)) ] && [ $((sent * 100)) -le $((counted * 105)) ] || verdict=FAILED ;;
    bound) [ "$sent" -ge "$counted" ] || verdict=FAILED ;;
  esac
  [ $verdict = ok ] || failures=$((failures + 1))
  echo "$verdict: memory $((planned * 100 / used)) % of $((used >> 20)) MiB, exchange $sent of $counted bytes: $ranks ranks, $*"
}

compare 1 near dense
compare 1 near mixture --set precision=BF16
compare 2 near dense --set train.micro_batch_size=4
compare 2 near dense --set model.vocab_size=40000 --set model.hidden_size=256
compare 2 near mixture
compare 2 near mixture --set parallel.expert=2
compare 2 near mixture --set parallel.expert=2 --set precision=BF16 --set train.micro_batch_size=1
compare 2 bound mixture --set parallel.expert=2 --set model.moe.capacity_factor=1
compare 2 near mixture --set parallel.expert=2 --set model.recompute=true --set train.micro_batch_size=4
compare 2 any mixture --set parallel.expert=2 --set model.moe.num_experts=3
compare 2 any mixture --set parallel.expert=2 --set parallel.shadow_pairs=16 --set model.hidden_size=192 --set model.moe.moe_intermediate_size=384
compare 4 near mixture --set parallel.expert=4
compare 4 near mixture --set parallel.expert=2 --set model.moe.num_experts=6
exit $((failures > 0))
