"""Bakehouse: a container engine for hosts that many people share."""
