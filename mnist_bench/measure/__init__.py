"""What a worker measures of itself."""
