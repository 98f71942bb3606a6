"""The session that a page shows is what the tool prints now."""

import re
import sys

import pytest

from site_build import example


def told(session: str) -> tuple[str, str, list[tuple[str, str]]]:
    """What stays the same from run to run: the difference, the file's state, and the verdicts.

    Which of several checks fails first, and in which of its schedules, depends on the machine.
    """
    check, _, prove = session.partition("$ executable-guarantees prove ")
    words = re.findall(r"^([A-Z]{2}-\d+) +(\w+)", prove, re.MULTILINE)
    return check, prove.splitlines()[1], words


@pytest.mark.skipif(sys.version_info < (3, 12), reason="threads are explored from Python 3.12 on")
def test_the_session_is_what_the_tool_prints() -> None:
    recorded = example.RECORD.read_text(encoding="utf-8")
    assert told(recorded)[2] == [("TC-1", "BROKEN"), ("TC-4", "holds")]
    assert told(example.session()) == told(recorded), "run `python -m site_build.example`"


def test_a_recorded_session_shows_a_losing_schedule() -> None:
    recorded = example.RECORD.read_text(encoding="utf-8")
    assert re.search(r"^TC-1 +BROKEN .*schedule \d+", recorded, re.MULTILINE)
    assert len(re.findall(r"^ +T[12] ", recorded, re.MULTILINE)) > 3
