"""What in a home is not what its migration files make of it, and putting it back: a step of maintenance (`check`)."""
