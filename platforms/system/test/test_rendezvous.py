"""Ranks and addresses from environment variables."""

from foundations.errors import ConfigError
from platforms.system.rendezvous import Rendezvous
from testing.test_case import TestCase


class TestRendezvous(TestCase):
    def test_variables_of_torchrun_override_those_of_srun(self):
        torchrun = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "MASTER_ADDR": "m", "MASTER_PORT": "29500"}
        srun = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "2", "SLURM_JOB_NODELIST": "n[07-09,12],m1"}
        self.assertEqual(Rendezvous.of(torchrun | srun), Rendezvous(1, 4, 0, "m", 29500))
        self.assertEqual(Rendezvous.of(srun | {"SLURM_JOB_ID": "30001", "SLURM_STEP_ID": "2"}), Rendezvous(3, 8, 2, "n07", 20003))
        self.assertEqual(Rendezvous.of(srun | {"SLURM_STEP_NUM_TASKS": "4", "MASTER_PORT": "1"}), Rendezvous(3, 4, 2, "n07", 1))

    def test_the_address_is_the_first_machine_of_the_list(self):
        for nodes, first in (("n1,n2", "n1"), ("gpu[3-4]-ib", "gpu3-ib"), ("n[1]", "n1"), ("a-b,c[1-2]", "a-b"), ("n1", "127.0.0.1")):
            rendezvous = Rendezvous.of({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": nodes})
            self.assertEqual(rendezvous.address, first)

    def test_contradictory_or_invalid_variables_are_an_error(self):
        for wrong in ({"RANK": "2"}, {"MASTER_PORT": "x"}):
            with self.assertRaisesRegex(ConfigError, "contradict each other or are invalid.*torchrun"):
                Rendezvous.of({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "m", "MASTER_PORT": "1"} | wrong)
