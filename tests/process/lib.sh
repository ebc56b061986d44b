# For tests of whole processes: `. "$(dirname "$0")/lib.sh" "$@"` in a script that is given the source and build folders.
# Everything that a test starts carries a marker in its environment, so that survivors are found.
set -u
build=${2:?usage: $0 SOURCE BUILD}
TRIREME=$build/bin/trireme
unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
marker="TEST_MARKER=$$-$RANDOM$RANDOM"
work=$(mktemp -d)
failures=0
trap 'for pid in $(survivors); do kill -9 "$pid" 2>/dev/null; done; rm -rf "$work"' EXIT

# survivors: ids of the processes that carry the marker.
survivors() {
  grep -lzsx "$marker" /proc/[0-9]*/environ | cut -d/ -f3
}

bad() {
  echo "FAIL: $*"
  sed 's/^/  stderr: /' "$work/err" 2>/dev/null | head -n 20
  failures=$((failures + 1))
}

# nobody_left WHAT SECONDS: no marked process may exist after that time.
nobody_left() {
  local end=$((SECONDS + $2)) pid
  while [ -n "$(survivors)" ]; do
    if [ $SECONDS -ge "$end" ]; then
      for pid in $(survivors); do echo "  left: $pid $(tr '\0' ' ' <"/proc/$pid/cmdline")"; done
      bad "$1: processes are left"
      return
    fi
    sleep 0.1
  done
}

# expect CODE WHAT COMMAND...: exit code, no survivor. Output is kept in $work/out and $work/err, seconds in $took.
expect() {
  local code=$1 what=$2 begin=$SECONDS
  shift 2
  timeout -k 5 60 env "$marker" "$@" >"$work/out" 2>"$work/err" </dev/null
  local got=$?
  [ $got -eq "$code" ] || bad "$what: exit code $got, not $code"
  took=$((SECONDS - begin))
  nobody_left "$what" 0
}

# one_line WHAT PATTERN: standard error is exactly one line, and it matches.
one_line() {
  [ "$(wc -l <"$work/err")" -eq 1 ] || bad "$1: standard error is not one line"
  grep -qE "$2" "$work/err" || bad "$1: standard error does not say '$2'"
}

# silent WHAT: nothing on standard error.
silent() {
  [ ! -s "$work/err" ] || bad "$1: there is something on standard error"
}

# launch_in_background ARGS...: sets $launcher to its id; output as in expect.
launch_in_background() {
  : >"$work/out"
  env "$marker" "$TRIREME" launch "$@" >"$work/out" 2>"$work/err" </dev/null &
  launcher=$!
}

# wait_for COUNT WORD: until that many lines of the output are WORD. The test ends if they do not come.
wait_for() {
  local end=$((SECONDS + 20))
  until [ "$(grep -cx "$2" "$work/out")" -ge "$1" ]; do
    if [ $SECONDS -gt $end ] || ! kill -0 "$launcher" 2>/dev/null; then
      bad "there were not $1 lines '$2'"
      finish
    fi
    sleep 0.05
  done
}

# told NAME: the process id that a rank has told in a line "NAME ID". The test ends if there is none.
told() {
  local pid
  pid=$(sed -n "s/^$1 \\([0-9][0-9]*\\)\$/\\1/p" "$work/out")
  [ -n "$pid" ] && echo "$pid" && return
  echo "FAIL: no process told '$1'" >&2
  kill $$
}

# expect_end CODE WHAT SECONDS: the launcher in the background ends so, in time, without survivors.
expect_end() {
  local code=$1 what=$2 end=$((SECONDS + $3)) got
  while kill -0 "$launcher" 2>/dev/null && [ $SECONDS -le $end ]; do sleep 0.05; done
  if kill -0 "$launcher" 2>/dev/null; then
    bad "$what: still running after $3 s"
    kill -9 "$launcher"
  fi
  wait "$launcher" 2>/dev/null
  got=$?
  [ $got -eq "$code" ] || bad "$what: exit code $got, not $code"
  nobody_left "$what" 0
}

finish() {
  [ $failures -eq 0 ] && echo "passed" && exit 0
  echo "$failures failed"
  exit 1
}
