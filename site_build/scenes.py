"""The section *See it break* of each page: what diagrams.inc holds, from the recorded traces."""

import html
import json

from site_build import lab, sequence
from tests.kit.catalogue import components
from tests.scenes import Scene, scenes

_NONE = "No losing schedule is recorded yet."
_LEAD = "{what}, and the steps in which the search saw it fail."


def render() -> str:
    """A section for each component and small file, and one for each scene."""
    found = [scene for scene in scenes().values() if scene.page]
    sections = {component.rpartition("/")[2]: _NONE for component in components()}
    for name in dict.fromkeys(scene.of for scene in scenes().values()):
        sections[name] = _together([scene for scene in found if scene.of == name], name)
    sections |= {scene.id: figure(scene) for scene in found}
    return "".join(
        f"<!-- --8<-- [start:{name}] -->\n{text}\n<!-- --8<-- [end:{name}] -->\n\n"
        for name, text in sections.items()
    )


def of_guarantee(identifier: str) -> list[str]:
    """The figures of all scenes that are about one guarantee."""
    return [figure(scene) for scene in scenes().values() if scene.guarantee == identifier]


def figure(scene: Scene) -> str:
    """One scene, as it was recorded."""
    if not scene.trace.is_file():
        raise SystemExit(f"{scene.id} is not recorded: run `python -m tests.scenes {scene.id}`")
    return sequence.draw(json.loads(scene.trace.read_text(encoding="utf-8")))


def _together(shown: list[Scene], name: str) -> str:
    """The first scene as it is, the others folded, so that a page stays calm; then the lab."""
    first, others = shown[:1], shown[1:]
    what = "A copy of this file with one deliberate fault (a *broken twin*)"
    if others:
        what = "Copies of this file with one deliberate fault each (*broken twins*)"
    parts = [_LEAD.format(what=what)] if shown and shown[0].component else []
    parts += [*map(figure, first), *map(_folded, others)]
    if any(scene.lab for scene in scenes().values() if scene.of == name):
        parts.append(lab.element(name))
    return "\n\n".join(parts)


def _folded(scene: Scene) -> str:
    summary = f"<summary>{html.escape(scene.title)}</summary>"
    return f'<details class="scene" markdown="0">{summary}\n{figure(scene)}\n</details>'
