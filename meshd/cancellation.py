"""Being told to end goes before every failure."""

import asyncio


def heed_cancellation() -> None:
    """Raises CancelledError if the current task was told to end. For where the failure of a TaskGroup is caught and
    another try follows: until Python 3.13 (gh-116720) a group of which a task fails at the moment when it is cancelled
    from outside raises the failure only, and the task would live for ever.

    Not for groups whose block ends before their tasks: with these, until then, a task that fails looks like a
    cancellation from outside for ever after.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
