"""Our own API: the event stream and the monitor."""
