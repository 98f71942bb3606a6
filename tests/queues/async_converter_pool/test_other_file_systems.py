"""Targets on another file system, or behind another mount of the same one (CP-6)."""

import errno
import os
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit import ROOT
from tests.kit.process import interpret, run_python
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Fault, Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import COMPONENT, Site, looped, run, until
from tests.queues.async_converter_pool.test_crashes import MEMORY, other_file_system

pytestmark = other_file_system
only_as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody"
)


def converter(site: Site, module: ModuleType, target: Path) -> Any:
    for name in ("done", "error"):
        (target / name).mkdir(exist_ok=True)
    return site.converter(module, done_dir=target / "done", error_dir=target / "error")


@pytest.fixture
def target() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


def moved(pool: Any, files: int) -> bool:
    return bool(pool.stats.converted + pool.stats.failed + pool.stats.held == files)


@looped
async def check_copies(module: ModuleType, root: Path) -> None:
    """Contents, mode and times arrive; names clash as elsewhere; nothing is left behind."""
    site = Site(root)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        target = Path(folder)
        async with site.running(module, converters=[converter(site, module, target)]) as pool:
            for number in range(2):
                for kind in ("good", "bad"):
                    staged = site.staging / f"{kind}.csv"
                    staged.write_text(f"{kind} {number}")
                    staged.chmod(0o640)
                    os.utime(staged, ns=(10**18, 10**18 + number))
                    staged.rename(site.box / staged.name)
                await site.unless_it_ends(partial(moved, pool, 2 * number + 2))
        assert pool.stats.held == 0, "it did not arrive"
        assert site.submitted == ["good 0", "good 1"]
        assert not [file for file in site.box.iterdir() if file.is_file()], "a source was left"
        for kind in ("good", "bad"):
            ended = target / ("done" if kind == "good" else "error")
            files = {each.read_text(): each.stat() for each in ended.glob("*.csv")}
            assert sorted(files) == [f"{kind} 0", f"{kind} 1"]
            assert [files[text].st_mtime_ns for text in sorted(files)] == [10**18, 10**18 + 1]
            assert {found.st_mode & 0o777 for found in files.values()} == {0o640}
        names = [file.name for file in (target / "error").iterdir()]
        assert sum(name.endswith(".error.json") for name in names) == 2
        assert not [name for name in names if name.startswith(".")]


@looped
async def check_full_target(module: ModuleType, root: Path) -> None:
    """A copy that ends in the middle is not seen; the next start copies, and submits nothing."""
    site, copy = Site(root), shutil.copyfileobj

    def fill(original: Any, target: Any, *length: int) -> None:
        target.write(original.read(4))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        target = Path(folder)
        options = {"converters": [converter(site, module, target)]}
        with pytest.MonkeyPatch.context() as patch:
            async with site.running(module, **options) as pool:
                patch.setattr(shutil, "copyfileobj", fill)
                site.drop("good.csv", "good")
                site.drop("bad.csv", "bad")
                await site.unless_it_ends(lambda: pool.stats.held == 2)
        assert shutil.copyfileobj is copy
        for name in ("done", "error"):
            assert list((target / name).iterdir()) == [], "half a file was left"
        async with site.running(module, **options) as pool:
            await site.unless_it_ends(lambda: pool.stats.converted and pool.stats.failed)
        assert [file.read_text() for file in (target / "done").iterdir()] == ["good"]
        assert [file.read_text() for file in (target / "error").glob("*.csv")] == ["bad"]
    assert site.submitted == ["good"], "it was submitted again"
    assert sorted(site.started) == ["bad.csv", "good.csv"]


def copies_in_sight() -> Fault:
    """A copy has its own name from the start."""
    copy = shutil.copyfileobj

    def in_sight(original: Any, target: Any, *length: int) -> None:
        hidden = Path(target.name)
        visible = hidden.with_name(Path(original.name).name.strip(".").rpartition(".")[0])
        os.link(hidden, visible)
        try:
            shutil.copyfileobj(original, target, *length)
        finally:
            if shutil.copyfileobj is copy:
                visible.unlink()

    return faults.bound(shutil, copyfileobj=in_sight)


PROOFS = [
    Proof(
        "CP-6",
        check_copies,
        [
            Twin(
                "loses mode and times",
                faults.bound(shutil, copystat=lambda *_: None),
                "AssertionError: [files[text].st_mtime_ns",
            ),
            Twin(
                "leaves the source",
                faults.bound(os, unlink=lambda path: None),
                ("AssertionError: a source was left", "AssertionError: it did not arrive"),
            ),
        ],
    ),
    Proof(
        "CP-6",
        check_full_target,
        [
            Twin(
                "copies in sight",
                copies_in_sight(),
                "AssertionError: half a file was left",
            )
        ],
    ),
]


