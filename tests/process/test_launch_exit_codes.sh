#!/bin/bash
# The exit code of a job is that of its ranks; errors of usage are 2 and one line.
. "$(dirname "$0")/lib.sh" "$@"

for n in 1 2 3; do
  for code in 0 1 2 3 4 6 75; do
    expect $code "$n ranks that exit $code" "$TRIREME" launch -n $n -- sh -c "exit $code"
    case $code in
      0 | 75) silent "$n ranks that exit $code" ;;
      *) one_line "$n ranks that exit $code" "^trireme: rank [0-2] exited with code $code$" ;;
    esac
  done
done
expect 5 "a peer's failure" "$TRIREME" launch -n 2 -- sh -c 'exit 5'
one_line "a peer's failure" '^trireme: rank [01] exited with code 5$'
expect 7 "a rank that says why" "$TRIREME" launch -n 3 -- \
  sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] || sleep 50; echo because >&2; exit 7'
one_line "a rank that says why" '^because$'

expect 3 "the cause outranks 'a peer failed'" "$TRIREME" launch -n 3 -- \
  sh -c '[ $OMPI_COMM_WORLD_RANK = 2 ] || exit 5; sleep 0.5; exit 3'
expect 0 "one rank is done long before the other" "$TRIREME" launch -n 2 -- \
  sh -c '[ $OMPI_COMM_WORLD_RANK = 0 ] || sleep 3'
expect 4 "the others are ended when one fails" "$TRIREME" launch -n 3 -- \
  sh -c '[ $OMPI_COMM_WORLD_RANK = 1 ] && exit 4; sleep 50'
[ "$took" -le 8 ] || bad "ending the others took $took s"
expect 4 "the others are ended even if they ignore SIGTERM" "$TRIREME" launch -n 3 -- \
  sh -c 'trap "" TERM; [ $OMPI_COMM_WORLD_RANK = 1 ] && exit 4; while :; do sleep 1; done'
[ "$took" -le 10 ] || bad "ending stubborn ones took $took s"

expect 0 "output passes unchanged" "$TRIREME" launch -n 3 -- \
  sh -c 'echo out $OMPI_COMM_WORLD_RANK; echo err $OMPI_COMM_WORLD_RANK >&2; cat'
[ "$(sort "$work/out" | tr '\n' ' ')" = "out 0 out 1 out 2 " ] || bad "standard output was changed"
[ "$(sort "$work/err" | tr '\n' ' ')" = "err 0 err 1 err 2 " ] || bad "standard error was changed"
expect 6 "last words are not lost" "$TRIREME" launch -n 2 -- \
  sh -c 'i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 6'
[ "$(wc -l <"$work/err")" -eq 4000 ] || bad "of 4000 lines $(wc -l <"$work/err") came through"

line=$(printf 'mine\n' | { "$TRIREME" launch -n 2 -- cat; cat; })
[ "$line" = mine ] || bad "standard input was consumed"

expect 3 "threads of one process" "$TRIREME" launch -n 4 --backend local -- sh -c '[ $TRIREME_LOCAL_RANKS = 4 ] && exit 3'
silent "threads of one process"

for args in "-n 0 -- true" "-n -3 -- true" "-n 9999999 -- true" "-n two -- true" "-n 2 -- /no/such/program" \
  "-n 2 -- /etc/passwd" "-n 2 true" "-n 2 --" "-- true" "-n 2 --backend smoke -- true" \
  "-n 2 --min 0 -- true" "-n 2 --restarts -1 -- true" "-n 2 --hosts a --backend local -- true" "-n 2 --what -- true"; do
  # shellcheck disable=SC2086
  expect 2 "launch $args" env -u SLURM_JOB_ID "$TRIREME" launch $args
  one_line "launch $args" '^trireme: '
done
for case in "-n 0|^trireme: launch: -n: " "--ranks 0|^trireme: launch: -n: " "--rank 2|unknown argument '--rank': did you mean --ranks\?" \
  "--nn 2|unknown argument '--nn': 'trireme launch --help'"; do
  # shellcheck disable=SC2086
  expect 2 "launch ${case%%|*}" "$TRIREME" launch ${case%%|*} -- true
  one_line "launch ${case%%|*}" "${case#*|}"
done
expect 2 "a directory for a program" "$TRIREME" launch -n 1 -- /tmp
one_line "a directory for a program" "'/tmp': it is a directory"
expect 1 "help that is lost" sh -c '"$0" launch --help >/dev/full' "$TRIREME"
one_line "help that is lost" 'standard output could not be written: No space left on device'
expect 1 "help to a closed file" sh -c '"$0" help >&-' "$TRIREME"
one_line "help to a closed file" 'standard output could not be written'

expect 2 "a host that is not there" "$TRIREME" launch -n 2 --hosts no-such-host.invalid -- true
one_line "a host that is not there" '^trireme: cannot start the ranks: .*'

# What mpirun leaves behind may keep its standard error open.
mkdir "$work/bin"
printf '#!/bin/sh\nsleep 40 &\nexit 7\n' >"$work/bin/mpirun"
chmod +x "$work/bin/mpirun"
expect 2 "mpirun ends but not what it started" env "PATH=$work/bin:$PATH" "$TRIREME" launch -n 2 -- true
[ "$took" -le 9 ] || bad "mpirun ends but not what it started: took $took s"
one_line "mpirun ends but not what it started" 'cannot start the ranks: mpirun ended with exit code 7'

expect 2 "an unknown command" "$TRIREME" lunch
one_line "an unknown command" "did you mean 'trireme launch'"
expect 2 "no command" "$TRIREME"
one_line "no command" "trireme help"
expect 0 "help" "$TRIREME" help
grep -q doctor "$work/out" || bad "help does not list doctor"
expect 0 "version" "$TRIREME" --version
grep -qE '^trireme [0-9]+\.[0-9]+' "$work/out" || bad "--version does not tell it"
expect 0 "help of launch" "$TRIREME" launch --help
grep -q -- --restarts "$work/out" || bad "launch --help does not list --restarts"
finish
