"""What is tried on the program and the machine themselves: the gate, the tutorial's tables, the machine's pitfalls."""
