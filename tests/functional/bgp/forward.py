"""Make a service of this namespace reachable on the loopback of another: a socket stays where it was made."""

from __future__ import annotations

import selectors
import socket
import threading

from lab.netns import NetNs


class Forwarder:
    """Forwards 127.0.0.1:`port` inside `netns` to `target` here, until closed."""

    def __init__(self, netns: NetNs, port: int, target: tuple[str, int]) -> None:
        with netns.enter():
            self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self._target = target
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._stop_read, self._stop_write = socket.socketpair()
        self._selector.register(self._stop_read, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop_write.send(b"x")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._stop_write.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stop_read:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._forward(key.fileobj, key.data)  # type: ignore[arg-type]

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target)
        except ConnectionRefusedError:  # the service is not there now
            near.close()
            return
        near.setblocking(True)
        self._selector.register(near, selectors.EVENT_READ, far)
        self._selector.register(far, selectors.EVENT_READ, near)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        if source.fileno() < 0:
            return  # closed with its other half, earlier in the same round
        try:
            data = source.recv(1 << 16)
            if data:
                sink.sendall(data)
                return
        except OSError:
            pass
        for each in (source, sink):
            self._selector.unregister(each)
            each.close()
