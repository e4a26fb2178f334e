"""The ranks and the address of the processes of a job, from the environment variables of `torchrun` or of SLURM's `srun`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foundations.errors import ConfigError

START = "start it by torchrun --nproc_per_node=2 EC.py ..., or by srun -n2 python EC.py ..."
# The variables of each number: first that of torchrun, then those of srun.
NUMBERS = {
    "rank": ("RANK", "SLURM_PROCID"),
    "world_size": ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    "local_rank": ("LOCAL_RANK", "SLURM_LOCALID"),
}
NODES = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
FIRST_PORT, PORTS = 10000, 20000  # for steps of SLURM: below the ports that operating systems assign


@dataclass(frozen=True)
class Rendezvous:
    """The rank of a process in its job and on its machine, the number of processes, and the address at which they connect."""

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int

    @staticmethod
    def of(environment: Mapping[str, str]) -> Rendezvous:
        """The rank and the address in some environment variables.

        Raises:
            ConfigError: variables are missing, or contradict each other.
        """
        numbers = {field: _number(environment, names) for field, names in NUMBERS.items()}
        address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
        if address is None:
            address = _first_host(next((environment[name] for name in NODES if name in environment), "127.0.0.1"))
        if port is None:
            step = [environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
            port = str(FIRST_PORT + sum(int(number) for number in step if number.isdecimal()) % PORTS)
        if not port.isdecimal() or numbers["rank"] >= numbers["world_size"]:
            raise ConfigError(f"--platform: RANK, WORLD_SIZE and MASTER_PORT contradict each other or are invalid; {START}")
        return Rendezvous(**numbers, address=address, port=int(port))


def _number(environment: Mapping[str, str], names: Sequence[str]) -> int:
    """The value of the first variable that is set.

    Raises:
        ConfigError: no variable is set, or its value is not a number.
    """
    value = next((environment[name] for name in names if name in environment), None)
    if value is None or not value.isdecimal():
        wrong = "is missing" if value is None else f"is {value!r}, which is not a number"
        raise ConfigError(f"--platform: distributed needs several processes, but {names[0]} {wrong}; {START}")
    return int(value)


def _first_host(nodes: str) -> str:
    """The first machine of a list of SLURM, such as n[07-09,12],m1. If the list has only one machine, the loopback address."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    if not match or match[0] == nodes and match[2] is None:
        return "127.0.0.1"
    return f"{match[1]}{match[2] or ''}{match[3]}"
