# shellcheck shell=sh disable=SC1091,SC2154,SC2164
# Every host runs this file before each job, in its login folder: POSIX sh, copied there by
# multirunner.sh (--config FILE names another file). A line that fails makes the job fail. $checkout is the folder of this
# repository on the machine that runs multirunner.sh. Variables set here are exported.

# The working folder: this repository on the host, with data and runs/ on a disk all hosts share.
cd "$checkout"                   # or, when each host has its own: cd ~/team-net

# The Python of the jobs.
[ ! -d .venv ] || . .venv/bin/activate
# eval "$(conda shell.posix hook)"; conda activate team-net
# PYTHON=/opt/python3.11/bin/python3

# Anything else.
# . /etc/profile.d/modules.sh; module load cuda
# OMP_NUM_THREADS=4
# GPUS="0 1"                     # default: all that nvidia-smi lists
