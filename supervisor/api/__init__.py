"""How others speak to us: HTTP, the routes, and what a refusal looks like."""
