"""Addresses are those of SITE_URL, on every page and in the README; and the wheel is offered."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from site_build import hosting, pages
from tests.kit import ROOT


@pytest.fixture(autouse=True)
def _read_again() -> Iterator[None]:
    hosting.base.cache_clear()
    yield
    hosting.base.cache_clear()


@pytest.mark.parametrize("url", ["https://host.test/some/where/", "https://host.test/some/where"])
def test_addresses_are_where_the_site_will_be(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_URL", url)
    wheel = f"https://host.test/some/where/{hosting.wheel_name()}"
    assert hosting.addresses() == {
        "site": "https://host.test/some/where/",
        "wheel": wheel,
        "proving": f"executable-guarantees[prove] @ {wheel}",
    }
    for path, template in hosting.rendered().items():
        text = pages._JINJA.get_template(template).render(hosting.addresses())
        assert wheel in text, path
        assert "https://executable-guarantees.example" not in text, path


def commands(text: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith(("uvx ", "curl ", "pipx "))}


def test_the_readme_has_the_lines_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    """A README is not rendered: its addresses are those of a build without SITE_URL."""
    monkeypatch.delenv("SITE_URL", raising=False)
    rendered = pages._JINJA.get_template("copying.inc.j2").render(hosting.addresses())
    shown = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(shown) == 3
    assert shown <= commands(rendered)


def test_a_component_below_its_family_is_proved_there() -> None:
    shown = pages._file("queues/async_pending_queue")
    assert shown["copy"] == "vendored/queues/async_pending_queue.py"
    assert pages._file("caches/ttl_cache")["copy"] == "vendored/ttl_cache.py"


def test_what_promises_nothing_is_not_proved() -> None:
    text = pages._JINJA.get_template("copy.md.j2").render(pages._file("buses/event"))
    assert " executable-guarantees copy event vendored\n" in text
    assert " prove " not in text


def test_the_wheel_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "executable_guarantees-0.0.1-py3-none-any.whl").touch()
    wheel = hosting.offer_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == [wheel]
    assert wheel.name == hosting.wheel_name()


def test_a_wheel_of_another_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "wheel_name", lambda: "another.whl")
    with pytest.raises(FileNotFoundError, match=r"another\.whl"):
        hosting.offer_wheel(tmp_path)
