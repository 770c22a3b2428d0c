"""Pairs: write an instruction for each page, rate the pair, and see what it asks for."""
