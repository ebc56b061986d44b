#!/bin/bash
# train.sbatch adds a checkpoint folder only where nothing else names one; srun is a stand-in that tells its arguments.
. "$(dirname "$0")/lib.sh" "$@"
script=$(realpath "$1")/cluster/slurm/train.sbatch
mkdir "$work/bin"
printf '#!/bin/bash\nprintf "[%%s]" "$@"; echo\n' >"$work/bin/srun"
chmod +x "$work/bin/srun"
cd "$work" || exit 1
printf 'model: "mlp" checkpoint_dir: "/shared/run1"\n' >named.textproto
printf "steps: 3\nout: '/shared/run2'\n" >out.textproto
printf '\xef\xbb\xbfcheckpoint_dir: "/shared/run4"\r\n' >marked.textproto
printf 'checkpoint_dir: ""\nout: ""\n# checkpoint_dir: "/shared/run3"\n' >unnamed.textproto

# is_given WHAT FLAGS...: what srun is asked to run; `added` says whether a folder was added.
is_given() {
  local what=$1
  shift
  expect 0 "$what" env "PATH=$work/bin:$PATH" SLURM_SUBMIT_DIR="$work" SLURM_JOB_ID=77 SLURM_NTASKS=2 SLURM_JOB_NODELIST=n1 \
    bash "$script" prog "$@"
  grep -q "\[--checkpoint-dir\]\[$work/trireme-77\]$" "$work/out" && added=yes || added=no
}

for flags in "--checkpoint-dir /x" "--checkpoint-dir=/x" "--out /x" "--out=/x" "--config named.textproto" \
  "--config=named.textproto" "--steps 3 --config out.textproto --quiet" \
  "--config marked.textproto" "--config unnamed.textproto --out /x"; do
  # shellcheck disable=SC2086
  is_given "$flags" $flags
  [ $added = no ] || bad "$flags: $(cat "$work/out")"
done
for flags in "" "--steps 3" "--config unnamed.textproto" "--config no-such-file" "--data csv:--out.csv"; do
  # shellcheck disable=SC2086
  is_given "'$flags'" $flags
  [ $added = yes ] || bad "'$flags': $(cat "$work/out")"
done
finish
