#!/bin/bash
# A rank that never comes to MPI's start must not hold up the others for longer than their patience.
. "$(dirname "$0")/lib.sh" "$@"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
expect 5 "a rank that does not come" mpirun --oversubscribe -np 2 sh -c \
  '[ "$OMPI_COMM_WORLD_RANK" = 1 ] && exec sleep 50
   exec "$0" --data synthetic:1,16,16,10,64 --model mlp --steps 1 --patience 2 --shards 2' "$build/bin/train_classifier"
[ "$took" -le 9 ] || bad "a rank that does not come: took $took s"
grep -q 'MPI start-up did not end within 2.0 s' "$work/err" || bad "nothing says that MPI did not start"
finish
