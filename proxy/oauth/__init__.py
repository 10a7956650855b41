"""The token plane: asks token endpoints, keeps one token per client, and refreshes it ahead of expiry."""
