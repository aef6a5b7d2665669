"""The tutorial's experiments, measured beside published: what is run, how it is judged, and the page and plot of it.

Accuracies here are in percent, as published; differences are in percentage points (pp). Epochs count from 0, as in the
tutorial.
"""
