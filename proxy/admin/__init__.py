"""The control plane: health, status and metrics on a port of their own; it decides nothing."""
