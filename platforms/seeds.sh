#!/bin/bash
#SBATCH --job-name=seeds
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One job that runs a command with one seed after the other, for those who write their own. Change what is above and the command, and
# submit it where EC.py is: sbatch platforms/seeds.sh. It queues up again when its time is almost up; finished seeds then answer at once.

trap 'warned=yes; kill -USR1 $run' USR1
trap 'kill $run' TERM

for seed in {0..9}; do
    python EC.py train --default_hparams=digits_lenet_16 --global_seed=$seed &
    run=$!
    wait $run
    status=$?
    while kill -0 $run 2> /dev/null; do # a signal has ended the waiting and not the run
        wait $run
        status=$?
    done
    [[ $warned ]] && scontrol requeue "$SLURM_JOB_ID"
    [[ $warned || $status != 0 ]] && exit $status
done
exit 0
