"""What the machinery knows of parts: on a made-up project, whether or not this one has any."""

import ast
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reference_impl import queues
from tests.kit import catalogue, renamed, verify
from tests.kit.process import interpret
from tests.kit.twins import Fault, build, edit, override, patch, within
from tests.tools.helpers import sharing_project


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """The made-up sources; their modules can be imported as if they were components."""
    before = set(sys.modules)
    with sharing_project(tmp_path) as found:
        place = str(tmp_path / "reference_impl" / "queues")
        monkeypatch.setattr(queues, "__path__", [*queues.__path__, place])
        yield found
    for name in {name for name in sys.modules if name.startswith("reference_impl.")} - before:
        del sys.modules[name]
        if hasattr(queues, last := name.rpartition(".")[2]):
            delattr(queues, last)


def test_the_catalogue_tells_parts_from_components(sources: dict[str, bytes]) -> None:
    assert catalogue.components() == ["queues/one", "queues/two"]
    assert catalogue.parts() == catalogue.parts_of("queues/one") == ["queues/_shared"]
    assert catalogue.users("queues/_shared") == ["queues/one", "queues/two"]
    assert catalogue.parts_shown("queues/one") == []
    assert catalogue.parts_shown("queues/two") == ["queues/_shared"]


def test_a_part_counts_in_the_digests_of_its_components(sources: dict[str, bytes]) -> None:
    for component in ("queues/one", "queues/two"):
        assert catalogue.digests(component) == {
            f"reference_impl/{path}.py": hashlib.sha256(sources[path]).hexdigest()
            for path in (component, "queues/_shared")
        }
    assert catalogue.all_digests().keys() == {f"reference_impl/{path}.py" for path in sources}


def test_the_doctests_of_a_part_are_of_each_of_its_components(sources: dict[str, bytes]) -> None:
    part = "reference_impl/queues/_shared.py"
    assert catalogue.is_of(part, "queues/one")
    assert catalogue.is_of(part, "queues/two")
    assert not catalogue.is_of("reference_impl/queues/_other.py", "queues/two")
    assert not catalogue.is_of("reference_impl/queues/one.py", "queues/two")


def test_verify_runs_the_doctests_of_parts(
    sources: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = list[list[str]]()

    def call(command: list[str], **_: object) -> int:
        ran.append(command)
        return 0

    monkeypatch.setattr(subprocess, "call", call)
    assert verify.main(["one"]) == 0
    (command,) = ran
    assert {"reference_impl/queues/one.py", "reference_impl/queues/_shared.py"} <= set(command)
    with pytest.raises(ValueError, match="is copied with Two or One; name one or more of one, two"):
        catalogue.select(["reference_impl/queues/_shared.py"])


@pytest.mark.parametrize(
    "fault",
    [
        edit("step", "return 1", "return 2"),
        override("step", lambda original: lambda: original() + 1),
        patch(lambda module: setattr(module.step, "__code__", (lambda: 2).__code__)),
    ],
    ids=["edit", "override", "patch"],
)
def test_a_twin_may_have_its_fault_in_a_part(sources: dict[str, bytes], fault: Fault) -> None:
    broken = build("queues/one", within("queues/_shared", fault))
    sound = build("queues/one")
    assert (broken.step(), sound.step()) == (2, 1)
    assert broken.One.__mro__[1] is not sound.One.__mro__[1]


def test_a_twin_has_the_broken_part_however_it_is_imported(
    sources: dict[str, bytes], tmp_path: Path
) -> None:
    one = tmp_path / "reference_impl" / "queues" / "one.py"
    one.write_text("from . import _shared\nfrom ._shared import step\n")
    broken = build("queues/one", within("queues/_shared", edit("step", "1", "2")))
    sound = build("queues/one")
    assert (broken.step(), broken._shared.step()) == (2, 2)
    assert (sound.step(), sound._shared.step()) == (1, 1)


def test_faults_of_one_sibling_add_up(sources: dict[str, bytes]) -> None:
    """Given apart as well as together."""
    doubled = override("step", lambda original: lambda: 10 * original())
    apart = within("queues/_shared", edit("step", "1", "2")) + within("queues/_shared", doubled)
    assert build("queues/two", apart).step() == 20


@pytest.mark.parametrize(
    "importing", ["from ._shared import step", "from . import _shared\nstep = _shared.step"]
)
def test_a_disfigured_component_has_its_part_beside_it(
    sources: dict[str, bytes], tmp_path: Path, importing: str
) -> None:
    """Also where a private name of the component is the part's."""
    one = tmp_path / "reference_impl" / "queues" / "one.py"
    hides = "\n\nclass One:\n    def __init__(self):\n        self._shared = step\n"
    one.write_text(sources["queues/one"].decode().partition("from ._shared")[0] + importing + hides)
    options = renamed.write(tmp_path / "copy", "queues/one")
    assert [option.partition("=")[0] for option in options] == ["--copy", "--copy"]
    copied = tmp_path / "copy" / "queues"
    assert sorted(path.name for path in copied.iterdir()) == ["__init__.py", "_shared.py", "one.py"]
    assert "_shared" not in {
        node.attr
        for node in ast.walk(ast.parse((copied / "one.py").read_text()))
        if isinstance(node, ast.Attribute)
    }
    done = interpret(
        "-c", "from queues.one import One, step; assert step() == 1", cwd=copied.parent
    )
    assert done.returncode == 0, done.stderr
