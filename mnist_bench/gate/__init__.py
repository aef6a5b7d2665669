"""The gate: samples of two sides -> evidence -> a verdict per cell. What judges is pure.

A is the reference, B the change. Ratios are B / A of seconds per step: above 1, the change is slower.
"""
