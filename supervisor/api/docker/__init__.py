"""The Docker Engine API: a module per noun, and its JSON put into our records."""
