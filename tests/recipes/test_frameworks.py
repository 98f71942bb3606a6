"""The apps of the cache recipes, in their frameworks, beside what the copy tool wrote."""

import asyncio
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from reference_impl.__main__ import main
from tests.kit.fakes import AsyncGate, Beside, Gate, run, turns, until
from tests.recipes.__main__ import GUIDES, copying

APPS = GUIDES / "recipes"
REQUESTS = 12


@pytest.fixture
def load_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Does what the file's docstring tells its reader, and imports it."""

    def load(name: str) -> ModuleType:
        shutil.copy(APPS / f"{name}.py", tmp_path)
        command = copying(APPS / f"{name}.py")
        command[-1] = str(tmp_path / command[-1])
        assert main(command) == 0
        monkeypatch.syspath_prepend(tmp_path)
        for module in [each for each in sys.modules if each.split(".")[0] in {name, "vendored"}]:
            monkeypatch.delitem(sys.modules, module)
        app = importlib.import_module(name)
        assert Path(str(sys.modules["vendored"].__path__[0])).parent == tmp_path
        return app

    return load


def test_flask_threads_that_miss_share_one_load(load_app: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("flask", reason="the recipes' frameworks are not installed")
    module = load_app("flask_app")
    gate = Gate()

    def fetch(report_id: str) -> Any:
        gate(report_id)
        return module.Report(report_id, "passed")

    app = module.create_app(fetch)

    def ask() -> Any:
        return app.test_client().get("/reports/unit-7")

    asking = [Beside(ask)]
    gate.await_entered()
    asking += [Beside(ask) for _ in range(REQUESTS - 1)]
    client = app.test_client()
    while client.get("/cache").json["misses"] < REQUESTS:  # each has asked; none is answered
        pass
    gate.open()
    answers = [each.result() for each in asking]
    assert [answer.json for answer in answers] == [{"id": "unit-7", "verdict": "passed"}] * REQUESTS
    assert gate.seen == ["unit-7"]

    assert ask().json == {"id": "unit-7", "verdict": "passed"}
    assert client.get("/cache").json["hits"] == 1
    assert client.delete("/cache/unit-7").json == {"removed": True}
    ask()
    assert gate.seen == ["unit-7", "unit-7"]


def test_flask_says_404_and_asks_again(load_app: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("flask", reason="the recipes' frameworks are not installed")
    module = load_app("flask_app")
    answers = iter([LookupError("not yet"), module.Report("unit-7", "passed")])

    def fetch(report_id: str) -> Any:
        if isinstance(answer := next(answers), LookupError):
            raise answer
        return answer

    client = module.create_app(fetch).test_client()
    assert client.get("/reports/unit-7").status_code == 404
    assert client.get("/reports/unit-7").json == {"id": "unit-7", "verdict": "passed"}
    assert module.create_app().test_client().get("/reports/other").status_code == 200


def test_fastapi_requests_that_miss_share_one_load(
    load_app: Callable[[str], ModuleType],
) -> None:
    pytest.importorskip("fastapi", reason="the recipes' frameworks are not installed")
    httpx = pytest.importorskip("httpx", reason="the recipes' frameworks are not installed")
    module = load_app("fastapi_app")

    async def main() -> None:
        gate = AsyncGate()

        async def fetch(report_id: str) -> Any:
            await gate(report_id)
            if report_id == "none":
                raise LookupError(report_id)
            return module.Report(report_id, "passed")

        app = module.create_app(fetch)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):

            async def misses() -> int:
                return int((await client.get("/cache")).json()["misses"])

            asking = asyncio.gather(*(client.get("/reports/unit-7") for _ in range(REQUESTS)))
            while await misses() < REQUESTS:  # each has asked; none is answered
                await turns(1)
            gate.open()
            answers = [answer.json() for answer in await asking]
            assert answers == [{"id": "unit-7", "verdict": "passed"}] * REQUESTS
            assert gate.started == ["unit-7"]

            assert (await client.get("/reports/unit-7")).json() == answers[0]
            assert (await client.get("/cache")).json()["hits"] == 1
            assert (await client.delete("/cache/unit-7")).json() == {"removed": True}
            assert (await client.get("/reports/none")).status_code == 404
            await client.get("/reports/unit-7")
            assert gate.started == ["unit-7", "none", "unit-7"]
        await until(lambda: len(asyncio.all_tasks()) == 1)  # nothing of the app's is left

    run(main())


def test_a_fastapi_client_that_leaves_does_not_take_the_load_along(
    load_app: Callable[[str], ModuleType],
) -> None:
    pytest.importorskip("fastapi", reason="the recipes' frameworks are not installed")
    httpx = pytest.importorskip("httpx", reason="the recipes' frameworks are not installed")
    module = load_app("fastapi_app")

    async def main() -> None:
        gate = AsyncGate()

        async def fetch(report_id: str) -> Any:
            await gate(report_id)
            return module.Report(report_id, "passed")

        app = module.create_app(fetch)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            leaves = asyncio.ensure_future(client.get("/reports/unit-7"))
            await until(lambda: gate.started)
            stays = asyncio.ensure_future(client.get("/reports/unit-7"))
            while (await client.get("/cache")).json()["misses"] < 2:
                await turns(1)
            leaves.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaves
            gate.open()
            assert (await stays).json() == {"id": "unit-7", "verdict": "passed"}
            assert gate.started == gate.ended == ["unit-7"]

    run(main())
