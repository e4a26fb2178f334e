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

# SLURM sends USR1 to this script before the time limit. The run then writes its checkpoint and exits with 75, and the script requeues the job.
# After TERM the script does not requeue: SLURM itself requeues a preempted job, and a cancelled job must not run again.
warned=
trap 'warned=yes; kill -USR1 $run' USR1 USR2
trap 'kill $run' TERM

/opt/python /code/EC.py extract '--default_hparams=students_digits_lenet(6)_36_36' --global_seed=$SLURM_ARRAY_TASK_ID &
run=$!
wait $run
status=$?
while kill -0 $run; do # a signal has ended the wait but not the run
    wait $run
    status=$?
done 2> /dev/null

case $status in
    75 | 138 | 140) ;; # the last two: the warning came before the run had installed its signal handler
    *) exit $status ;;
esac
if [[ $warned && ${SLURM_RESTART_COUNT:-0} -ge 7 ]]; then
    echo "The job has been requeued 7 times and is not requeued again (--requeues). The same command resumes from the checkpoint." >&2
elif [[ $warned ]]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
fi
exit $status
