"""Servers on loopback that a test starts and stops: S3, OpenSSH, HTTP, and a line to them that stalls or breaks."""

from __future__ import annotations

import base64
import contextlib
import functools
import getpass
import http.client
import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HOST = "127.0.0.1"


class FolderStore:
    """Objects of a remote that are files below a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def names(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # DVC makes its objects read-only
        path.write_bytes(data)

    def delete(self, key: str) -> None:
        (self.folder / key).unlink()


class BucketStore:
    """Objects of a remote that are keys of an S3 bucket."""

    def __init__(self, client, bucket: str):
        self.client, self.bucket = client, bucket

    def names(self) -> list[str]:
        return sorted(entry["Key"] for entry in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ()))

    def read(self, key: str) -> bytes:
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=key)


@contextlib.contextmanager
def s3() -> Iterator[tuple[int, BucketStore]]:
    """An S3 server with the bucket ``store``: (port, its objects)."""
    boto3 = pytest.importorskip("boto3", reason="the extra dev is not installed")
    server_module = pytest.importorskip("moto.server", reason="the extra dev is not installed")
    pytest.importorskip("dvc_s3", reason="the extra remote is not installed")
    server = server_module.ThreadedMotoServer(HOST, 0, verbose=False)
    server.start()
    try:
        port = server.get_host_and_port()[1]
        client = boto3.client(
            "s3",
            endpoint_url=f"http://{HOST}:{port}",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket="store")
        yield port, BucketStore(client, "store")
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def wait_for(condition, seconds: float = 60, what: str = "it") -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def ssh(folder: Path) -> Iterator[tuple[int, Path]]:
    """An OpenSSH server with a host key, a port and a user key of its own: (port, private key of the user)."""
    pytest.importorskip("dvc_ssh", reason="the extra remote is not installed")
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    keygen = shutil.which("ssh-keygen")
    if sshd is None or keygen is None:
        pytest.skip("no OpenSSH server here (Debian: openssh-server)")
    folder.mkdir(parents=True)
    for key in ("host", "user"):
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", str(folder / key)]
        subprocess.run(command, check=True)
    port = free_port()
    settings = {
        "Port": port,
        "ListenAddress": HOST,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "user.pub",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",  # the temporary folders of a test may belong to anybody
        "PasswordAuthentication": "no",
        "Subsystem": "sftp internal-sftp",
        "AllowUsers": getpass.getuser(),
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as the service of the distribution does
    with open(folder / "sshd.log", "wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        wait_for(lambda: listens(port) or server.poll() is not None, what="sshd")
        assert server.poll() is None, (folder / "sshd.log").read_text()
        yield port, folder / "user"
    finally:
        server.terminate()
        server.wait(timeout=20)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web(folder: Path) -> Iterator[int]:
    """A static file server on a folder; yields its port."""
    server = http.server.ThreadingHTTPServer((HOST, 0), functools.partial(_Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=20)


class Line:
    """A TCP line to a server on loopback that holds everything back after `limit` bytes from the server."""

    def __init__(self, target: int, limit: int):
        self.target, self.limit = target, limit
        self.hangs_up = False  # instead of holding back, and each connection by itself
        self.passed = 0
        self.stalled = threading.Event()
        self.released = threading.Event()
        self._counting = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((HOST, self.target))
                for source, sink, counts in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=(source, sink, counts), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        with contextlib.suppress(OSError):  # one of both has gone
            passed = 0
            while data := source.recv(16384):
                passed += len(data)
                if counts and self.hangs_up and passed > self.limit:
                    break
                if counts and not self.hangs_up:
                    with self._counting:
                        self.passed += len(data)
                    if self.passed > self.limit and not self.released.is_set():
                        self.stalled.set()
                        self.released.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone leaves the thread in accept, and the port open
        self._listener.close()


@contextlib.contextmanager
def stalling_line(target: int, limit: int) -> Iterator[Line]:
    line = Line(target, limit)
    try:
        yield line
    finally:
        line.close()


class _Guarded(http.server.BaseHTTPRequestHandler):
    """Passes on to a server what comes with the right user and password, and notes every address that it was asked."""

    def _pass(self) -> None:
        self.server.asked.append(self.path)
        if self.server.expected and self.headers.get(self.server.header) != self.server.expected:
            self.send_error(401 if self.server.header == "Authorization" else 407)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = "/" + self.path.split("/", 3)[3] if "://" in self.path else self.path
        line = http.client.HTTPConnection(HOST, self.server.target, timeout=60)
        line.request(self.command, path, body, {"Content-Type": self.headers.get("Content-Type") or "text/plain"})
        reply = line.getresponse()
        data = reply.read()
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.headers.get("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        line.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def guarded(target: int, user: str = "", password: str = "", proxy: bool = False) -> Iterator[tuple[int, list[str]]]:
    """A way to a server on loopback that asks for user and password, in front of it or as a forward proxy."""
    server = http.server.ThreadingHTTPServer((HOST, 0), _Guarded)
    server.daemon_threads, server.target, server.asked = True, target, []
    server.header = "Proxy-Authorization" if proxy else "Authorization"
    server.expected = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], server.asked
    finally:
        server.shutdown()
        server.server_close()
