"""The way out of one environment: takes connections from its listener, as many as may be open at once."""

import asyncio
import socket
import time

from sandgate.core.byte_stream import Stream
from sandgate.core.network import NetworkRules
from sandgate.sandbox.proxy.client import Client
from sandgate.sandbox.proxy.entrance import Entrance
from sandgate.sandbox.proxy.gatekeeper import Gatekeeper, Place

# Connections a second of one environment, when it opens nothing but connections.
_MOST_A_SECOND = 200
_BURST = 200
_AFTER_FAILURE_S = 0.1


class Turns:
    """Places for connections at once: of an environment, of its owner, and of all."""

    def __init__(self, *semaphores: asyncio.Semaphore) -> None:
        self._semaphores = semaphores

    async def take(self) -> None:
        """Wait for a place."""
        taken: list[asyncio.Semaphore] = []
        try:
            for semaphore in self._semaphores:
                await semaphore.acquire()
                taken.append(semaphore)
        except BaseException:
            for semaphore in taken:
                semaphore.release()
            raise

    def give_back(self) -> None:
        """Let another one have the place."""
        for semaphore in self._semaphores:
            semaphore.release()


class WayOut:
    """What nobody has taken yet waits in the listener, and then with the code itself: nothing is kept for it here."""

    def __init__(self, place: Place, listener: Entrance, gatekeeper: Gatekeeper, turns: Turns) -> None:
        self.place = place
        self._listener = listener
        self._gatekeeper = gatekeeper
        self._turns = turns
        self._clients: dict[asyncio.Task[None], Client] = {}
        self._tokens = float(_BURST)
        self._filled_at = time.monotonic()
        self._accepting = asyncio.create_task(self._accept_all(), name=f"way out of {place.environment_id}")

    def change(self, rules: NetworkRules) -> None:
        """Other rules from now on, also for connections that are open."""
        self.place.rules = rules
        for task, client in self._clients.items():
            if client.check_rules() is not None:
                task.cancel()

    async def close(self) -> None:
        """Take no more, and cut off what is open."""
        tasks = [self._accepting, *self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener.close()

    async def _accept_all(self) -> None:
        while True:
            await self._wait_for_somebody()
            await self._slow_down()
            await self._turns.take()
            try:
                connection = self._listener.accept()
            except BlockingIOError:
                # Gone again.
                self._turns.give_back()
                continue
            except EOFError:
                # Nobody listens inside any more.
                self._turns.give_back()
                return
            except OSError:
                # No descriptors, or a connection that was broken before it was taken.
                self._turns.give_back()
                await asyncio.sleep(_AFTER_FAILURE_S)
                continue
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        client = Client(self.place, Stream(connection), self._gatekeeper)
        task = asyncio.create_task(client.run(), name=f"connection of {self.place.environment_id}")
        self._clients[task] = client
        task.add_done_callback(self._on_served)

    def _on_served(self, task: "asyncio.Task[None]") -> None:
        client = self._clients.pop(task)
        # One that was cancelled before it began has closed nothing.
        client.close()
        self._turns.give_back()
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection ended in an unforeseen way", "exception": task.exception()}
            )

    async def _wait_for_somebody(self) -> None:
        loop = asyncio.get_running_loop()
        there = loop.create_future()
        loop.add_reader(self._listener.fileno(), _note, there)
        try:
            await there
        finally:
            loop.remove_reader(self._listener.fileno())

    async def _slow_down(self) -> None:
        now = time.monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._filled_at) * _MOST_A_SECOND) - 1
        self._filled_at = now
        if self._tokens < 0:
            await asyncio.sleep(-self._tokens / _MOST_A_SECOND)


def _note(there: "asyncio.Future[None]") -> None:
    if not there.done():
        there.set_result(None)
