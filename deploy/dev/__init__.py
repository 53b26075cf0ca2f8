"""`viseme dev`: a local stand-in for an AWS account with the stack of `infra/` and an endpoint, over moto."""
