"""The composition function: RunFunctionRequest in, RunFunctionResponse out, and nothing else."""
