"""What a person did wrong or has to repair."""


class UserError(Exception):
    """A sentence for the person at the terminal: what is wrong, the value, what to do."""
