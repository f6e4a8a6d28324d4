"""Evaluation: benchmarks as tasks, `run.evaluate`, pairs for judges and reward models."""
