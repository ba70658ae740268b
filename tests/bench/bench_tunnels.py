"""Tunnels beside stunnel, nginx's stream module and the pair in the clear: a client's and a server's proxy between the same two ends.

Mutual TLS 1.3 without resumption in all of them. What is absent is said to be, and not measured: `apt-get install stunnel4 libnginx-mod-stream`.
Figures are of both proxies together; CPU seconds are those of their processes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from strongroom.model.tunnel import TlsSide
from strongroom_testing import ports
from tests.bench import tunnel_ends
from tests.bench.turns import row

SIZE = 256 << 20
HANDSHAKES = 300
ROUNDTRIPS = 1000
ROUNDS = 3
_TICK = os.sysconf("SC_CLK_TCK")
PROGRAMS = {"stunnel": "stunnel4", "nginx": "nginx"}
MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def cpu(pids):
    """Seconds of the processor that these processes and their children have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


class Target(threading.Thread):
    """Answers each connection by its first byte: E echoes, S swallows until the end and says how much, G gives `SIZE` bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                link, _ = self.listener.accept()
                threading.Thread(target=self.answer, args=(link,), daemon=True).start()

    def answer(self, link):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        buffer = bytearray(1 << 18)
        with link, contextlib.suppress(OSError):
            wanted = link.recv(1)
            if wanted == b"G":
                for _ in range(SIZE // len(buffer)):
                    link.sendall(buffer)
            elif wanted == b"S":
                count = 0
                while count < SIZE and (come := link.recv_into(buffer)):
                    count += come
                link.sendall(b"%d" % count)
            else:
                while data := link.recv(1 << 16):
                    link.sendall(data)


def fork(act, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            act(*arguments)
        finally:
            os._exit(1)
    return pid


class Ours:
    """Both ends by `strongroom.tunnel`, in two processes."""

    def __init__(self, target, _folder):
        own = tunnel_ends.parts()
        outer, inner = (socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(2))
        self.port = outer.getsockname()[1]
        self.pids = [
            fork(tunnel_ends.serve, inner, TlsSide.SERVER, target, own),
            fork(tunnel_ends.serve, outer, TlsSide.CLIENT, inner.getsockname()[1], own),
        ]
        outer.close()
        inner.close()


class Clear:
    """No proxy at all."""

    def __init__(self, target, _folder):
        self.port, self.pids = target, []


def credentials(name):
    """A P-256 key and its self-made certificate for either side."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    )
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
    made = builder.not_valid_after(now + timedelta(days=1)).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + made.public_bytes(pem)


class Program:
    """Two processes of a program, each with a configuration."""

    def __init__(self, target, folder):
        self.port, inner = ports.free(), ports.free()
        self.children = []
        for name in ("client", "server"):
            if not (folder / f"{name}.pem").exists():
                (folder / f"{name}.pem").write_bytes(credentials(name))
        for side, listen, to in (("server", inner, target), ("client", self.port, inner)):
            config = folder / f"{type(self).__name__}-{side}.conf"
            config.write_text(self.config(folder, side, listen, to))
            self.children.append(
                subprocess.Popen(self.command(config), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            )
        for port in (inner, self.port):
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.02)
        self.pids = [child.pid for child in self.children]


class Stunnel(Program):
    """stunnel of Debian."""

    def command(self, config):
        return [shutil.which("stunnel4") or "stunnel4", str(config)]

    def config(self, folder, side, listen, to):
        other = "server" if side == "client" else "client"
        return (
            f"foreground = yes\npid =\ndebug = err\n[it]\nclient = {'yes' if side == 'client' else 'no'}\n"
            f"accept = 127.0.0.1:{listen}\nconnect = 127.0.0.1:{to}\ncert = {folder}/{side}.pem\n"
            f"CAfile = {folder}/{other}.pem\nverifyPeer = yes\nsslVersionMin = TLSv1.3\nsessionCacheSize = 1\n"
            "sessionResume = no\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
        )


