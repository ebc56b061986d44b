# shellcheck shell=bash
# Runs checks one after another for tests/gpu/check.sh: time limits, one log, one archive, a report.
#
# A check NAME is a function check_NAME. It writes to standard output and standard error, starts programs by
# `limited` or `ours`, and returns 0, a failure, or by `not_run WHY` that this machine cannot run it. Results:
# $results/log.txt is appended to while programs run, so that a run that is killed keeps it.
# $results/check.json (a summary) and $results/all.tgz (both, and each check's output) are made again after
# every check.

readonly kNotRun=77
failed=0
child=
names=()
declare -A exits=() took=() last_lines=()

# start_results FOLDER: sets $results (that folder), $log and $work (for files that only the archive keeps).
start_results() {
  results=$1
  log=$results/log.txt
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
  trap 'stop_child; say "stopped by a signal"; exit 1' INT TERM HUP
  if ! mkdir -p "$results" || ! : >>"$log"; then
    echo "tests/gpu/check.sh: cannot write to $results; set OUT to a folder that can be written" >&2
    exit 1
  fi
}

# say WORDS: a line for the reader, in the log as well.
say() {
  echo "$*"
  echo "$*" >>"$log"
}

stop_child() {
  [[ -z $child ]] || kill "$child" 2>/dev/null
}

# limited COMMAND...: runs it for at most the time that the running check has left. Exit code 124 or 137: it
# was cut.
limited() {
  echo "+ $*"
  timed "$@"
}

# ours COMMAND...: the same for one of our programs, which finds the libraries of the pack and of CUDA.
ours() {
  echo "+ $*"
  timed "${environment[@]}" "$@"
}

timed() {
  local left=$((check_end - SECONDS)) code
  if ((left <= 0)); then
    echo "not started: the time of this check is over"
    return 124
  fi
  timeout -k 2 "$left" "$@" &
  child=$!
  wait "$child" 2>/dev/null  # without the shell's own words on a program that was killed
  code=$?
  child=
  return "$code"
}

# size_of_log: to read later with `since SIZE` what was logged after now.
size_of_log() { stat -c %s "$log"; }
since() { tail -c "+$(($1 + 1))" "$log"; }

# output: what the running check has printed so far. Use `grep PATTERN <(output)`: a pipe that grep leaves
# early fails.
output() { since "$check_begin"; }

# not_run WHY: for `return`, where this machine cannot run a check.
not_run() {
  echo "not run: $*"
  return $kNotRun
}

# run_check NAME SECONDS: runs one check, reports it, and packs all results. Returns its exit code.
run_check() {
  local name=$1 limit=${CHECK_LIMIT:-$2} begin=$SECONDS code=0
  local left=$((deadline - SECONDS))
  check_begin=$(size_of_log)
  echo "=== $name: at most $limit s" >>"$log"
  if ((left < 2)); then
    echo "not started: no time was left" >>"$log"
    code=124
  else
    check_end=$((SECONDS + (limit < left ? limit : left)))
    "check_$name" >>"$log" 2>&1 || code=$?
  fi
  output >"$work/$name.txt"
  # A test that sees no GPU skips itself and returns 0.
  if [[ $code -eq 0 ]] && grep -aqF '[  SKIPPED ]' "$work/$name.txt"; then code=1; fi
  report_check "$name" "$code" $((SECONDS - begin))
  return "$code"
}

report_check() {
  local name=$1 code=$2 seconds=$3 last
  last=$(grep -av '^[[:space:]]*$' "$work/$name.txt" | tail -n 1 | tr -cd '\40-\176' | cut -c 1-300)
  if [[ $code -eq 124 || $code -eq 137 ]]; then last="cut at its time limit; its last line: $last"; fi
  names+=("$name")
  exits[$name]=$code took[$name]=$seconds last_lines[$name]=$last
  if [[ $code -eq $kNotRun ]]; then
    exits[$name]=null
    say "=== $name: $last"
  else
    say "=== $name: exit $code after $seconds s: $last"
    if [[ $code -ne 0 ]]; then
      failed=1
      tail -n 15 "$work/$name.txt" | cut -c 1-300 | sed 's/^/    /'
    fi
  fi
  write_report
  pack_results
}

json_text() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

write_report() {
  local rows=() name
  for name in "${names[@]}"; do
    rows+=("$(json_text "$name"): {\"exit\": ${exits[$name]}, \"seconds\": ${took[$name]}, \"last_line\": $(
      json_text "${last_lines[$name]}"
    )}")
  done
  (
    IFS=,
    printf '{"device": %s, "commit": %s, "failed": %d, "seconds": %d, "checks": {%s\n}}\n' \
      "$(json_text "$device")" "$(json_text "$commit")" "$failed" "$SECONDS" "${rows[*]/#/$'\n'}"
  ) >"$work/.check.json" && mv "$work/.check.json" "$results/check.json"
}

# The archive is complete at any time: it is replaced by the next one in one step.
pack_results() {
  tar -czf "$results/.all.tgz" -C "$results" log.txt check.json -C "$work" . &&
    mv "$results/.all.tgz" "$results/all.tgz"
}

# stop WHY: ends the script after what makes all later checks pointless.
stop() {
  failed=1
  say "stopped: $*"
  write_report
  pack_results
  exit 1
}
