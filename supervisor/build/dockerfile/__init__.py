"""Text to typed instructions; pure."""
