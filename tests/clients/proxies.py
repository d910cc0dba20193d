"""nginx, haproxy and Caddy in front of a server: python3 proxies.py URL KEY"""

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

url, key = sys.argv[1:]
SERVER = url.removeprefix("http://")
PATIENCE = 60

# As in docs/operation.md: no line about streams is needed.
NGINX = """
daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream server {{ server {server}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{plain};
        location / {{ proxy_pass http://{server}; }}
    }}
    server {{
        listen 127.0.0.1:{named};
        location / {{
            proxy_pass http://server; proxy_http_version 1.1;
            proxy_set_header Host $host; proxy_set_header Connection "";
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend all
    bind 127.0.0.1:{named}
    default_backend server
backend server
    option httpchk GET /health
    server one {server} check inter 100ms fall 1
"""
# Without TLS, for which it would ask for a certificate.
CADDY = """
{{
    admin off
    log {{
        output discard
    }}
}}
http://:{plain} {{
    bind 127.0.0.1
    reverse_proxy {server}
}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def metric(series):
    connection = http.client.HTTPConnection(SERVER, timeout=PATIENCE)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {key}"})
    text = connection.getresponse().read().decode()
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.M)
    return float(found[1]) if found else 0.0


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def steps():
    return metric("hydit_steps_total")


class Proxy:
    def __init__(self, name, port, host):
        self.name, self.port, self.host = name, port, host

    def ask(self, method, path, body=None, host=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {key}", "Host": host or self.host}
        if body is not None:
            body, headers["Content-Type"] = json.dumps(body), "application/json"
        connection.request(method, path, body, headers)
        return connection.getresponse()

    def raw(self, request):
        """All that comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as stream:
            stream.sendall(request)
            answer = b""
            try:
                while more := stream.recv(65536):
                    answer += more
            except OSError:
                pass
            return answer


def events(answer):
    """Names of the events of a stream, each when all of it is there."""
    name = None
    for line in answer:
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        elif name and not line.strip():
            yield name
            name = None


LONG = {"prompt": "a cat", "size": "256x256", "steps": 60}


def streams(proxy):
    before = steps()
    answer = proxy.ask("POST", "/v1/images/generations", LONG | {"stream": True, "partial_images": 1})
    assert answer.status == 200 and answer.getheader("Content-Type") == "text/event-stream", answer.headers
    names = events(answer)
    assert next(names) == "image_generation.partial_image"
    assert steps() - before < LONG["steps"], "the first event came when all was done"
    assert list(names)[-1] == "image_generation.completed"

    before = steps()
    job = json.load(proxy.ask("POST", "/v1/jobs", LONG))
    names = events(proxy.ask("GET", f"/v1/jobs/{job['id']}/events"))
    while next(names) != "step":
        pass
    assert steps() - before < LONG["steps"], "the first step was told when all was done"
    assert list(names)[-1] == "done"
    print(f"{proxy.name}: events of both streams come as they happen")


def gone(proxy):
    cancelled = 'hydit_orders_total{outcome="cancelled"}'
    before = metric(cancelled), steps()
    answer = proxy.ask("POST", "/v1/images/generations", LONG | {"stream": True, "steps": 100, "partial_images": 3})
    next(events(answer))
    answer.close()
    until("the drawing goes on", lambda: metric(cancelled) == before[0] + 1)
    assert steps() - before[1] < 100
    print(f"{proxy.name}: a client that goes away ends the work")


def hosts(proxy):
    assert proxy.ask("GET", "/health", host="stranger.example").status == 200
    if proxy.host == "pictures.example":
        refused = proxy.ask("GET", "/v1/models", host="stranger.example")
        message = json.load(refused)["error"]["message"]
        assert refused.status == 421 and "stranger.example" in message and "--allowed-host" in message, message
    assert proxy.ask("GET", "/v1/models").status == 200
    print(f"{proxy.name}: names are known or told, health checks pass")


