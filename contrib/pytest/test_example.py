"""An example of tests that use a box: pytest -p pytest_testbox --testbox web-1 test_example.py"""

import subprocess


def test_answers(testbox):
    subprocess.run(["ping", "-c", "1", "-W", "5", testbox.address], check=True)


def test_as_it_was(testbox):
    # ... change what you like ...
    testbox.restore()
    subprocess.run(["ping", "-c", "1", "-W", "5", testbox.address], check=True)
