#!/bin/bash
#SBATCH --array=0-2,4,9%4
#SBATCH --requeue
#SBATCH --job-name=extract_1f9a
#SBATCH --comment='/results/a b/extract_1f9a/seed_*/main/clustering_7'
#SBATCH --output='/results/a b/slurm/extract_1f9a/%A_%a.log'
#SBATCH --open-mode=append
#SBATCH --export=ALL
#SBATCH --signal=B:USR1@300
#SBATCH --partition=gpu
#SBATCH --account=lab
#SBATCH --time=1-12:00:00
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:a100:1
#SBATCH --mem=16G
#SBATCH --constraint=a100
#SBATCH --nice=100

cd -- /code || exit
export EC_DATASET_ROOT=/data
export EC_ROOT='/results/a b'

# Before the time is up SLURM sends USR1 to this script: the run writes its checkpoint and leaves with 75, and the job queues up again.
# After TERM it does not, for a job that was preempted is back in the queue already, and one that was cancelled shall not be.
warned=
trap 'warned=yes; kill -USR1 $run' USR1 USR2
trap 'kill $run' TERM

/opt/python /code/EC.py extract '--default_hparams=students_digits_lenet(6)_36_36' --global_seed=$SLURM_ARRAY_TASK_ID &
run=$!
wait $run
status=$?
while kill -0 $run; do # a signal has ended the waiting and not the run
    wait $run
    status=$?
done 2> /dev/null

case $status in
    75 | 138 | 140) ;; # the last two: the warning came before the run had learnt to listen to it
    *) exit $status ;;
esac
if [[ $warned && ${SLURM_RESTART_COUNT:-0} -ge 7 ]]; then
    echo "This is start 7 after the first, and the last (--requeues). The same command goes on from the checkpoint." >&2
elif [[ $warned ]]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit $status
