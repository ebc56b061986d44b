#!/bin/bash
# Signals reach every rank, which may end as it likes: 75 after a checkpoint, or by the signal.
. "$(dirname "$0")/lib.sh" "$@"
set -m  # or the shell would start background jobs with SIGINT ignored
# Traps run while a shell waits. Each signal is noted in a file.
saves='trap "echo \$OMPI_COMM_WORLD_RANK >>\$0; sleep 1; exit 75" TERM INT HUP USR1 USR2 XCPU; echo up; sleep 100 & wait'

for signal in TERM INT HUP USR1 USR2 XCPU; do
  for n in 1 3; do
    : >"$work/caught"
    launch_in_background -n $n -- sh -c "$saves" "$work/caught"
    wait_for $n up
    kill -$signal "$launcher"
    expect_end 75 "SIG$signal to $n ranks" 10
    silent "SIG$signal to $n ranks"
    [ "$(sort "$work/caught" | tr '\n' ' ')" = "$(seq 0 $((n - 1)) | tr '\n' ' ')" ] ||
      bad "SIG$signal was caught by: $(tr '\n' ' ' <"$work/caught")"
  done
done

launch_in_background -n 2 --backend local -- sh -c "$saves" "$work/caught"
wait_for 1 up
kill -TERM "$launcher"
expect_end 75 "SIGTERM to threads" 10

launch_in_background -n 3 -- sh -c 'echo up; sleep 100'
wait_for 3 up
kill -TERM "$launcher"
expect_end 143 "SIGTERM to ranks that do not catch it" 10
silent "SIGTERM to ranks that do not catch it"

stubborn='trap "" TERM INT; echo up; while :; do sleep 0.1; done'
launch_in_background -n 3 -- sh -c "$stubborn"
wait_for 3 up
kill -INT "$launcher"
sleep 1
kill -0 "$launcher" || bad "the first SIGINT ended ranks that ignore it"
kill -INT "$launcher"
expect_end 130 "a second SIGINT" 3

launch_in_background -n 3 --patience 2 --restarts 3 -- sh -c "$stubborn"
wait_for 3 up
kill -TERM "$launcher"
expect_end 5 "ranks that do not end" 6
one_line "ranks that do not end" '3 of 3 ranks had not ended 2 s after signal 15'

launch_in_background -n 2 --restarts 3 -- sh -c 'trap "kill -9 \$\$" TERM; echo up; sleep 100 & wait'
wait_for 2 up
kill -TERM "$launcher"
expect_end 5 "a job that was told to stop does not restart" 10
[ "$(grep -c up "$work/out")" -eq 2 ] || bad "a stopped job was restarted"
finish
