"""What the Jobs run: prepares a backend for one Memory. Knows nothing of the function but the request document."""

# Stands in every row of a home's migration history.
__version__ = "0.1.0"
