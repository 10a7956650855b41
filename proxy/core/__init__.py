"""Decisions without I/O: every function here is a plain function of its arguments, the time included."""
