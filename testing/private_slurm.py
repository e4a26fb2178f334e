"""A private SLURM cluster of one machine for tests, which needs neither root nor systemd and is ready within seconds.

Jobs of the partition `high` preempt those of `low`, which are stopped and queued again.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from unittest import mock

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
PATIENCE = 300.0  # seconds; machines that run tests may be busy
CORES = 2  # in SLURM's configuration, whatever the machine has
DAEMONS = "/usr/sbin"  # not in every user's path
CONFIGURATION = """\
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={port}
SlurmdPort={next_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
MpiDefault=none
ReturnToService=2
KillWait=30
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=1000
PartitionName=low Nodes=ALL Default=YES MaxTime=60 PriorityTier=1
PartitionName=high Nodes=ALL MaxTime=60 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why SLURM cannot be started; None if it is installed."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    return f"SLURM is not installed: {', '.join(absent)}" if absent else None


@contextlib.contextmanager
def running() -> Iterator[None]:
    """A context with a running cluster, to which this process and its children submit their jobs."""
    folder = tempfile.mkdtemp()
    for name in ("state", "spool"):
        os.mkdir(os.path.join(folder, name))
    port = _free_ports()
    values = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "cores": CORES, "folder": folder}
    path = os.path.join(folder, "slurm.conf")
    with open(path, "w") as file:
        file.write(CONFIGURATION.format(port=port, next_port=port + 1, **values))
    with mock.patch.dict(os.environ, SLURM_CONF=path, PATH=_path()):
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        daemons = [subprocess.Popen([name, "-D"], **quiet) for name in ("slurmctld", "slurmd")]
        try:
            wait_until(lambda: run("sinfo", "--noheader", "--partition=low", "--format=%T") == "idle", "the node is idle")
            try:
                yield
            finally:
                _empty_queue()
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(PATIENCE)
            shutil.rmtree(folder, ignore_errors=True)


def run(*command: str) -> str:
    """The output of a command; an AssertionError if the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds.

    Raises:
        AssertionError: the condition does not hold within PATIENCE seconds; `what` describes it.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE:.0f} s until {what}; it did not happen")
        time.sleep(0.1)


def _path() -> str:
    return os.pathsep.join((os.environ["PATH"], DAEMONS))


def _free_ports() -> int:
    """The number of a free port of this machine whose next port is free, too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def _empty_queue() -> None:
    """Cancels all jobs and waits for their end; their processes would outlive the daemons."""
    run("scancel", f"--user={getpass.getuser()}")
    wait_until(lambda: not run("squeue", "--noheader"), "the queue is empty")
