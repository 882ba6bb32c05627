#!/bin/bash
# run.sh PROGRAM SECONDS [TARGET…]: every target for so long, from its kept corpus; what is new and
# covers more is kept, as small as it can be. Ends with 1 where a target broke: the bytes that did it
# are then in crates/fuzz/found/, and belong into the corpus with the mending.
set -uo pipefail
program=$(realpath "$1") seconds=$2
shift 2
cd "$(dirname "$0")"
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
  mapfile -t targets < <(sed -n 's/.*Target { name: "\([^"]*\)".*/\1/p' src/lib.rs)
fi
scratch=${TMPDIR:-/tmp}
[ -w /dev/shm ] && scratch=/dev/shm
broken=0
for target in "${targets[@]}"; do
  corpus=corpus/$target
  # In memory where there is some: a target may make a file for each of a million runs.
  work=$(mktemp -d -p "$scratch") || exit 2
  mkdir -p "$corpus" "$work/all" "$work/least" "$work/tmp" found
  cp "$corpus"/* "$work/all/" 2>/dev/null
  export HOTPAIR_FUZZ_TARGET=$target TMPDIR=$work/tmp
  if "$program" "$work/all" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=16384 \
    -artifact_prefix="found/$target-" -print_final_stats=1 >"$work/log" 2>&1; then
    outcome="nothing found"
  else
    outcome="BROKEN: $(grep -m1 -E 'panicked|ERROR' "$work/log")"
    broken=1
  fi
  executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
  "$program" -merge=1 "$work/least" "$work/all" >/dev/null 2>&1
  # The smallest two hundred: enough to begin from, and quick in every `make test`.
  # What was put there by hand has a name of its own and stays.
  find "$corpus" -type f -regextype posix-extended -regex '.*/[0-9a-f]{16}' -delete
  find "$work/least" -type f -printf '%s %p\n' | sort -n | head -n 200 | cut -d' ' -f2- |
    while read -r file; do cp "$file" "$corpus/$(basename "$file" | cut -c1-16)"; done
  echo "$target: ${executed:-?} runs in $seconds s, $(find "$corpus" -type f | wc -l) kept; $outcome"
  rm -rf "$work"
done
rmdir found 2>/dev/null
exit $broken
