"""Two images of services as people deploy them: nginx, which ends TLS, before a Python web application. Debian's packages as they are.

    layout = services.build("web")     # an OCI layout folder

Nothing in them knows of Strongroom: nginx reads its certificate from a folder and speaks to a host called `app`; the application
listens on a port. From the command line: `python tools/services.py web` prints the layout's path.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import strangers
from strangers import Stranger

TLS = "/etc/nginx/tls"
NGINX_CONF = f"""\
worker_processes 1;
daemon off;
pid /tmp/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    include /etc/nginx/mime.types;
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {{
        listen 8443 ssl;
        listen [::]:8443 ssl;
        ssl_certificate {TLS}/current/certificate.pem;
        ssl_certificate_key {TLS}/current/key.pem;
        ssl_protocols TLSv1.3;
        location = /health {{ return 200 "ok\\n"; }}
        location / {{
            proxy_pass http://app:8000;
            proxy_set_header Host $host;
        }}
    }}
}}
"""
# A page that shows what only the application knows, and counts.
APPLICATION = '''\
"""How many people asked, and the mean of a column of secrets that no page shows."""
import datetime
import os

from flask import Flask, jsonify
from waitress import serve

app = Flask(__name__)
asked = 0
secrets = [int(number) for number in os.environ.get("SALARIES", "41000 52000 38500").split()]


@app.get("/")
def page():
    return (
        "<!doctype html><meta charset=utf-8><title>Salaries</title>"
        f"<h1>The mean of {len(secrets)} salaries is {sum(secrets) / len(secrets):.2f}</h1>"
        f"<p>Asked {count()} times. It is {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC in this room.</p>"
    )


@app.get("/mean")
def mean():
    return jsonify(mean=sum(secrets) / len(secrets), of=len(secrets), asked=count())


def count():
    global asked
    asked += 1
    return asked


serve(app, listen="0.0.0.0:8000", threads=4)
'''

ALL: dict[str, Stranger] = {
    "web": Stranger(
        packages=("nginx-light",),
        entrypoint=("nginx",),
        command=("-c", "/etc/nginx/room.conf"),
        user="www-data",
        outputs=(),
        files={"etc/nginx/room.conf": NGINX_CONF},
        owners={"var/lib/nginx": 33, "var/log/nginx": 33},
        settings={"ExposedPorts": {"8443/tcp": {}}, "StopSignal": "SIGQUIT"},
    ),
    "app": Stranger(
        packages=("python3-flask", "python3-waitress"),
        entrypoint=("python3",),
        command=("/app.py",),
        user="1000:1000",
        outputs=(),
        environment=("PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"),
        files={"app.py": APPLICATION},
        settings={"ExposedPorts": {"8000/tcp": {}}},
    ),
}


def build(name: str) -> Path:
    """The layout from the cache, made first when it is not there. Raises `RuntimeError` where apt fails."""
    return strangers.cached(f"service-{name}", ALL[name])


if __name__ == "__main__":
    print(build(sys.argv[1]))
