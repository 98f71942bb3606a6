"""Parts: modules that components share, copied with these and never by themselves."""

from pathlib import Path

import pytest

from reference_impl import _copying
from tests.tools import helpers
from tests.tools.helpers import Run, clear_caches, import_isolated, record, source, tree, write_tree

OLD = source("queues/_shared", "old = 1\n", version="0.9.0", page="queues/two")


@pytest.fixture
def sharing(package: Path) -> Path:
    """The made-up package, with two more queues that share a part."""
    sources = helpers.sharing()
    write_tree(package, {f"{path}.py": data for path, data in sources.items()})
    texts = {path: [data] for path, data in sources.items()}
    texts["queues/_shared"].append(OLD)
    record(package, texts)
    return package


def test_a_part_is_no_component(run: Run, sharing: Path) -> None:
    assert "queues/_shared" in _copying.modules()
    assert "queues/_shared" not in _copying.components()
    status, out, _ = run("list")
    assert status == 0
    assert "queues/one" in out
    assert "_shared" not in out


def test_a_part_is_copied_with_each_of_its_components(
    run: Run, sharing: Path, tmp_path: Path
) -> None:
    for name in ("One", "Two"):
        folder = tmp_path / f"with_{name}"
        status, out, _ = run("copy", name, folder)
        assert status == 0
        assert set(tree(folder)) == {"__init__.py", "_shared.py", f"{name.lower()}.py"}
        assert (folder / "_shared.py").read_bytes() == (sharing / "queues/_shared.py").read_bytes()
        assert "queues/_shared 1.0.0 (2026-11-23)" in out
        import_isolated(f"from with_{name}.{name.lower()} import {name}", tmp_path)
    assert run("copy", "one", tmp_path / "with_Two")[0] == 0  # the part is there already


@pytest.mark.parametrize(
    "name", ["_shared", "_shared.py", "queues/_shared", "reference_impl.queues._shared"]
)
@pytest.mark.parametrize("command", ["copy", "show"])
def test_a_part_cannot_be_copied_alone(
    run: Run, sharing: Path, tmp_path: Path, command: str, name: str
) -> None:
    folder = tmp_path / "new"
    status, out, err = run(command, name, *([folder] if command == "copy" else []))
    assert (status, out) == (2, "")
    assert "_shared is a part of components: it is copied with Two or One" in err
    assert not folder.exists()


def test_a_part_defines_no_name_to_ask_for(run: Run, sharing: Path) -> None:
    status, _, err = run("show", "Shared")
    assert status == 2
    assert "there is no component 'Shared'" in err


def test_check_knows_a_part_by_its_address(run: Run, sharing: Path, tmp_path: Path) -> None:
    assert run("copy", "two", tmp_path / "new")[0] == 0
    status, out, _ = run("check", tmp_path / "new")
    assert status == 0
    assert "_shared.py: vetted: queues/_shared 1.0.0 (2026-11-23)" in out
    assert "two.py: vetted: queues/two 1.0.0" in out

    part = tmp_path / "new" / "_shared.py"
    data = part.read_bytes()
    part.write_bytes(OLD)
    status, out, _ = run("check", part)
    assert status == 1
    assert "_shared.py: older: queues/_shared 0.9.0" in out
    part.write_bytes(data.replace(b"return 1", b"return 2"))
    status, out, _ = run("check", part)
    assert status == 1
    assert "_shared.py: modified: from queues/_shared 1.0.0 (2026-11-23), 1 line changed" in out
    assert "+    return 2" in out.splitlines()
    part.write_bytes(data.replace(b"#_shared", b"#_other"))
    status, out, _ = run("check", part)
    assert status == 1
    assert "unknown: there is no queues/_other here" in out


def test_a_part_that_was_changed_stops_the_copy(run: Run, sharing: Path, tmp_path: Path) -> None:
    with (sharing / "queues/_shared.py").open("ab") as file:
        file.write(b"# changed\n")
    clear_caches()
    status, _, err = run("copy", "one", tmp_path / "new")
    assert status == 2
    assert "the package's own queues/_shared.py is not the 1.0.0 that was verified" in err
    assert not (tmp_path / "new").exists()
