#!/bin/bash
# Whoever is killed, nothing is left behind, and one line tells what happened.
. "$(dirname "$0")/lib.sh" "$@"
program='echo pid $OMPI_COMM_WORLD_RANK $$; echo up; setsid sleep 100 & sleep 100 & wait'

launch_in_background -n 3 -- sh -c "$program"
wait_for 3 up
kill -9 "$(told 'pid 2')"
expect_end 5 "one rank is killed" 9
one_line "one rank is killed" '^trireme: rank 2 was killed by signal 9 \(SIGKILL\)$'

launch_in_background -n 3 -- sh -c "$program"
wait_for 3 up
# The launcher, mpirun, and of each rank: guard, shell, two sleeps.
[ "$(survivors | wc -l)" -ge 14 ] || bad "the survey of processes does not see them: $(survivors | wc -l)"
kill -9 "$launcher"
wait "$launcher" 2>/dev/null
nobody_left "the launcher is killed" 4

launch_in_background -n 3 -- sh -c "$program"
wait_for 3 up
for pid in $(survivors); do
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = mpirun ] && kill -9 "$pid"
done
expect_end 5 "mpirun is killed" 9
one_line "mpirun is killed" '^trireme: mpirun was killed by signal 9 \(SIGKILL\) while ranks were running$'

launch_in_background -n 3 -- sh -c "$program"
wait_for 3 up
kill -9 "$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$(told 'pid 1')/status")"
expect_end 5 "a guard is killed" 9
one_line "a guard is killed" '^trireme: rank 1 was lost'

# Ranks that write all the time and do not listen to SIGTERM must not put off the end of the job.
launch_in_background -n 3 --patience 2 -- sh -c 'trap "" TERM; echo pid $OMPI_COMM_WORLD_RANK $$; echo up; while :; do echo noise >&2; done'
wait_for 3 up
kill -9 "$(told 'pid 1')"
expect_end 5 "one of the ranks that write all the time is killed" 15
grep -q '^trireme: rank 1 was killed by signal 9' "$work/err" || bad "noise hides what happened"

launch_in_background -n 2 --backend local -- sh -c 'echo pid $$; echo up; sleep 100 & wait'
wait_for 1 up
kill -SEGV "$(told pid)"
expect_end 5 "a program of threads crashes" 9
one_line "a program of threads crashes" 'killed by signal 11 \(SIGSEGV\)'

launch_in_background -n 2 --backend local -- sh -c "$program"
wait_for 1 up
kill -9 "$launcher"
wait "$launcher" 2>/dev/null
nobody_left "the launcher of threads is killed" 4

for how in kill segv abort leave; do
  case $how in abort) code=6 ;; leave) code=3 ;; *) code=5 ;; esac
  expect $code "an MPI rank: $how" "$TRIREME" launch -n 3 -- "$build/tests/mpi_program" $how
  [ "$took" -le 9 ] || bad "an MPI rank: $how took $took s"
  case $how in
    kill | segv) one_line "an MPI rank: $how" '^trireme: rank 1 was killed by signal' ;;
    *) one_line "an MPI rank: $how" "^trireme: rank 1 exited with code $code$" ;;
  esac
done
finish
