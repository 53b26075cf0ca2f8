"""What every HTTP port shares: authentication, request bodies, responses, errors, metrics, TLS."""
