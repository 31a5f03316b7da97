"""A plugin of pytest: the fixture `testbox` is a box that was reserved and restored for this session.

    pytest -p pytest_testbox --testbox web-1 --testbox web-2 --testbox-for 2h

The first of the boxes that is free is taken. It is given back when the session ends. If none can be
had, or it is not as it was, all tests that use the fixture fail. docs/schedulers.md explains it.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import uuid

import pytest


class Testbox:
    """A box that this session has."""

    __test__ = False

    def __init__(self, address, env):
        self.address = address
        self._env = env

    def restore(self, image=None, timeout="1h"):
        """Restore the box again, in the middle of a session, and wait until it is up."""
        command = ["testbox", "restore", "--wait=up", "--timeout", timeout, "--job-key", uuid.uuid4().hex]
        if image is not None:
            command += ["--image", image]
        done = subprocess.run([*command, "--", self.address], env=self._env)
        if done.returncode != 0:
            pytest.fail(f"{self.address} was not restored: testbox ended with {done.returncode}", pytrace=False)


def pytest_addoption(parser):
    group = parser.getgroup("testbox")
    group.addoption("--testbox", action="append", default=[], metavar="BOX", help="a box that the tests may use")
    group.addoption("--testbox-for", default="4h", metavar="TIME", help="how long it is reserved, such as 2h")
    group.addoption("--testbox-wait", default="0s", metavar="TIME", help="how long to wait for a free box")
    group.addoption("--testbox-image", metavar="BACKUP", help="what is restored, in place of the baseline or latest backup")


def pytest_configure(config):
    # Schedulers end a run by SIGTERM. As an interrupt, the box is given back.
    if config.getoption("--testbox") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _time_is_over(address):
    """Interrupt the tests, since others may have the box from now on."""
    print(f"\nthe time for which {address} was reserved is over; --testbox-for says how long it is", file=sys.stderr)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@pytest.fixture(scope="session")
def testbox(request):
    """A box of its own for this session, as it was when its backup was made."""
    option = request.config.getoption
    if not option("--testbox"):
        pytest.fail("these tests need a box: name one by --testbox", pytrace=False)
    env = dict(os.environ, TESTBOX_RUN=f"pytest-{socket.gethostname()[:30]}-{uuid.uuid4().hex[:12]}")
    take = ["testbox-lease", "take", "--for", option("--testbox-for"), "--wait", option("--testbox-wait")]
    if option("--testbox-image") is not None:
        take += ["--image", option("--testbox-image")]
    try:
        taken = subprocess.run([*take, *option("--testbox")], env=env, stdout=subprocess.PIPE, text=True)
        address = taken.stdout.strip()
        if taken.returncode != 0 or not address:
            pytest.fail(f"there is no box for these tests: testbox-lease ended with {taken.returncode}", pytrace=False)
        left = subprocess.run(["testbox-lease", "left"], env=env, stdout=subprocess.PIPE, text=True, check=True)
        timer = threading.Timer(int(left.stdout), _time_is_over, [address])
        timer.daemon = True
        timer.start()
        yield Testbox(address, env)
        timer.cancel()
    finally:
        subprocess.run(["testbox-lease", "give"], env=env)
