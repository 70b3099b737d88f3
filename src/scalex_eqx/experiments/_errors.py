class UsageError(ValueError):
    """A mistake in what was asked for: the command line prints it in one line and exits with 2.

    The message names the offending thing, what was expected and the remedy.
    """
