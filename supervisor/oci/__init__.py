"""What the OCI specifications define; pure."""
