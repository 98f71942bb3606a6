"""What proofs are written with: explorers, broken twins, fakes, subprocesses, the ledger."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ROOT / "reference_impl"