def smuggled(proxy):
    """Both sides must agree where a request ends: what hides in a body is never a request of its own."""
    version = 'hydit_requests_total{route="/version",status="200"}'
    inner = f"GET /version HTTP/1.1\r\nHost: {proxy.host}\r\nAuthorization: Bearer {key}\r\n\r\n"
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: {proxy.host}\r\nAuthorization: Bearer {key}\r\n"
    chunk = f"{len(inner):x}\r\n{inner}\r\n0\r\n\r\n"
    encodings = [
        "Transfer-Encoding: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: xchunked", "Transfer-Encoding: chunked, identity", "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: identity, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding:\r\n chunked", "X: y\nTransfer-Encoding: chunked", "transfer-encoding: CHUNKED",
    ]
    lengths = [f"Content-Length: {len(inner) + 5}", "Content-Length: 5", "Content-Length: 0"]
    pairs = []
    for encoding in encodings:
        for length in lengths:
            for fields in (f"{length}\r\n{encoding}", f"{encoding}\r\n{length}"):
                pairs.append(f"{head}{fields}\r\n\r\n0\r\n\r\n{inner}")
                pairs.append(f"{head}{fields}\r\n\r\n{chunk}")
    for length in (
        f"Content-Length: 0\r\nContent-Length: {len(inner)}", f"Content-Length: {len(inner)}\r\nContent-Length: 0",
        f"Content-Length: 0, {len(inner)}", f"Content-Length: +{len(inner)}", f"Content-Length: {len(inner)} ",
        f"Content-Length: 0x{len(inner):x}", f"Content-Length : {len(inner)}", f"Content-Length:\r\n {len(inner)}",
        f"Content_Length: 0\r\nContent-Length: {len(inner)}", "Content-Length: -1",
    ):
        pairs.append(f"{head}{length}\r\n\r\n{inner}")
    for size in ("1;x", "1\n", "0x1", "+1", " 1", "1 ", "01", "1;x=\"\r\n\""):
        pairs.append(f"{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\nx\r\n0\r\n\r\n")
    for end in ("0\r\nX: y\r\n\r\n", "0\r\n\r\n", "0\n\n", "0\r\n" + inner):
        pairs.append(f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n{end}")
    seen = 0
    for pair in pairs:
        before = metric(version)
        # The next request tells: its answer must be its own, not that of a request in between.
        asked = pair + f"GET /health HTTP/1.1\r\nHost: {proxy.host}\r\nConnection: close\r\n\r\n"
        answer = proxy.raw(asked.encode("latin-1"))
        reached, told = metric(version) - before, answer.count(b'"name":"hydit-serve"')
        assert reached == told, f"{pair!r}: the server saw {reached} requests, the client {told} answers: {answer!r}"
        assert not told or answer.endswith(b'{"status":"ok"}'), f"{pair!r}: the answer of another: {answer!r}"
        seen += told > 0
    print(f"{proxy.name}: {len(pairs)} ways to frame a request wrongly, both sides agree ({seen} as two requests)")


def pipelined(proxy):
    ask = f"GET {{}} HTTP/1.1\r\nHost: {proxy.host}\r\nAuthorization: Bearer {key}\r\n{{}}\r\n"
    paths = ["/health", "/version", "/v1/models", "/nowhere"]
    last = ["", "", "", "Connection: close\r\n"]
    answer = proxy.raw("".join(ask.format(*one) for one in zip(paths, last)).encode())
    statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert statuses == [b"200", b"200", b"200", b"404"], answer
    print(f"{proxy.name}: requests in a row are answered in a row")


def with_proxy(name, command, proxies):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for proxy in proxies:
            def up():
                assert process.poll() is None, f"{name} has ended"
                try:
                    return proxy.ask("GET", "/health").status == 200
                except OSError:
                    return False
            until(f"{name} does not start", up)
            for check in (hosts, streams, gone, pipelined, smuggled):
                check(proxy)
    finally:
        process.terminate()
        process.wait()


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    plain, named, other, caddy = (free_port() for _ in range(4))
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        NGINX.format(folder=folder, server=SERVER, plain=plain, named=named, user=user))
    (folder / "haproxy.cfg").write_text(HAPROXY.format(server=SERVER, named=other))
    with_proxy("nginx", ["nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log"], [
        Proxy("nginx, one line", plain, SERVER), Proxy("nginx, with the public name", named, "pictures.example")])
    with_proxy("haproxy", ["haproxy", "-db", "-f", folder / "haproxy.cfg"], [
        Proxy("haproxy", other, "pictures.example")])
    (folder / "Caddyfile").write_text(CADDY.format(server=SERVER, plain=caddy))
    # It keeps files at home.
    with_proxy("Caddy", ["env", f"HOME={folder}", "caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"], [
        Proxy("Caddy", caddy, "pictures.example")])
