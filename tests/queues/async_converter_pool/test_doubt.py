"""Files that are open for writing, cannot be examined, or belong to somebody else (CP-6)."""

import errno
import os
import sys
import tempfile
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.process import run_python
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import (
    COMPONENT,
    Site,
    Told,
    forward,
    looped,
    run,
    told,
    until,
)
from tests.queues.async_converter_pool.test_other_file_systems import PROGRAM, only_as_root

linux = pytest.mark.skipif(sys.platform != "linux", reason="tells not who has a file open")


@looped
async def check_still_open(module: ModuleType, root: Path) -> None:
    """Somebody opens a file while it is converted, and writes only afterwards."""
    site = Site(root)
    for name in ("good.csv", "bad.csv"):
        site.drop(name, f"{name[:-4]} HEAD;")
    held = site.hold("good.csv", "bad.csv")
    with told(module):
        async with site.running(module) as pool:
            await until(lambda: len(site.started) == 2)
            with (site.box / "good.csv").open("a") as good, (site.box / "bad.csv").open("a") as bad:
                held.set()
                await until(lambda: not pool.stats.running)
                assert site.submitted == [], "it was read half"
                assert (pool.stats.failed, pool.stats.waiting) == (0, 2), "half a file was blamed"
                await forward(1.0)
                assert (len(site.started), pool.stats.waiting) == (2, 2)
                good.write("END")
                bad.write("END")
            await forward(1.0)
            await site.left()
    assert site.submitted == site.texts("done") == ["good HEAD;END"]
    assert site.texts("error") == ["bad HEAD;END"]


@looped
async def check_doubt(module: ModuleType, root: Path) -> None:
    """It cannot be looked at when it is announced, chosen, converted, or submitted."""
    site, lstat = Site(root), os.lstat
    nth = {"announced.csv": 1, "chosen.csv": 2, "converted.csv": 3, "submitted.csv": 4}
    looks: list[str] = []
    failed: set[str] = set()

    def fail(path: Any, **options: Any) -> Any:
        name, folder = Path(path).name, Path(path).parent
        looks.append(name if folder == site.box else "")
        if name not in failed and looks.count(name) == nth.get(name):
            failed.add(name)
            code = [errno.EACCES, errno.EIO, errno.EMFILE][len(failed) % 3]
            raise OSError(code, os.strerror(code), path)
        return lstat(path, **options)

    with told(module), pytest.MonkeyPatch.context() as patch:
        for name in nth:
            site.drop(name, name)
        patch.setattr(os, "lstat", fail)
        async with site.running(module) as pool:
            await site.unless_it_ends(lambda: failed == {*nth} and not pool.stats.running)
            await site.unless_it_ends(lambda: pool.stats.converted == 3 or not pool.stats.waiting)
            assert pool.stats.waiting == 1, (
                "it was taken for gone"
            )  # the others could be seen again
            assert site.started.count("converted.csv") == 2, "its result was believed"
            await forward(1.0)
            await site.left()
    assert sorted(site.submitted) == sorted(nth) == site.texts("done")


PROOFS = [
    Proof(
        "CP-6",
        check_still_open,
        [
            Twin(
                "takes a file that is open for a closed one",
                faults.takes_open_files_for_closed(),
                "AssertionError: it was read half",
            )
        ],
    ),
    Proof(
        "CP-6",
        check_doubt,
        [
            Twin(
                "takes doubt for an end",
                faults.takes_doubt_for_an_end(),
                "AssertionError: it was taken for gone",
            )
        ],
    ),
]


