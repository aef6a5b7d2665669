"""The child process of one trial: it builds, times and trains one model. Nothing outside this folder imports it."""
