"""What all trainings share: run state and weight files."""
