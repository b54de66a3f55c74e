"""A short run of the fuzz; `make fuzz` is the long one.

In processes of their own: what is killed there (tests/fuzz/looping.py) leaves tasks behind
that nobody ends.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "fuzz" / "run.py"

SEED = 1


def fuzz(*options: str) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), *options],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(400)
def test_what_is_promised_holds_whatever_goes_wrong() -> None:
    fuzz("--seed", str(SEED), "--runs", "12", "--jobs", "2")


@pytest.mark.timeout(400)
def test_what_is_promised_holds_when_the_process_is_killed() -> None:
    fuzz("--seed", str(SEED), "--runs", "2", "--jobs", "2", "--real")
