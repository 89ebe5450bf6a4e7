#!/usr/bin/env bash
# A study on one GPU, many runs side by side, for a limited time; the same command goes on with what is left.
#
#   bash docs/photographs/gpu.sh JOBS SECONDS STUDY OPTIONS...      what follows SECONDS is that of `segzoo compare`
#   bash docs/photographs/gpu.sh 13 440 photographs -- --data.root DATA --network.encoder_checkpoint FILE
#
# A small network leaves a large GPU idle, so that the cores of the processor decide: JOBS a little below their number, as every
# run has a process that loads its images. Kernels of several processes overlap only under CUDA's multi-process service (MPS), which is
# used where it is installed and works, and ended afterwards; NO_MPS=1 leaves it out. None of this has run on a GPU yet.
set -u
jobs=$1 seconds=$2
shift 2
export PYTHONUNBUFFERED=1 NO_ALBUMENTATIONS_UPDATE=1 OMP_NUM_THREADS=1
python=${PYTHON:-python3}
service=$(command -v nvidia-cuda-mps-control || true)
if [ -n "$service" ] && [ -z "${NO_MPS:-}" ]; then
  CUDA_MPS_PIPE_DIRECTORY=$(mktemp -d) CUDA_MPS_LOG_DIRECTORY=$(mktemp -d)
  export CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  pipe=$CUDA_MPS_PIPE_DIRECTORY
  trap 'echo quit | CUDA_MPS_PIPE_DIRECTORY=$pipe timeout 10 "$service" >/dev/null' EXIT
  "$service" -d
  if timeout 60 "$python" -c 'import torch; torch.ones(64, 64, device="cuda").mm(torch.ones(64, 64, device="cuda")).sum().item()'; then
    echo "kernels of all runs overlap (MPS)"
  else
    echo "MPS does not work here: kernels of the runs take turns"
    unset CUDA_MPS_PIPE_DIRECTORY CUDA_MPS_LOG_DIRECTORY
  fi
else
  echo "no MPS: kernels of the runs take turns"
fi
timeout -s INT -k 20 "$seconds" "$python" -m segzoo compare --jobs "$jobs" "$@"
status=$?
if [ "$status" -ge 124 ]; then  # out of time: what runs has saved, and what is complete is reported
  "$python" -m segzoo compare --report "$@"
fi
exit "$status"
