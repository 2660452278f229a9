"""The wire: what daemon and clients say to each other. Pure, and usable without the daemon."""
