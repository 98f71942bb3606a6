"""Where CPython 3.12 and 3.13 can leave a `with` or `try` without its clean-up being run.

A signal handler may run at the jump with which a loop goes back to its start. The compilers of
both leave some of these jumps out of the exception table: that of `while condition`, and that of
a `for` or a comprehension whose last statement is an `if`. On 3.13 what the handler raises there
passes by the `with` or `try` that the loop is directly in: no `__exit__`, `except` or `finally`
sees it. 3.12 looks for signals once it has jumped, and takes what is before the loop's start for
the place: that is rarely outside, as where a `try` begins with a `while True` that has a
`continue`. A function of its own for the loop closes the hole.

`python -m tests.kit.jumps FILE…` names the functions of files that have such a jump.
"""

import dis
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any

# The one that looks for signals; JUMP_BACKWARD_NO_INTERRUPT, of `await`, does not.
_JUMP = "JUMP_BACKWARD"
# What except, finally and with begin their clean-up with; other handlers restore the stack.
_CLEANUP = "PUSH_EXC_INFO"
# After these comes something else, or the end of an `await` that was thrown into: no loop.
_NO_WAY_ON = {
    *("JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_BACKWARD_NO_INTERRUPT"),
    *("RAISE_VARARGS", "RERAISE", "RETURN_VALUE", "RETURN_CONST"),
    "CLEANUP_THROW",
}


@dataclass(frozen=True)
class Hole:
    """A jump that the clean-up around it does not cover."""

    function: str  # its qualified name
    line: int  # of the loop's start, where it jumps to


def holes(code: CodeType) -> Iterator[Hole]:
    """The holes of a module's or a function's code, and of the functions that it defines."""
    yield from _own_holes(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from holes(constant)


def holes_of_file(path: Path) -> list[Hole]:
    """The holes of a file, as this interpreter compiles it."""
    return list(holes(compile(path.read_text(encoding="utf-8"), str(path), "exec")))


def _own_holes(code: CodeType) -> Iterator[Hole]:
    instructions = [each for each in dis.get_instructions(code) if each.opname != "EXTENDED_ARG"]
    cleanups = {each.offset for each in instructions if each.opname == _CLEANUP}
    around = _Around(_handlers(code), cleanups)
    for number, jump in enumerate(instructions):
        if jump.opname == _JUMP:
            start = around.start(instructions, jump.argval)
            # 3.12 looks for signals once it has jumped, with the offset before the loop's start.
            after = sys.version_info < (3, 13)
            covering = around.at(jump.argval - 2 if after else jump.offset)
            for before in _before(instructions, number, around):
                # The loop is in all that both its start and its end are in.
                passed = [cleanup for cleanup in around.at(before) if cleanup in start]
                if passed and passed[0] not in covering:
                    yield Hole(code.co_qualname, _line(instructions, jump.argval))
                    break


@dataclass
class _Around:
    """The clean-ups that an exception at an offset comes through, from the inside out."""

    handlers: dict[int, int]
    cleanups: set[int]

    def at(self, offset: int) -> list[int]:
        """What covers the offset; what covers the start of a clean-up is around that."""
        found = list[int]()
        seen = set[int]()
        while (handler := self.handlers.get(offset)) is not None and handler not in seen:
            seen.add(handler)
            if handler in self.cleanups:
                found.append(handler)
            offset = handler
        return found

    def start(self, instructions: list[dis.Instruction], offset: int) -> list[int]:
        """What covers the start of a loop; a `try` there begins with a NOP that nothing covers."""
        first = next(each for each in instructions if each.offset >= offset)
        if first.opname != "NOP" or first.offset in self.handlers:
            return self.at(first.offset)
        behind = next(
            each.offset for each in instructions if each.offset > offset and each.opname != "NOP"
        )
        before = {cleanup for each in range(0, offset, 2) for cleanup in self.at(each)}
        return [cleanup for cleanup in self.at(behind) if cleanup in before]


def _handlers(code: CodeType) -> dict[int, int]:
    """Where an exception at each offset goes to."""
    entries: list[Any] = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    return {
        offset: entry.target for entry in entries for offset in range(entry.start, entry.end, 2)
    }


def _before(instructions: list[dis.Instruction], number: int, around: _Around) -> Iterator[int]:
    """The offsets of the instructions from which one comes to this one."""
    last = number - 1
    # The condition that the compiler turned round is as uncovered as the jump.
    while (
        last > 0
        and "POP_JUMP_IF" in instructions[last].opname
        and not around.at(instructions[last].offset)
    ):
        last -= 1
    if last >= 0 and instructions[last].opname not in _NO_WAY_ON:
        yield instructions[last].offset
    # A jump may lead to the EXTENDED_ARG before it.
    first = instructions[number - 1].offset if number else -1
    for each in instructions:
        if "JUMP" in each.opname and first < each.argval <= instructions[number].offset:
            yield each.offset


def _line(instructions: list[dis.Instruction], offset: int) -> int:
    """The line of the first instruction from an offset on that has one."""
    found = (each.positions for each in instructions if each.offset >= offset)
    return next(each.lineno for each in found if each and each.lineno)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        for hole in dict.fromkeys(holes_of_file(Path(name))):
            print(f"{name}:{hole.line}: {hole.function}")
