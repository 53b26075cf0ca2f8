"""Commands that package the model and create, update, invoke and delete SageMaker endpoints."""
