#!/bin/bash
# The launcher works for a user as it does for root: here nobody, in a folder of its own.
. "$(dirname "$0")/lib.sh" "$@"
if [ "$(id -u)" -ne 0 ]; then
  echo "skipped: becoming another user needs root; the other tests run as a user here"
  exit 77
fi
home=$work/home
mkdir "$home"
cp "$TRIREME" "$build/tests/mpi_program" "$home"
chown -R nobody "$home"
chmod 755 "$work" "$home"
as_nobody=(setpriv --reuid nobody --regid nogroup --clear-groups env -C "$home" "HOME=$home" "TMPDIR=$home")

expect 0 "nobody" "${as_nobody[@]}" ./trireme launch -n 3 -- sh -c 'id -un'
[ "$(tr '\n' ' ' <"$work/out")" = "nobody nobody nobody " ] || bad "ran as $(tr '\n' ' ' <"$work/out")"
expect 0 "nobody with MPI" "${as_nobody[@]}" ./trireme launch -n 3 -- ./mpi_program well
silent "nobody with MPI"
expect 5 "nobody with MPI, killed" "${as_nobody[@]}" ./trireme launch -n 3 -- ./mpi_program kill
one_line "nobody with MPI, killed" 'rank 1 was killed by signal 9'
expect 3 "nobody with threads" "${as_nobody[@]}" ./trireme launch -n 3 --backend local -- sh -c 'exit 3'
[ -z "$(find "$home" -name 'ompi.*' 2>/dev/null)" ] || bad "mpirun's session folder was left: $(find "$home")"
finish
