"""Settings of every test: programs are compiled quickly rather than well."""

from __future__ import annotations

import os

# Before JAX is imported. Tests compile hundreds of programs and run each for moments.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
