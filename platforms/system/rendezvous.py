"""Where the processes of a job meet, as `torchrun` or SLURM's `srun` says in environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foundations.errors import ConfigError

START = "start it by torchrun --nproc_per_node=2 EC.py ..., or by srun -n2 python EC.py ..."
# What says how many processes there are, and which of them one is; of torchrun and, where that is absent, of srun.
NUMBERS = {
    "rank": ("RANK", "SLURM_PROCID"),
    "world_size": ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
    "local_rank": ("LOCAL_RANK", "SLURM_LOCALID"),
}
NODES = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")
FIRST_PORT, PORTS = 10000, 20000  # for steps of SLURM, below those that systems hand out by themselves


@dataclass(frozen=True)
class Rendezvous:
    """The rank of a process within its job and on its machine, the number of processes, and the address where they meet."""

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int

    @staticmethod
    def of(environment: Mapping[str, str]) -> Rendezvous:
        """The rank and the address that environment variables assign.

        Raises:
            ConfigError: they assign none, or they contradict each other.
        """
        numbers = {field: _number(environment, names) for field, names in NUMBERS.items()}
        address, port = environment.get("MASTER_ADDR"), environment.get("MASTER_PORT")
        if address is None:
            address = _first_host(next((environment[name] for name in NODES if name in environment), "127.0.0.1"))
        if port is None:
            step = [environment.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID")]
            port = str(FIRST_PORT + sum(int(number) for number in step if number.isdecimal()) % PORTS)
        if not port.isdecimal() or numbers["rank"] >= numbers["world_size"]:
            raise ConfigError(f"--platform: RANK, WORLD_SIZE and MASTER_PORT do not make sense; {START}")
        return Rendezvous(**numbers, address=address, port=int(port))


def _number(environment: Mapping[str, str], names: Sequence[str]) -> int:
    """The first of some variables that is there."""
    value = next((environment[name] for name in names if name in environment), None)
    if value is None or not value.isdecimal():
        wrong = "is missing" if value is None else f"is {value!r}, which is no number"
        raise ConfigError(f"--platform: distributed is for one of several processes, and {names[0]} {wrong}; {START}")
    return int(value)


def _first_host(nodes: str) -> str:
    """The first of the machines in a list of SLURM's, such as n[07-09,12],m1; where there is only one, itself by another name."""
    match = re.match(r"([^\[,]+)(?:\[(\d+)[^\]]*\])?([^\[,]*)", nodes)
    if not match or match[0] == nodes and match[2] is None:
        return "127.0.0.1"
    return f"{match[1]}{match[2] or ''}{match[3]}"
