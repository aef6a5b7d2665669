"""How images reach a step: the pipelines, all fed by one source of order."""
