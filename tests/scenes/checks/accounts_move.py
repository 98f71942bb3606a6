"""Two transfers in opposite directions: both must end, and no money may be lost."""

from interleave_test import spawn


def model(module):
    ann, bob = module.Account(1, 100), module.Account(2, 100)
    there = spawn(module.move, 10, ann, bob, name="Ann to Bob")
    back = spawn(module.move, 30, bob, ann, name="Bob to Ann")
    there.join()
    back.join()
    assert (ann.balance, bob.balance) == (120, 80), f"{ann.balance} and {bob.balance}"
