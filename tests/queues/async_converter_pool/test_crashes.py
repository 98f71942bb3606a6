"""The process ends before or after each system call of a move, by rename and by copy."""

import os
from pathlib import Path

import pytest

from tests.kit.process import run_python

MEMORY = Path("/dev/shm")
other_file_system = pytest.mark.skipif(
    not MEMORY.is_dir() or MEMORY.stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs a second file system: /dev/shm is none",
)


def crash(targets: str, most: int) -> None:
    code = "from tests.queues.async_converter_pool import crashing"
    run_python(f"{code}\ncrashing.main({targets!r}, {most})")


@pytest.mark.guarantee("CP-1")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="has no fork")
def test_ending_the_process_at_any_step_of_a_rename_loses_nothing() -> None:
    crash("/tmp", 8)


@pytest.mark.guarantee("CP-6")
@other_file_system
def test_ending_the_process_at_any_step_of_a_copy_loses_and_doubles_nothing() -> None:
    crash(str(MEMORY), 24)
