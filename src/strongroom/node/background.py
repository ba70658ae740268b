"""A value that is being computed in a thread of its own. (`concurrent.futures` takes longer to load.)"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")


class Later(Generic[_T]):
    """Starts `work` at once. `result` waits for it, and returns or raises what `work` did; any thread may ask."""

    def __init__(self, work: Callable[[], _T]) -> None:
        self._work = work
        self._value: list[_T] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="later", daemon=True)
        self._thread.start()

    def result(self) -> _T:
        """What `work` returned, or its exception."""
        self.wait()
        if self._failure is not None:
            raise self._failure
        return self._value[0]

    def wait(self) -> None:
        """Wait until `work` has ended, however it ends."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._value.append(self._work())
        except BaseException as cause:  # noqa: BLE001 - raised again where the result is asked for
            self._failure = cause
