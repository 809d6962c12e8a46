"""A separate process for every row, so that peak memory is that of the row, and failures do not affect other rows."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cmer.errors import UserError
from cmer.profiling.spec import ProfileRow, ProfileSpec


class Worker:
    """The parent's side: starts the process, sends it requests and ends it.

    The parent itself imports no torch, so that workers start quickly and the parent uses no GPU memory.
    """

    def __init__(self, spec: ProfileSpec, row: ProfileRow) -> None:
        self.row, self.what = row, f"{row.run} on {spec.name}"
        context = multiprocessing.get_context("spawn")  # neither CUDA nor torch's threads survive a fork
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, spec, row), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        """Call the method `name` of the process's `Bench` and return its result.

        Raises:
            UserError: the call failed, or the process ended.
        """
        try:
            with suppress(ConnectionError):  # a process that has ended may have left a message
                self.connection.send((name, arguments))
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            raise UserError(f"profiling {self.what} failed: {self._end()}") from None
        if isinstance(answer, UserError):
            raise UserError(f"profiling {self.what} failed: {answer}")
        return answer

    def _end(self) -> str:
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"its process ended with exit status {code}; see its message above"
        name = signal.Signals(-code).name
        return f"its process was killed by {name}, usually for lack of memory; try smaller batches, or count_only"

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def serve(connection: Connection, spec: ProfileSpec, row: ProfileRow) -> None:
    """The process's side: serves requests until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is sent to all processes, but the parent ends this one
    from cmer.profiling.bench import Bench

    with suppress(EOFError, ConnectionError):  # the parent is gone
        try:
            bench = Bench(spec, row)
            while True:
                name, arguments = connection.recv()
                connection.send(getattr(bench, name)(*arguments))
        except UserError as error:
            connection.send(error)
        except Exception as error:  # out of memory, or a bug
            connection.send(UserError(f"{type(error).__name__}: {error}"))
            raise
