"""The gate measured on the user's own machine: how often it alarms at nothing, how often it finds what was put there.

Pure: ``records``, ``instruments``, ``calibration``, ``rates``, ``table``. With effects: ``sessions``, ``labels``,
``conduct``. In the worker alone: ``injected``.
"""