@each_proof(PROOFS)
def test_files_are_moved_by_copies(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_copy_that_is_none_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


@pytest.mark.guarantee("CP-6")
def test_a_stop_waits_for_the_copy_that_is_under_way(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next start would copy the same file at the same time."""

    async def main(module: ModuleType, root: Path) -> None:
        site, copying = Site(root), list[str]()
        gate, copy = site.hold("copy"), shutil.copyfileobj

        def slowly(original: Any, target: Any, *length: int) -> None:
            copying.append(original.name)
            site.ring()
            assert gate.wait(30)
            copy(original, target, *length)

        async with site.running(module, converters=[converter(site, module, target)]) as pool:
            monkeypatch.setattr(shutil, "copyfileobj", slowly)
            site.drop("good.csv", "good")
            await until(lambda: copying)
            assert site.files() == []
            site.post(gate.set)
            await pool.stop(timeout=0)
            assert [file.read_text() for file in (target / "done").iterdir()] == ["good"]
        assert [file for file in site.box.iterdir() if file.is_file()] == []

    run(main, ours, tmp_path)


PROGRAM = """
    import asyncio, os, subprocess, sys
    from pathlib import Path
    from reference_impl.queues.async_converter_pool import AsyncConverterPool, Converter

    def sh(*words):
        subprocess.run(words, check=True)

    def texts(folder):
        return sorted(file.read_text() for file in folder.iterdir() if file.suffix == ".csv")

    async def work(box, done, error, enough):
        submitted = []
        async def submit(text):
            submitted.append(text)
        converter = Converter("c", box, ("*.csv",), Path.read_text, done_dir=done, error_dir=error)
        async with AsyncConverterPool([converter], submit) as pool:
            async with asyncio.timeout(30):
                while not enough(pool.stats):
                    await asyncio.sleep(0.001)
        return submitted
"""
MOUNTS = """
    root = Path({root!r})
    box, store, done, error = (root / name for name in ("in", "store", "done", "error"))
    for each in (box, store, done, error):
        each.mkdir()
    sh("mount", "--bind", str(store), str(done))
    assert done.stat().st_dev == box.stat().st_dev
    for start in range(2):
        (box / "a.csv").write_text(str(start))
        assert asyncio.run(work(box, done, error, lambda stats: stats.converted)) == [str(start)]
    assert texts(done) == ["0", "1"], texts(done)
    assert [file for file in box.iterdir() if file.is_file()] == []

    sh("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(error))
    full = error / "full"
    full.mkdir()
    (box / "b.csv").write_text("x" * 100_000)
    assert len(asyncio.run(work(box, full, done, lambda stats: stats.held))) == 1
    assert list(full.iterdir()) == []
    sh("mount", "-o", "remount,size=1m", str(error))
    assert asyncio.run(work(box, full, done, lambda stats: stats.converted)) == []
    assert texts(full) == ["x" * 100_000]
    print("moved")
"""


@pytest.mark.guarantee("CP-6")
@pytest.mark.parametrize("how", ["-m", "-Urm"])
def test_a_bind_mount_and_a_full_file_system(how: str) -> None:
    """Whose st_dev is the same, and no rename gets there; and one that is really full."""
    words = ["unshare", how]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"], check=False).returncode:
        pytest.skip(f"unshare {how} is not allowed here")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "program.py"
        code = textwrap.dedent(PROGRAM) + textwrap.dedent(MOUNTS).format(root=folder)
        program.write_text(code)
        start = f"""
import os, sys
os.environ["PYTHONPATH"] = {str(ROOT)!r}
os.execvp("unshare", ["unshare", {how!r}, sys.executable, {str(program)!r}])
"""
        done = interpret("-c", start)
    assert done.stdout == "moved\n", done.stderr


UNWRITABLE = """
    root, store = Path({root!r}), Path({store!r})
    box, done, error = root / "in", store / "done", store / "error"
    for each in (root, store):
        os.chmod(each, 0o755)
    for each in (box, done, error):
        each.mkdir()
        os.chown(each, 65534, 65534)
    os.chmod(done, 0o777)
    os.chown(done, 0, 0)
    closing, opening = os.pipe(), os.pipe()
    if os.fork():  # root, which closes and opens the directory
        os.read(closing[0], 1)
        os.chmod(done, 0o555)
        os.write(opening[1], b".")
        os.read(closing[0], 1)
        os.chmod(done, 0o777)
        os.write(opening[1], b".")
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)

    def turn():
        os.write(closing[1], b".")
        os.read(opening[0], 1)

    def convert(path):
        turn()
        return path.read_text()

    submitted = []
    async def submit(text):
        submitted.append(text)

    async def start(enough):
        converter = Converter("c", box, ("*.csv",), convert, done_dir=done, error_dir=error)
        async with AsyncConverterPool([converter], submit) as pool:
            async with asyncio.timeout(30):
                while not enough(pool.stats):
                    await asyncio.sleep(0.001)

    (box / "a.csv").write_text("a")
    asyncio.run(start(lambda stats: stats.held))
    assert [file.name for file in box.iterdir()] == [".a.csv.submitted"]
    try:
        asyncio.run(start(lambda stats: False))
    except PermissionError as error_:
        assert "done_dir of converter 'c' must be readable and writable" in str(error_), error_
    else:
        raise AssertionError("it was not refused")
    turn()
    asyncio.run(start(lambda stats: stats.converted))
    assert submitted == ["a"], submitted
    assert texts(done) == ["a"]
    print("moved")
"""


@pytest.mark.guarantee("CP-6")
@pytest.mark.parametrize("store", ["/tmp", str(MEMORY)], ids=["by rename", "by copy"])
@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody"
)
def test_a_target_that_becomes_unwritable(store: str) -> None:
    with (
        tempfile.TemporaryDirectory() as root,
        tempfile.TemporaryDirectory(dir=store) as targets,
    ):
        code = textwrap.dedent(PROGRAM) + textwrap.dedent(UNWRITABLE)
        printed = run_python(code.format(root=root, store=targets)).stdout
    assert printed == "moved\n"