@linux
@each_proof(PROOFS)
def test_a_file_in_doubt_waits(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@linux
@each_twin(PROOFS)
def test_a_file_in_doubt_that_is_taken_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


@linux
@pytest.mark.guarantee("CP-6")
def test_a_file_that_stays_open_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        with told(module), (site.box / "x.csv").open("w") as file:
            async with site.running(module) as pool:
                await until(lambda: Told.entered.taken)
                assert (pool.stats.waiting, site.started) == (1, [])
            await forward(1.0)
            assert site.started == []
            file.write("END")
        async with site.running(module):
            await site.left()
        assert site.submitted == ["END"]

    run(main, ours, tmp_path)


OWNERS = """
    root = Path({root!r})
    box, done, error = root / "in", root / "in" / "done", root / "in" / "error"
    for each in (box, done, error):
        each.mkdir()
        os.chmod(each, 0o777)
    os.chmod(root, 0o755)

    def drop(name, text, owner):
        (root / name).write_text(text)
        os.chmod(root / name, 0o644)
        os.chown(root / name, owner, owner)
        os.rename(root / name, box / name)

    for number in range(3):
        drop("root.csv", f"root {{number}}", 0) if not number else None
        drop(f"nobody{{number}}.csv", f"nobody {{number}}", 65534)
    slow = (box / "slow.csv").open("w")
    os.chmod(box / "slow.csv", 0o644)
    reading, writing = os.pipe()
    if (child := os.fork()):  # root, who writes slowly
        os.read(reading, 1)
        for part in ("HEAD;", "BODY;", "END"):
            slow.write(part)
            slow.flush()
            time.sleep(0.2)  # this is the subject: a pause shorter than settle
        slow.close()
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    slow.close()
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    submitted = []

    async def submit(text):
        submitted.append(text)
        if text == "root 0":  # a producer of another user replaces it now
            (box / "root.csv").unlink()
            (box / "root.csv").write_text("nobody's root 1")

    async def main():
        begun = asyncio.get_running_loop().create_future()

        def convert(path):
            return path.read_text()

        converter = Converter("c", box, ("*.csv",), convert)
        async with AsyncConverterPool([converter], submit, settle=1.0) as pool:
            os.write(writing, b".")
            async with asyncio.timeout(60):
                while list(box.glob("*.csv")):
                    await asyncio.sleep(0.01)

    asyncio.run(main())
    expected = ["HEAD;BODY;END", "nobody 0", "nobody 1", "nobody 2", "nobody's root 1", "root 0"]
    assert sorted(submitted) == expected, submitted
    assert texts(done) == [each for each in expected if each != "root 0"], texts(done)
    assert texts(error) == []
    print("moved")
"""


@linux
@only_as_root
@pytest.mark.guarantee("CP-6")
def test_a_service_that_handles_other_users_files() -> None:
    """It may not link them, and cannot see who writes to them."""
    protected = Path("/proc/sys/fs/protected_hardlinks")
    if not protected.exists() or protected.read_text().strip() != "1":
        pytest.skip("fs.protected_hardlinks is not 1")
    with tempfile.TemporaryDirectory() as root:
        code = "import time\n" + textwrap.dedent(PROGRAM) + textwrap.dedent(OWNERS)
        printed = run_python(code.format(root=root)).stdout
    assert printed == "moved\n"


STICKY = """
    root = Path({root!r})
    os.chmod(root, 0o755)
    for name, mode in (("in", 0o1777), ("done", 0o777), ("error", 0o777)):
        (root / name).mkdir()
        os.chmod(root / name, mode)
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        asyncio.run(work(root / "in", root / "done", root / "error", lambda stats: False))
    except PermissionError as error:
        print(error)
"""


@linux
@only_as_root
@pytest.mark.guarantee("CP-6")
def test_a_directory_from_which_others_files_cannot_be_moved_is_refused() -> None:
    with tempfile.TemporaryDirectory() as root:
        code = textwrap.dedent(PROGRAM) + textwrap.dedent(STICKY)
        printed = run_python(code.format(root=root)).stdout
    words = "must not be sticky, or other users' files stay there: `chmod -t` it"
    assert printed == f"[Errno 1] watch_dir of converter 'c' {words}: '{root}/in'\n"


@linux
@pytest.mark.guarantee("CP-6")
@pytest.mark.parametrize("user", [0, 1000])
def test_a_file_system_that_needs_links_is_refused_to_who_may_not_make_them(
    user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS does, which has no exclusive rename."""
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("fs.protected_hardlinks is not 1")

    def unsupported(source: str, target: str) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), source, None, target)

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        async with site.running(module):
            site.drop("a.csv", "a")
            await site.left()
        assert site.texts("done") == ["a"]

    monkeypatch.setattr(ours, "rename_exclusively", unsupported)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if user:
        with pytest.raises(PermissionError, match=r"fs\.protected_hardlinks forbids: set it to 0"):
            run(main, ours, tmp_path)
    else:
        run(main, ours, tmp_path)
    hidden = [file for file in tmp_path.rglob(".*") if file.is_file()]
    assert hidden == []
