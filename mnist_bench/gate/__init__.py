"""The gate: samples of two sides -> evidence -> a verdict per cell. Pure: no I/O, no clock, no random state.

A is the reference, B the change. Ratios are B / A of seconds per step: above 1, the change is slower.
"""
