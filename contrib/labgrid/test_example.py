"""An example: pytest --lg-env env.yaml test_example.py"""

import pytest


@pytest.fixture(scope="module")
def shell(target, strategy):
    strategy.transition("shell")
    yield target.get_driver("CommandProtocol")
    strategy.transition("free")


def test_system(shell):
    shell.run_check("true")
