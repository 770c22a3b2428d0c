"""What a run will take: `xl plan`.

Read `command.py` first. `calibration.py` reads what a small run of the same stages measured, `estimate.py` carries it to more pages,
`cluster.py` and `prices.py` say what nodes there are and what they cost, `simulate.py` plays the run through on them. `scale.py` asks
all of it about 1,000 GPUs and 1e9 pages (`cluster/SCALE.md`).
"""
