"""Images from recipes."""
