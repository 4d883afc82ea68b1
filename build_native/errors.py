"""The one error of the build."""


class BuildError(RuntimeError):
    """The build cannot go on; the message says what is missing and what to do."""
