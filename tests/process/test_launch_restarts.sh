#!/bin/bash
# A job is restarted after a lost rank or a peer's failure, on what is left, and never for its own fault.
. "$(dirname "$0")/lib.sh" "$@"

# Rank 1 is killed in the first run and rank 0 in the second.
expect 0 "two restarts" "$TRIREME" launch -n 3 --restarts 5 -- sh -c \
  'echo $TRIREME_RESTART:$OMPI_COMM_WORLD_SIZE
   [ $TRIREME_RESTART$OMPI_COMM_WORLD_RANK = 01 ] && kill -9 $$
   [ $TRIREME_RESTART$OMPI_COMM_WORLD_RANK = 10 ] && kill -SEGV $$
   [ $TRIREME_RESTART = 2 ] || sleep 50'
[ "$(sort "$work/out" | tr '\n' ' ')" = "0:3 0:3 0:3 1:2 1:2 2:1 " ] || bad "two restarts ran $(tr '\n' ' ' <"$work/out")"
[ "$(wc -l <"$work/err")" -eq 2 ] || bad "two restarts are not two lines"
grep -q 'rank 1 was killed by signal 9 (SIGKILL); restarting on 2 ranks (restart 1 of 5)' "$work/err" || bad "first line"
grep -q 'rank 0 was killed by signal 11 (SIGSEGV); restarting on 1 rank (restart 2 of 5)' "$work/err" || bad "second line"

expect 5 "restarts are counted" "$TRIREME" launch -n 4 --restarts 1 -- sh -c \
  'echo $TRIREME_RESTART; [ $OMPI_COMM_WORLD_RANK = 0 ] && kill -9 $$; sleep 50'
[ "$(sort "$work/out" | uniq -c | tr -s ' \n' ' ')" = " 4 0 3 1 " ] || bad "ran $(tr '\n' ' ' <"$work/out")"

expect 5 "--min holds" "$TRIREME" launch -n 2 --min 2 --restarts 3 -- sh -c \
  'echo $TRIREME_RESTART; [ $OMPI_COMM_WORLD_RANK = 0 ] && kill -9 $$; sleep 50'
one_line "--min holds" 'killed by signal 9 \(SIGKILL\); 1 rank left, too few to restart \(--min 2\)'

expect 0 "after a peer's failure all come back" "$TRIREME" launch -n 2 --restarts 1 -- sh -c \
  'echo $TRIREME_RESTART:$OMPI_COMM_WORLD_SIZE; [ $TRIREME_RESTART = 1 ] || exit 5'
[ "$(sort "$work/out" | tr '\n' ' ')" = "0:2 0:2 1:2 1:2 " ] || bad "ran $(tr '\n' ' ' <"$work/out")"

for code in 1 2 3 4 6 75; do
  expect $code "$code is not restarted" "$TRIREME" launch -n 2 --restarts 3 -- sh -c "echo run; exit $code"
  [ "$(wc -l <"$work/out")" -eq 2 ] || bad "a job that exits $code was restarted"
  case $code in
    75) silent "$code is not restarted" ;;
    *) one_line "$code is not restarted" "^trireme: rank [01] exited with code $code; not restarted: no rank was lost, " ;;
  esac
done

expect 4 "a failure that the rank tells is not told twice" "$TRIREME" launch -n 2 --restarts 3 -- sh -c 'echo why >&2; exit 4'
[ "$(sort "$work/err" | uniq -c | tr -s ' ')" = " 1 trireme: not restarted: no rank was lost, code 4 is the program's own failure
 2 why" ] || bad "a failure that the rank tells is not told twice"

expect 0 "threads come back together" "$TRIREME" launch -n 3 --min 3 --restarts 1 --backend local -- sh -c \
  'echo $TRIREME_LOCAL_RANKS; [ $TRIREME_RESTART = 1 ] || kill -9 $$'
[ "$(tr '\n' ' ' <"$work/out")" = "3 3 " ] || bad "threads ran $(tr '\n' ' ' <"$work/out")"
finish
