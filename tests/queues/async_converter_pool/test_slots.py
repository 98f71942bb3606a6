"""The most urgent first, and a slot before the choice (CP-2)."""

from pathlib import Path
from types import ModuleType

import pytest

import reference_impl.queues.async_converter_pool as ours
from tests.kit.fakes import turns
from tests.kit.proofs import Proof, each_proof, each_twin
from tests.kit.twins import Twin
from tests.queues.async_converter_pool import faults
from tests.queues.async_converter_pool.helpers import COMPONENT, Site, looped, run, told, until


@looped
async def check_urgent(module: ModuleType, root: Path) -> None:
    """One urgent file behind three hundred others runs next."""
    site, urgent = Site(root), Site(root, "urgent")
    many = [f"{number:03}.csv" for number in range(300)]
    held = site.hold(*many)
    for name in many:
        site.drop(name, name)
    converters = [site.converter(module), urgent.converter(module, priority=1)]
    async with site.running(module, converters=converters, max_concurrency=1) as pool:

        def noticed() -> int:
            return int(pool.stats.waiting + pool.stats.running)

        await until(lambda: noticed() >= 65)
        urgent.drop("now.csv", "!")
        await until(lambda: noticed() >= 66 and site.started)
        assert len(site.started) == 1
        held.set()
        await until(lambda: len(site.submitted) == 301)
    assert site.submitted.index("!") == 1, "others were chosen before the urgent one"


@looped
async def check_slots(module: ModuleType, root: Path) -> None:
    """Fifty conversions run at once, and never fifty-one."""
    site = Site(root)
    names = [f"{number}.csv" for number in range(60)]
    held = site.hold(*names)
    async with site.running(module, max_concurrency=50) as pool:
        for name in names:
            site.drop(name, name)
        await until(lambda: pool.stats.running + pool.stats.waiting == 60)
        assert pool.stats.running == 50
        await until(lambda: len(site.started) == 50)
        held.set()
        await until(lambda: len(site.submitted) == 60)


PROOFS = [
    Proof(
        "CP-2",
        check_urgent,
        [
            Twin(
                "chooses files before there is a slot",
                faults.chooses_early(),
                "AssertionError: others were chosen before the urgent one",
            ),
            Twin(
                "chooses the least urgent",
                faults.urgent_last(),
                "AssertionError: others were chosen before the urgent one",
            ),
        ],
    ),
    Proof(
        "CP-2",
        check_slots,
        [
            Twin(
                "has one slot more",
                faults.one_slot_more(),
                "AssertionError: pool.stats.running == 50",
            )
        ],
    ),
]


@each_proof(PROOFS)
def test_the_most_urgent_comes_next_and_so_many_run_at_once(proof: Proof, tmp_path: Path) -> None:
    proof.hold(ours, tmp_path)


@each_twin(PROOFS)
def test_a_choice_that_is_wrong_is_caught(proof: Proof, twin: Twin, tmp_path: Path) -> None:
    proof.must_fail(twin, COMPONENT, tmp_path)


@pytest.mark.guarantee("CP-2")
def test_equals_take_turns(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        one, other = Site(root, "one"), Site(root, "other")
        held = one.hold("0.csv")
        converters = [one.converter(module), other.converter(module)]
        async with one.running(module, converters=converters, max_concurrency=1) as pool:
            one.drop("0.csv", "held")
            await until(lambda: pool.stats.running)
            for site in (one, other):
                for number in range(1, 4):
                    site.drop(f"{number}.csv", f"{site.name} {number}")
            await until(lambda: pool.stats.waiting == 6)
            held.set()
            await until(lambda: len(one.submitted) == 7)
        in_turn = [f"{name} {number}" for number in range(1, 4) for name in ("other", "one")]
        assert one.submitted[1:] == in_turn  # and each converter's in the order that they came

    run(main, ours, tmp_path)


def test_four_run_at_once_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        names = [f"{number}.csv" for number in range(6)]
        site.hold(*names)
        async with site.running(module) as pool:
            for name in names:
                site.drop(name, name)
            await until(lambda: pool.stats.running + pool.stats.waiting == 6)
            assert pool.stats.running == 4

    run(main, ours, tmp_path)


@pytest.mark.parametrize(("slots", "ahead"), [(1, 64), (70, 70)])
def test_no_more_is_drawn_from_a_watch_than_the_slots_need(
    slots: int, ahead: int, tmp_path: Path
) -> None:
    """What is in a line costs memory, a million files would."""

    async def main(module: ModuleType, root: Path) -> None:
        site = Site(root)
        names = [f"{number:03}.csv" for number in range(200)]
        held = site.hold(*names)
        for name in names:
            site.drop(name, name)
        with told(module):
            async with site.running(module, max_concurrency=slots) as pool:
                await until(lambda: pool.stats.waiting >= ahead)
                await turns()
                assert (pool.stats.running, pool.stats.waiting) == (slots, ahead)
                held.set()
                await until(lambda: len(site.submitted) == 200)

    run(main, ours, tmp_path)
