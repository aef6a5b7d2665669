"""Proofs of the harness's own bars, and benchmarks of its parts (README.md here). Not part of the package."""
