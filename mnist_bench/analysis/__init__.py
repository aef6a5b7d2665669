"""What is read off trials and sessions: pure arithmetic."""
