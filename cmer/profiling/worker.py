"""A process of its own for every row: peaks of memory are the process's, and a row that fails leaves no trace."""

from __future__ import annotations

import multiprocessing
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cmer.errors import UserError
from cmer.profiling.spec import ProfileRow, ProfileSpec


class Worker:
    """The parent's end: starts the process, asks it, ends it.

    The parent itself imports no torch, so that the workers start at once and it holds no memory of a GPU.
    """

    def __init__(self, spec: ProfileSpec, row: ProfileRow) -> None:
        self.row, self.what = row, f"{row.run} on {spec.name}"
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork, nor do torch's threads
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, spec, row), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, name: str, *arguments: Any) -> Any:
        """What the method `name` of the process's `Bench` returns.

        Raises:
            UserError: it failed, or the process ended.
        """
        try:
            with suppress(ConnectionError):  # it may have ended, and left a word
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
            return f"its process ended with exit status {code}; its own message stands above"
        name = signal.Signals(-code).name
        return f"its process was ended by {name}, most often for lack of memory; try smaller batches or count only"

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join()
        self.connection.close()


def serve(connection: Connection, spec: ProfileSpec, row: ProfileRow) -> None:
    """The process's end: answers until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    from cmer.profiling.bench import Bench

    with suppress(EOFError, ConnectionError):  # the parent is gone
        try:
            bench = Bench(spec, row)
            while True:
                name, arguments = connection.recv()
                connection.send(getattr(bench, name)(*arguments))
        except UserError as error:
            connection.send(error)
        except Exception as error:  # lack of memory, or a mistake of ours
            connection.send(UserError(f"{type(error).__name__}: {error}"))
            raise
