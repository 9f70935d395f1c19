"""Training runs that show what talking heads are worth: pre-training, transfer, their comparison."""
