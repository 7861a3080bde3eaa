"""Latency of the model and of its artifacts, measured in new processes.

`calls.py` chooses sizes, `measure.py` leads through the rounds, `artifact.py` and `eager.py` run in the processes of the
contenders, and `clock.py` times their calls.
"""

from hfexport.validation.speed.measure import BUDGET_S, EAGER, ROUNDS, Contender, Result, Setting, Speed, measure_speed

__all__ = ["BUDGET_S", "EAGER", "ROUNDS", "Contender", "Result", "Setting", "Speed", "measure_speed"]
