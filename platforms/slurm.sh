#!/bin/bash
@options

cd -- @folder || exit
@exports

# SLURM sends USR1 to this script before the time limit. The run then writes its checkpoint and exits with 75, and the script requeues the job.
# After TERM the script does not requeue: SLURM itself requeues a preempted job, and a cancelled job must not run again.
warned=
trap 'warned=yes; kill -USR1 $run' USR1 USR2
trap 'kill $run' TERM

@command &
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
if [[ $warned && ${SLURM_RESTART_COUNT:-0} -ge @requeues ]]; then
    echo "The job has been requeued @requeues times and is not requeued again (--requeues). The same command resumes from the checkpoint." >&2
elif [[ $warned ]]; then
    scontrol requeue "@task"
fi
exit $status
