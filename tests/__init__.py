"""The proofs. A copy that is to be proved is bound before any of them, in child processes too."""

from tests.kit import copies

copies.install()
