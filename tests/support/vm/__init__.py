"""The virtual machine: its image, its snapshots, and how a test speaks to it."""
