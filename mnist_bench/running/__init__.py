"""A run: workers in processes of their own, sessions, groups, and what becomes of their results."""
