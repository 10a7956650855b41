"""The data plane: takes a client's request, sends it to its tenant's upstream with a token, streams the answer."""
