"""A check with its effects: two trees, workers of both by one token, evidence on disk (docs/decisions/0016)."""
