#!/bin/bash
#SBATCH --job-name=seeds
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# An example of a script without --platform slurm: one job that runs a command for one seed after the other. Edit the options above and the
# command, and submit the script in the folder of EC.py: sbatch platforms/seeds.sh. The job is requeued before its time limit; finished seeds
# are then skipped quickly.

trap 'warned=yes; kill -USR1 $run' USR1
trap 'kill $run' TERM

for seed in {0..9}; do
    python EC.py train --default_hparams=digits_lenet_16 --global_seed=$seed &
    run=$!
    wait $run
    status=$?
    while kill -0 $run 2> /dev/null; do # a signal has ended the wait but not the run
        wait $run
        status=$?
    done
    [[ $warned ]] && scontrol requeue "$SLURM_JOB_ID"
    [[ $warned || $status != 0 ]] && exit $status
done
exit 0
