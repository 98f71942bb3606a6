"""What proofs are written with: explorers, broken twins, fakes, subprocesses, the ledger."""

from pathlib import Path

import reference_impl

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = Path(reference_impl.__file__).resolve().parent  # beside the proofs, or installed
