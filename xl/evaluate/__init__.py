"""Judging answers: language, win rates, benchmarks."""