class Nginx(Program):
    """nginx of Debian with its stream module: one process each."""

    def command(self, config):
        return [shutil.which("nginx") or "nginx", "-c", str(config), "-p", str(config.parent)]

    def config(self, folder, side, listen, to):
        other = "server" if side == "client" else "client"
        common = f"certificate {folder}/{side}.pem; {{0}}_certificate_key {folder}/{side}.pem; {{0}}_protocols TLSv1.3;"
        if side == "client":
            tls_lines = (
                "proxy_ssl on; proxy_ssl_session_reuse off; proxy_ssl_verify on; proxy_ssl_name server; "
                f"proxy_ssl_trusted_certificate {folder}/{other}.pem; proxy_ssl_" + common.format("proxy_ssl")
            )
            listening = f"listen 127.0.0.1:{listen};"
        else:
            tls_lines = (
                "ssl_session_tickets off; ssl_session_cache off; ssl_verify_client on; "
                f"ssl_client_certificate {folder}/{other}.pem; ssl_" + common.format("ssl")
            )
            listening = f"listen 127.0.0.1:{listen} ssl;"
        return (
            f"load_module {MODULE};\ndaemon off; master_process off; error_log {folder}/nginx-{side}.log; pid {folder}/nginx-{side}.pid;\n"
            f"events {{ worker_connections 2048; }}\nstream {{ tcp_nodelay on; server {{ {listening} proxy_pass 127.0.0.1:{to}; "
            f"proxy_buffer_size 64k; {tls_lines} }} }}\n"
        )


def put(port):
    with tunnel_ends.connected(port) as link:
        link.sendall(b"S")
        block = bytes(1 << 18)
        for _ in range(SIZE // len(block)):
            link.sendall(block)
        assert int(link.recv(100)) == SIZE


def get(port):
    buffer, count = bytearray(1 << 18), 0
    with tunnel_ends.connected(port) as link:
        link.sendall(b"G")
        while count < SIZE:
            come = link.recv_into(buffer)
            assert come, "cut"
            count += come


def handshakes(port):
    for _ in range(HANDSHAKES):
        with tunnel_ends.connected(port) as link:
            link.sendall(b"E!")
            assert link.recv(1) == b"!"


def trips(port):
    took = []
    with tunnel_ends.connected(port) as link:
        link.sendall(b"E")
        for _ in range(ROUNDTRIPS):
            begun = time.perf_counter()
            link.sendall(b"x" * 64)
            left = 64
            while left:
                left -= len(link.recv(left))
            took.append((time.perf_counter() - begun) * 1e6)
    return took


def measured(made):
    """(MB per CPU second, MB/s put, MB/s get, handshakes per CPU second, handshakes per second, p50, p99)."""
    out = {"put": [], "get": [], "cpu": [], "hand": [], "hand_cpu": [], "trips": []}
    for _ in range(ROUNDS):
        before = cpu(made.pids)
        for name, act in (("put", put), ("get", get)):
            begun = time.perf_counter()
            act(made.port)
            out[name].append(SIZE / (time.perf_counter() - begun) / 1e6)
        out["cpu"].append(2 * SIZE / max(cpu(made.pids) - before, 1 / _TICK) / 1e6)
        before, begun = cpu(made.pids), time.perf_counter()
        handshakes(made.port)
        out["hand"].append(HANDSHAKES / (time.perf_counter() - begun))
        out["hand_cpu"].append(HANDSHAKES / max(cpu(made.pids) - before, 1 / _TICK))
        out["trips"] += trips(made.port)
    cuts = statistics.quantiles(out.pop("trips"), n=100)
    return {
        **{name: statistics.median(values) for name, values in out.items()},
        "p50": cuts[49],
        "p99": cuts[98],
    }


def run():
    """Rows of the table."""
    target = Target()
    kinds = {"tunnel": Ours, "stunnel": Stunnel, "nginx stream": Nginx, "in the clear": Clear}
    rows, seen = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, kind in kinds.items():
            program = {Stunnel: "stunnel4", Nginx: "nginx"}.get(kind)
            if program and (shutil.which(program) is None or (kind is Nginx and not MODULE.exists())):
                rows.append(row(f"{name}", "absent: not measured", ""))
                continue
            made = kind(target.port, Path(scratch))
            try:
                figures = seen[name] = measured(made)
            finally:
                for pid in made.pids:
                    os.kill(pid, signal.SIGTERM)
                for pid in made.pids:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, 0)
            proxied = bool(made.pids)
            rows.append(
                row(
                    f"{name}: put / get MB/s",
                    f"{figures['put']:.0f} / {figures['get']:.0f}",
                    "",
                )
            )
            if proxied:
                rows.append(
                    row(
                        f"{name}: MB per CPU second",
                        f"{figures['cpu']:.0f}",
                        "stunnel's" if name == "tunnel" else "",
                    )
                )
                rows.append(
                    row(
                        f"{name}: handshakes per second / per CPU second",
                        f"{figures['hand']:.0f} / {figures['hand_cpu']:.0f}",
                        "",
                    )
                )
            rows.append(
                row(f"{name}: round trip p50 / p99 µs", f"{figures['p50']:.0f} / {figures['p99']:.0f}", "")
            )
    target.listener.close()
    return rows


if __name__ == "__main__":
    from tests.bench.turns import show

    show(run())
