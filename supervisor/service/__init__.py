"""The daemon as a service: what its service manager is told of it."""
