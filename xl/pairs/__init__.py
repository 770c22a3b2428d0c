"""Pairs: write the instruction that a page answers, rate it, and choose the dataset."""
