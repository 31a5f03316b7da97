"""A strategy of labgrid: a place is a box of a Testbox server, which is reserved and restored.

States: "free" (given back), "baseline" (restored, and its own system is up), "shell" (baseline, and
the driver of the shell is active). Whoever asks for "baseline" again gets the box restored again.
docs/schedulers.md explains it, env.yaml is an example.
"""

import atexit
import enum
import json
import os
import socket
import subprocess
import time
import uuid

import attr
from labgrid.factory import target_factory
from labgrid.step import step
from labgrid.strategy.common import Strategy, StrategyError


class Status(enum.Enum):
    unknown = 0
    free = 1
    baseline = 2
    shell = 3


@target_factory.reg_driver
@attr.s(eq=False)
class TestboxStrategy(Strategy):
    """If a driver of a power switch is bound, labgrid restarts the box. Otherwise the server does, by its
    power command, or somebody has to."""

    __test__ = False
    bindings = {"shell": "CommandProtocol", "power": {"PowerProtocol", None}}

    box = attr.ib(validator=attr.validators.instance_of(str))
    image = attr.ib(default="", validator=attr.validators.instance_of(str))
    hold = attr.ib(default="4h", validator=attr.validators.instance_of(str))
    wait = attr.ib(default="0s", validator=attr.validators.instance_of(str))
    status = attr.ib(default=Status.unknown)

    def __attrs_post_init__(self):
        super().__attrs_post_init__()
        self._run = f"labgrid-{socket.gethostname()[:30]}-{uuid.uuid4().hex[:12]}"
        self._env = dict(os.environ, TESTBOX_RUN=self._run)
        self._taken = False
        atexit.register(self._give)

    @step(args=["status"])
    def transition(self, status, *, step):  # pylint: disable=redefined-outer-name
        if not isinstance(status, Status):
            status = Status[status]
        if status == Status.unknown:
            raise StrategyError(f"can not transition to {status}")
        if status == self.status and status != Status.baseline:
            step.skip("nothing to do")
            return
        if status == Status.shell:
            if self.status != Status.baseline:
                self.transition(Status.baseline)  # pylint: disable=missing-kwoa
            self.target.activate(self.shell)
            self.status = status
            return
        self.target.deactivate(self.shell)
        self.status = Status.unknown  # until what follows has succeeded
        if status == Status.baseline:
            self._restore()
        elif not self._give():
            raise StrategyError(f"the box {self.box} was not given back")
        self.status = status

    @step(args=["status"])
    def force(self, status):
        """Believe that the box is in a state, as after it was restored by hand."""
        if not isinstance(status, Status):
            status = Status[status]
        if status == Status.unknown:
            raise StrategyError(f"can not force state {status}")
        if status == Status.shell:
            self.target.activate(self.shell)
        else:
            self.target.deactivate(self.shell)
        self.status = status

    def _restore(self):
        command = ["testbox-lease", "take", "--for", self.hold, "--wait", self.wait]
        if self.image:
            command += ["--image", self.image]
        self._taken = True
        cycled = self.power is None
        with subprocess.Popen([*command, self.box], env=self._env, stdout=subprocess.DEVNULL) as take:
            try:
                while take.poll() is None:
                    if not cycled and self._armed():
                        self.target.activate(self.power)
                        self.power.cycle()
                        cycled = True
                    time.sleep(1)
            except BaseException:
                take.terminate()
                raise
        if take.returncode != 0:
            raise StrategyError(f"the box {self.box} was not restored: testbox-lease ended with {take.returncode}")

    def _armed(self):
        """Whether our job waits for the box to be restarted."""
        asked = subprocess.run(["testbox", "jobs", "--json", "--", self.box], env=self._env, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
        if asked.returncode != 0:
            return False
        return any(job["by"].endswith("#" + self._run) and job["state"] == "armed" and job["settled"] for job in json.loads(asked.stdout))

    def _give(self):
        if self._taken and subprocess.run(["testbox-lease", "give"], env=self._env).returncode == 0:
            self._taken = False
        return not self._taken
