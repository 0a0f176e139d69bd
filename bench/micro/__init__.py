"""Micro-benchmarks of the compiled parts: ``python -m pytest bench/micro --benchmark-only``."""
