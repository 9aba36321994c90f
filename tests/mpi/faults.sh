#!/usr/bin/env bash
# faults.sh MPIEXEC MPI_FAULTS FAULT: starts two ranks, and checks that the job ends as it should.
set -u
mpiexec=$1 program=$2 fault=$3
output=$(mktemp)
trap 'cat "$output"; rm -f "$output"' EXIT

fails() { echo "$1" >&2; exit 1; }
start() {  # program and arguments
  "$mpiexec" --oversubscribe -n 2 "$@" >"$output" 2>&1 &
  job=$!
}
wait_until_ready() {
  for _ in $(seq 200); do grep -q ready "$output" && return; sleep 0.1; done
  fails "the job did not start"
}
wait_at_most() {  # seconds
  for _ in $(seq $(($1 * 10))); do kill -0 "$job" 2>/dev/null || { wait "$job"; code=$?; return; }; sleep 0.1; done
  kill -KILL "$job"
  fails "the job is still there after $1 s"
}

case $fault in
  killed)
    start "$program" killed
    wait_until_ready
    wait_at_most 5
    [ "$code" -ne 0 ] || fails "a killed rank left exit code 0" ;;
  hang)
    start "$program" hang
    wait_at_most 20
    [ "$code" -eq 5 ] || fails "exit code $code, not 5"
    grep -q "rank 1 waited 0.5 s for rank 0 in group world (2 ranks), barrier, 0 bytes" "$output" ||
      fails "the message is missing" ;;
  stop)  # SIGTERM to one rank
    start "$program" stop
    wait_until_ready
    kill -TERM "$(pgrep -P "$job" -f "$program" | tail -1)"
    wait_at_most 5
    [ "$code" -eq 0 ] || fails "exit code $code, not 0"
    [ "$(grep -c stopped "$output")" -eq 2 ] || fails "not all ranks stopped" ;;
  stop_all)  # SIGTERM to the launcher, which passes it on and has an exit code of its own
    codes=$(mktemp)
    start bash -c 'trap "" TERM; "$0" stop; echo "exit $?" >>"$1"' "$program" "$codes"
    wait_until_ready
    kill -TERM "$job"
    wait_at_most 10
    # As soon as one rank has left, mpirun kills the others: they too are past everything, but may not come to `exit`.
    grep -q "exit 0" "$codes" && ! grep -q "exit [1-9]" "$codes" || fails "exit codes: $(tr '\n' ' ' <"$codes")"
    rm -f "$codes"
    [ "$(grep -c stopped "$output")" -eq 2 ] || fails "not all ranks stopped" ;;
esac
