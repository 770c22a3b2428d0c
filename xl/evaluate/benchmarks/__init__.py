"""Benchmarks, one file each, opening with its paper: with right answers, and open-ended. `task` says what all of them are."""
