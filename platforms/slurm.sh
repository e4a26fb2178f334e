#!/bin/bash
@options

cd -- @folder || exit
@exports

# Before the time is up SLURM sends USR1 to this script: the run writes its checkpoint and leaves with 75, and the job queues up again.
# After TERM it does not, for a job that was preempted is back in the queue already, and one that was cancelled shall not be.
warned=
trap 'warned=yes; kill -USR1 $run' USR1 USR2
trap 'kill $run' TERM

@command &
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
if [[ $warned && ${SLURM_RESTART_COUNT:-0} -ge @requeues ]]; then
    echo "This is start @requeues after the first, and the last (--requeues). The same command goes on from the checkpoint." >&2
elif [[ $warned ]]; then
    scontrol requeue "@task"
fi
exit $status
