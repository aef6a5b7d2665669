"""What a check writes: records to ``check.json`` and back, and to what people and other tools read. Pure."""
