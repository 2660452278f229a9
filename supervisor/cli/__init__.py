"""The command line: bakehouse, a client like any other."""
