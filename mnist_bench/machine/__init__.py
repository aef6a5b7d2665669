"""What this machine is, what else it does while we measure, and how long it will take. Without torch."""
