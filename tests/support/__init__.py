"""What the tests share: the ledger, the explorers, the broken twins, subprocesses."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ROOT / "reference_impl"
