#!/bin/bash
# Ranks on several hosts: through mpirun's remote start with hosts made of namespaces, and through srun
# with a stand-in that starts its tasks here.
. "$(dirname "$0")/lib.sh" "$@"

# --- srun: what the launcher asks for, and that jobs end as they do under mpirun
mkdir "$work/bin"
cat >"$work/bin/srun" <<'SRUN'
#!/bin/bash
# As srun would: a step of -n tasks, each with its number; srun passes signals on and waits.
echo "$*" >>"$SRUN_LOG"
n=$(sed 's/.* -n \([0-9]*\) .*/\1/' <<<"$*")
while [ "${1#-}" != "$1" ]; do [ "$1" = -n ] && shift; shift; done
export SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=$n
for ((i = 0; i < n; i++)); do SLURM_PROCID=$i SLURM_LOCALID=$i PMIX_RANK=$i "$@" & done
wait
SRUN
chmod +x "$work/bin/srun"
slurm=(env -u OMPI_COMM_WORLD_SIZE "PATH=$work/bin:$PATH" "SRUN_LOG=$work/srun.log" SLURM_JOB_ID=1 SLURM_NTASKS=3)

expect 0 "an allocation" "${slurm[@]}" "$TRIREME" launch -- sh -c 'echo $SLURM_PROCID of $SLURM_STEP_NUM_TASKS'
[ "$(sort "$work/out" | tr '\n' ' ')" = "0 of 3 1 of 3 2 of 3 " ] || bad "srun ran: $(tr '\n' ' ' <"$work/out")"
grep -q -- '--mpi=pmix -n 3 --kill-on-bad-exit=1' "$work/srun.log" || bad "srun was asked: $(cat "$work/srun.log")"
expect 4 "an allocation's failure" "${slurm[@]}" "$TRIREME" launch -n 2 -- sh -c '[ $SLURM_PROCID = 1 ] && exit 4; sleep 50'
one_line "an allocation's failure" '^trireme: rank 1 exited with code 4$'
expect 0 "an allocation's restart" "${slurm[@]}" "$TRIREME" launch --restarts 1 -- \
  sh -c 'echo $SLURM_STEP_NUM_TASKS; [ $TRIREME_RESTART$SLURM_PROCID = 00 ] && kill -9 $$; [ $TRIREME_RESTART = 1 ] || sleep 50'
[ "$(tr '\n' ' ' <"$work/out")" = "3 3 3 2 2 " ] || bad "srun ran: $(tr '\n' ' ' <"$work/out")"
sed -i 's/ PMIX_RANK=$i//' "$work/bin/srun"
expect 2 "srun without an MPI plugin" "${slurm[@]}" "$TRIREME" launch -- true
one_line "srun without an MPI plugin" 'cannot start the ranks: .*--mpi=pmix'

# --- hosts: each with its own name, processes and /dev/shm
if [ "$(id -u)" -ne 0 ] || ! unshare --uts --mount --ipc --pid --fork true 2>/dev/null; then
  [ $failures -eq 0 ] || finish
  echo "skipped: making hosts of namespaces needs root"
  exit 77
fi
cat >"$work/agent" <<'AGENT'
#!/bin/bash
# In place of ssh: [options] HOST COMMAND... in namespaces of its own; its id is kept so that it can lose power.
while [ "${1#-}" != "$1" ]; do shift; done
host=$1 name=$1
shift
for pair in $NAMES; do [ "${pair%%=*}" = "$host" ] && name=${pair#*=}; done  # what the host calls itself
unshare --uts --mount --ipc --pid --fork --kill-child --mount-proc \
  sh -c "hostname $name; mount -t tmpfs tmpfs /dev/shm; $*" &
echo $! >"$HOSTS_DIR/$host"
exec 2>/dev/null  # the shell's own word about a killed job is not the launcher's
wait
AGENT
chmod +x "$work/agent"
export NAMES="" "HOSTS_DIR=$work" OMPI_MCA_plm=rsh "OMPI_MCA_plm_rsh_agent=$work/agent" OMPI_MCA_btl=self,vader,tcp

expect 0 "two hosts" "$TRIREME" launch -n 3 --hosts h1,h2 -- sh -c 'echo $(hostname) $OMPI_COMM_WORLD_RANK'
[ "$(sort "$work/out" | tr '\n' ' ')" = "h1 0 h1 1 h2 2 " ] || bad "two hosts ran: $(tr '\n' ' ' <"$work/out")"
expect 6 "a failure on another host" "$TRIREME" launch -n 2 --hosts h1,h2 -- sh -c '[ $(hostname) = h2 ] && exit 6; sleep 50'
one_line "a failure on another host" '^trireme: rank 1 exited with code 6$'
expect 2 "a program that is only missing there" "$TRIREME" launch -n 2 --hosts h1,h2 -- /no/such/program
one_line "a program that is only missing there" '/no/such/program'

launch_in_background -n 3 --hosts h1,h2 -- sh -c 'echo up; sleep 100 & wait'
wait_for 3 up
kill -9 "$launcher"
wait "$launcher" 2>/dev/null
nobody_left "the launcher of two hosts is killed" 6

launch_in_background -n 3 --hosts h1,h2 --restarts 1 -- \
  sh -c 'echo up; [ $TRIREME_RESTART = 1 ] && echo again $(hostname) && exit 0; sleep 100 & wait'
wait_for 3 up
kill -9 "$(cat "$work/h2")"
expect_end 0 "a host loses power" 25
one_line "a host loses power" 'rank 2 was lost: its host h2 .*; restarting on 2 ranks'
[ "$(grep -c 'again h1' "$work/out")" -eq 2 ] || bad "the restart ran: $(tr '\n' ' ' <"$work/out")"

# The list of hosts may have addresses or aliases; what a host calls itself may even be another's name there.
for case in "10.0.0.1 10.0.0.2 " "a1 a2 a1=one a2=two" "a1 a2 a1=a2 a2=a1"; do
  read -r first second NAMES <<<"$case"
  for dead in "$first" "$second"; do
    left=$first
    [ "$dead" = "$first" ] && left=$second
    name=$left
    for pair in $NAMES; do [ "${pair%%=*}" = "$left" ] && name=${pair#*=}; done
    launch_in_background -n 2 --hosts "$first,$second" --restarts 1 -- \
      sh -c 'echo up; [ $TRIREME_RESTART = 1 ] && echo again $(hostname) && exit 0; sleep 100 & wait'
    wait_for 2 up
    kill -9 "$(cat "$work/$dead")"
    expect_end 0 "$dead of $case loses power" 25
    [ "$(grep again "$work/out")" = "again $name" ] || bad "$dead of $case lost: $(tr '\n' ' ' <"$work/out")"
  done
done
finish
