"""Checks of a container against SageMaker's contract, and of an endpoint and what belongs to it on AWS."""
