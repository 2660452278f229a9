"""What runs: containers, their keepers, and everything attached to them."""
