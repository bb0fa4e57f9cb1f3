"""Draws invoices in one process beside this one, so that a paid order never waits for the drawing of another's invoice.

It is started with the first invoice, ends by itself when none is asked for, is started again when it is gone, and gives
way to everything else (``child.py``). What it is told goes through pipes, and it knows none of our secrets.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import structlog

from services.order_service.invoicing.frames import LENGTH_BYTES, MAX_BYTES, as_request
from services.order_service.invoicing.page import as_html
from services.order_service.use_cases.ports import InvoiceNotDrawnInTime, InvoiceRecord
from shared.errors import ServiceUnavailable

log = structlog.get_logger()

CHILD = "services.order_service.invoicing.child"
IDLE_SECONDS = 60.0
"""It takes 80 MB."""

DRAWING_SECONDS = 30.0
"""Of waiting for one invoice, the start of the process included, on a machine that is busy with better things."""

ENDING_SECONDS = 5.0
"""Of waiting for what was killed; it is a moment, unless the machine is in trouble."""

_ROOT = str(Path(__file__).resolve().parents[3])
"""Where the child finds this package, wherever it was started."""


class InvoiceNotDrawn(Exception):
    """This invoice cannot be drawn: a bug that it shows."""


class InvoiceProcess:
    """Satisfies InvoiceRenderer."""

    def __init__(self, *, idle_seconds: float = IDLE_SECONDS, drawing_seconds: float = DRAWING_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._drawing_seconds = drawing_seconds
        self._one_at_a_time = asyncio.Lock()
        self._child: asyncio.subprocess.Process | None = None
        self._has_answered = False
        """The child that runs now, at least once."""

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        is_running = self._child is not None and self._child.returncode is None
        return self._child.pid if self._child is not None and is_running else None

    async def as_pdf(self, record: InvoiceRecord) -> bytes:
        """Raises InvoiceNotDrawn; InvoiceNotDrawnInTime; ServiceUnavailable: the process does not answer, try again."""
        request, answer = as_request(record), None
        async with self._one_at_a_time:
            for _ in range(2):  # it may have ended for want of work a moment ago
                answer = await self._answer(request)
                if answer is not None:
                    break
        if answer is None:
            raise ServiceUnavailable("The invoice could not be drawn just now.", retry_after_seconds=5)
        if not answer:
            raise InvoiceNotDrawn(record.label)
        return answer

    def as_html(self, record: InvoiceRecord) -> str:
        return as_html(record)

    async def close(self) -> None:
        async with self._one_at_a_time:
            await self._end()

    async def _answer(self, request: bytes) -> bytes | None:
        """Empty: it cannot be drawn; None: the process was gone. One that owes an answer is never asked again.

        Raises InvoiceNotDrawnInTime.
        """
        is_answered = False
        try:
            async with asyncio.timeout(self._drawing_seconds):
                answer = await self._ask(request)
            is_answered = self._has_answered = True
        except TimeoutError:
            log.warning("invoice_not_drawn_in_time", seconds=self._drawing_seconds)
            raise InvoiceNotDrawnInTime(retry_after_seconds=5) from None
        except (OSError, EOFError) as error:
            if self._has_answered:
                log.warning("invoice_process_gone", error=type(error).__name__)
            else:  # whatever is wrong with it is wrong with the next one, too
                log.error("invoice_process_does_not_work", error=type(error).__name__)
            return None
        finally:
            if not is_answered:
                await asyncio.shield(self._end())
        return answer

    async def _ask(self, request: bytes) -> bytes:
        if self.pid is None:
            await self._end()
            self._has_answered = False
            self._child = await self._started()
        child = self._child
        assert child is not None, "it was started above"
        assert child.stdin is not None, "it was started with pipes"
        assert child.stdout is not None, "it was started with pipes"
        child.stdin.write(request)
        await child.stdin.drain()
        size = int.from_bytes(await child.stdout.readexactly(LENGTH_BYTES), "big")
        if size > MAX_BYTES:
            raise OSError("that is no answer")
        return await child.stdout.readexactly(size)

    async def _started(self) -> asyncio.subprocess.Process:
        paths = (_ROOT, os.environ.get("PYTHONPATH", ""))
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            CHILD,
            str(self._idle_seconds),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,  # what libraries warn of may repeat a name
            cwd="/",
            env={"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"},
            start_new_session=True,  # Ctrl-C is ours to decide about
        )

    async def _end(self) -> None:
        """With the drawing that it has forked. Takes what is left in its pipe, so that the transport closes, and its
        status, so that no zombie stays."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode != 0:  # one that ended by itself has seen its drawings out
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)  # it leads its session
        assert child.stdin is not None, "it was started with pipes"
        child.stdin.close()
        try:
            async with asyncio.timeout(ENDING_SECONDS):
                while child.stdout is not None and await child.stdout.read(1 << 16):
                    pass
                await child.wait()
        except TimeoutError:
            log.error("invoice_process_does_not_end", pid=child.pid)
