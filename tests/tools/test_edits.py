"""The edits that the proofs tell apart: each can be made today, and each breaks something else."""

import re

import pytest

from tests.edits import run
from tests.edits.tables import EDITS, PROVED_AS
from tests.kit import COMPONENTS, catalogue

FAMILIES_WITH_PARTS = {path.partition("/")[0] for path in catalogue.parts()}


@pytest.mark.parametrize("component", EDITS)
def test_each_can_be_made(component: str) -> None:
    closure = catalogue.closure(PROVED_AS.get(component, component))
    for edit in EDITS[component]:
        path = COMPONENTS / f"{edit.file or component}.py"
        assert path in closure, f"{edit.name}: {edit.file} is not copied with it"
        source = path.read_text(encoding="utf-8")
        changed = edit.applied(source)
        assert changed != source
        compile(changed, str(path), "exec")


@pytest.mark.parametrize("component", EDITS)
def test_their_guarantees_are_promised(component: str) -> None:
    for edit in EDITS[component]:
        assert edit.broken | edit.tolerated <= run.proved(component), edit.name
        assert not edit.broken & edit.tolerated, edit.name
        assert re.fullmatch(r"[a-z].*[^.]", edit.name), "it completes 'the copy that …'"


def test_every_component_has_edits() -> None:
    assert sorted(EDITS) == catalogue.components()


@pytest.mark.parametrize("component", EDITS)
def test_they_are_told_apart(component: str) -> None:
    edits = [edit for edit in EDITS[component] if not edit.is_harmless]
    assert len(edits) >= 6
    assert len({edit.name for edit in EDITS[component]}) == len(EDITS[component])
    assert len(run.told_apart(component)) >= 6
    assert len(edits) < len(EDITS[component]), "and what is harmless breaks nothing"


@pytest.mark.parametrize("family", sorted({name.partition("/")[0] for name in EDITS}))
def test_parts_and_siblings_are_edited_too(family: str) -> None:
    edited = {
        edit.file
        for component, edits in EDITS.items()
        if component.startswith(f"{family}/")
        for edit in edits
    }
    assert edited - {""}
    if family in FAMILIES_WITH_PARTS:
        assert edited & set(catalogue.parts())
