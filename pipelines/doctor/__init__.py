"""What fails later is found today: checks before a long run, and what the run will take.

`checks.py` runs the checks, each in a time of its own; `software.py`, `weights.py`, `inputs.py`
and `machine.py` hold them. `corpus.py` counts the catalog, `rates.py` has the measured costs,
`plan.py` makes the estimate of both.
"""
