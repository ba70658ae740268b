"""Eight images as strangers make them: servers, languages, databases, each doing a piece of its real work.

    layout = strangers.build("nginx")     # an OCI layout folder
    strangers.ALL                         # name → Stranger: packages, user, memory, what it writes to /out
    strangers.rows(folder)                # the table that each of them reads, as /data/rows/rows.csv

nginx serves it, PostgreSQL and Redis load and query it, scikit-learn and R fit models to it, a static Go program
hashes it, Node.js and a JVM sum it up. The programs are Debian's packages as they are; only the script or the
few lines of source that tell them what to do are from here. Nothing here knows of Strongroom. The network that they use is the loopback.
From the command line: `python tools/strangers.py nginx` prints the layout's path.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

import debian_root
import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROWS = 100_000
LIBRARIES = "/usr/lib/x86_64-linux-gnu"


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """One image. `owners`: folders that installation makes and gives to an account, by number; `links` and `copies`:
    what it makes in one place after another; `files`: contents by name.

    `build` makes more files from the root and its source, with packages that are not in the image (`tools`).
    """

    packages: tuple[str, ...]
    entrypoint: tuple[str, ...]
    outputs: tuple[str, ...]
    command: tuple[str, ...] = ()
    user: str = ""
    memory_mib: int = 512
    environment: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    owners: dict[str, int] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    build: Callable[[Path, dict[str, str]], dict[str, bytes]] | None = None
    source: dict[str, str] = field(default_factory=dict)
    compress: bool = False


NGINX_CONF = """\
worker_processes 2;
pid /tmp/nginx.pid;
error_log stderr;
events { worker_connections 64; }
http {
    include /etc/nginx/mime.types;
    access_log off;
    client_body_temp_path /tmp/body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    server {
        listen 80;
        listen [::]:80;
        root /data;
        location = /ok { return 200 "ok"; }
    }
}
"""
NGINX_WORK = """\
#!/bin/sh
# Serve the table on the loopback, and be one's own customer.
set -eu
nginx -c /etc/nginx/room.conf
for try in 1 2 3 4 5 6 7 8 9 10; do curl -sf http://localhost/ok >/dev/null && break; sleep 1; done
curl -sf http://localhost/rows/rows.csv | sha256sum | cut -d ' ' -f 1 >/out/served.txt
curl -sf -r 100-299 'http://[::1]/rows/rows.csv' | sha256sum | cut -d ' ' -f 1 >>/out/served.txt
curl -s -o /dev/null -w '%{http_code} %{size_download} %{content_type}\\n' http://localhost/rows/rows.csv >>/out/served.txt
curl -s -o /dev/null -w '%{http_code}\\n' http://localhost/missing >>/out/served.txt
nginx -c /etc/nginx/room.conf -s quit
"""

POSTGRES_WORK = """\
#!/bin/sh
# A new cluster, the table into it, one query over all of it.
set -eu
export PATH=/usr/lib/postgresql/15/bin:$PATH
initdb --auth=trust --username=postgres --locale=C.UTF-8 >/dev/null
pg_ctl --wait --timeout=240 --log=/tmp/postgres.log start >/dev/null
psql --host=localhost --quiet --no-psqlrc --set=ON_ERROR_STOP=1 postgres <<'SQL'
CREATE TABLE rows (id integer PRIMARY KEY, team text NOT NULL, x double precision, y double precision);
\\copy rows FROM '/data/rows/rows.csv' WITH (FORMAT csv, HEADER)
CREATE INDEX ON rows (team, y);
ANALYZE rows;
\\copy (SELECT team, count(*), round(avg(y)::numeric, 6) AS mean, round(regr_slope(y, x)::numeric, 6) AS slope, percentile_disc(0.5) WITHIN GROUP (ORDER BY y) AS median FROM rows GROUP BY team ORDER BY team) TO '/out/teams.csv' WITH (FORMAT csv, HEADER)
SQL
pg_ctl --wait --mode=fast stop >/dev/null
"""

REDIS_WORK = """\
#!/bin/sh
# Load the table as a sorted set and counters, and ask.
set -eu
redis-server --bind 127.0.0.1 ::1 --port 6379 --daemonize yes --dir /tmp --save '' --logfile /tmp/redis.log >/dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do redis-cli -h localhost ping >/dev/null 2>&1 && break; sleep 1; done
awk -F , 'NR > 1 { print "ZADD scores " $4 " " $1; print "INCR team:" $2 }' /data/rows/rows.csv |
    redis-cli -h localhost --pipe >/dev/null
{
    redis-cli -h localhost dbsize
    redis-cli -h localhost zcard scores
    redis-cli -h localhost zrange scores 0 9 rev withscores
    redis-cli -h localhost zcount scores 0 10
    for team in ants bees cats dogs; do redis-cli -h localhost get team:$team; done
} >/out/answers.txt
redis-cli -h localhost save >/dev/null
redis-cli -h localhost shutdown nosave
test -s /tmp/dump.rdb
"""

SKLEARN_WORK = """\
import csv
import json

import numpy
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.preprocessing import OneHotEncoder

with open("/data/rows/rows.csv") as source:
    rows = list(csv.DictReader(source))
teams = OneHotEncoder().fit_transform([[row["team"]] for row in rows]).toarray()[:, 1:]
x = numpy.column_stack([[float(row["x"]) for row in rows], teams])
y = numpy.array([float(row["y"]) for row in rows])
model = LinearRegression().fit(x, y)
told = {
    "rows": len(rows),
    "slope": round(float(model.coef_[0]), 6),
    "r2": round(float(r2_score(y, model.predict(x))), 6),
}
with open("/out/model.json", "w") as target:
    json.dump(told, target, sort_keys=True)
"""

R_WORK = """\
rows <- read.csv("/data/rows/rows.csv")
fit <- lm(y ~ x + factor(team), data = rows)
told <- data.frame(term = names(coef(fit)), estimate = sprintf("%.6f", coef(fit)))
told <- rbind(told, c("r.squared", sprintf("%.6f", summary(fit)$r.squared)))
write.csv(told, "/out/model.csv", row.names = FALSE, quote = FALSE)
"""

GO_WORK = """\
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	source, err := os.Open("/data/rows/rows.csv")
	must(err)
	hash := sha256.New()
	lines := bufio.NewScanner(io.TeeReader(source, hash))
	largest := map[string]float64{}
	for lines.Scan() {
		cells := strings.Split(lines.Text(), ",")
		if value, err := strconv.ParseFloat(cells[3], 64); err == nil && value > largest[cells[1]] {
			largest[cells[1]] = value
		}
	}
	must(lines.Err())
	told, err := json.Marshal(map[string]any{"sha256": hash.Sum(nil), "largest": largest})
	must(err)
	must(os.WriteFile("/out/hash.json", told, 0o644))
}
"""

NODE_WORK = """\
'use strict';
const { createReadStream, writeFileSync } = require('node:fs');
const { createHash } = require('node:crypto');
const http = require('node:http');
const readline = require('node:readline');

async function teams() {
  const found = {};
  let first = true;
  for await (const line of readline.createInterface({ input: createReadStream('/data/rows/rows.csv') })) {
    if (first) { first = false; continue; }
    const [, team, x, y] = line.split(',');
    const row = (found[team] ??= { count: 0, x: 0, y: 0 });
    row.count += 1; row.x += Number(x); row.y += Number(y);
  }
  return Object.fromEntries(Object.entries(found).sort().map(([team, row]) =>
    [team, { count: row.count, x: row.x.toFixed(3), y: row.y.toFixed(3) }]));
}

async function main() {
  const answer = JSON.stringify(await teams());
  const server = http.createServer((_, response) => response.end(answer)).listen(8080, 'localhost', () => {
    http.get('http://localhost:8080/', (response) => {
      let body = '';
      response.on('data', (part) => { body += part; });
      response.on('end', () => {
        writeFileSync('/out/teams.json', JSON.stringify({ teams: JSON.parse(body),
          digest: createHash('sha256').update(body).digest('hex') }));
        server.close();
      });
    });
  });
}
main();
"""

JAVA_WORK = """\
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.DoubleSummaryStatistics;
import java.util.Locale;
import java.util.TreeMap;
import java.util.stream.Collectors;

public final class Work {
    public static void main(String[] given) throws IOException {
        try (var lines = Files.lines(Path.of("/data/rows/rows.csv"))) {
            var teams = lines.skip(1).map(line -> line.split(",")).parallel().collect(Collectors.groupingByConcurrent(
                cells -> cells[1], Collectors.summarizingDouble(cells -> Double.parseDouble(cells[3]))));
            var told = new StringBuilder("team,count,mean,max\\n");
            for (var team : new TreeMap<String, DoubleSummaryStatistics>(teams).entrySet()) {
                var seen = team.getValue();
                told.append(String.format(Locale.ROOT, "%s,%d,%.6f,%.6f%n",
                    team.getKey(), seen.getCount(), seen.getAverage(), seen.getMax()));
            }
            Files.writeString(Path.of("/out/teams.csv"), told);
        }
    }
}
"""


def _compile_go(root: Path, source: dict[str, str]) -> dict[str, bytes]:
    (root / "src").mkdir()
    for name, text in source.items():
        (root / "src" / name).write_text(text)
    settings = ("HOME=/tmp", "GOFLAGS=-trimpath", "CGO_ENABLED=0", "GO111MODULE=off", "GOPROXY=off")
    go = "/usr/lib/go-1.19/bin/go"
    _inside(
        root, ["env", *settings, go, "build", "-ldflags=-s -w -buildid=", "-o", "/src/work", "/src/work.go"]
    )
    return {"work": (root / "src/work").read_bytes()}


def _compile_java(root: Path, source: dict[str, str]) -> dict[str, bytes]:
    (root / "src").mkdir()
    for name, text in source.items():
        (root / "src" / name).write_text(text)
    home = "/usr/lib/jvm/java-17-openjdk-amd64/bin"
    _inside(root, [f"{home}/javac", "-g:none", "-d", "/src", *(f"/src/{name}" for name in source)])
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as jar:
        entries = {"META-INF/MANIFEST.MF": b"Manifest-Version: 1.0\r\nMain-Class: Work\r\n\r\n"}
        entries |= {path.name: path.read_bytes() for path in sorted((root / "src").glob("*.class"))}
        for name, content in entries.items():
            jar.writestr(zipfile.ZipInfo(name), content)
    return {"app/work.jar": held.getvalue()}


ALL: dict[str, Stranger] = {
    "nginx": Stranger(
        packages=("nginx-light", "curl"),
        entrypoint=("/work.sh",),
        user="www-data",
        outputs=("served.txt",),
        files={"etc/nginx/room.conf": NGINX_CONF, "work.sh": NGINX_WORK},
        owners={"var/lib/nginx": 33, "var/log/nginx": 33},
        settings={"ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"},
    ),
    "postgresql": Stranger(
        packages=("postgresql-15",),
        entrypoint=("/work.sh",),
        user="postgres",
        memory_mib=768,
        outputs=("teams.csv",),
        environment=("PGDATA=/var/lib/postgresql/data", "LANG=C.UTF-8"),
        files={"work.sh": POSTGRES_WORK},
        owners={"var/lib/postgresql": 101, "run/postgresql": 101},
        settings={"ExposedPorts": {"5432/tcp": {}}, "Volumes": {"/var/lib/postgresql/data": {}}},
    ),
    "redis": Stranger(
        packages=("redis-server",),
        entrypoint=("/work.sh",),
        user="redis",
        outputs=("answers.txt",),
        files={"work.sh": REDIS_WORK},
        owners={"var/lib/redis": 101, "var/log/redis": 101},
        settings={"ExposedPorts": {"6379/tcp": {}}, "Volumes": {"/data": {}}},
        compress=True,
    ),
    "sklearn": Stranger(
        packages=("python3-sklearn",),
        entrypoint=("python3", "/work.py"),
        user="1000:1000",
        memory_mib=1024,
        outputs=("model.json",),
        environment=("OMP_NUM_THREADS=1", "PYTHONDONTWRITEBYTECODE=1"),
        files={"work.py": SKLEARN_WORK},
        links={f"{LIBRARIES}/lib{name}.so.3": f"{name}/lib{name}.so.3" for name in ("blas", "lapack")},
    ),
    "r": Stranger(
        packages=("r-base-core",),
        entrypoint=("Rscript", "--vanilla", "/work.R"),
        user="1000:1000",
        memory_mib=768,
        outputs=("model.csv",),
        environment=("LANG=C.UTF-8",),
        files={"work.R": R_WORK},
        copies={"etc/R/Renviron": "usr/lib/R/etc/Renviron.ucf"},
        links={f"{LIBRARIES}/lib{name}.so.3": f"{name}/lib{name}.so.3" for name in ("blas", "lapack")},
    ),
    "go": Stranger(
        packages=(),
        entrypoint=("/work",),
        user="65534:65534",
        memory_mib=256,
        outputs=("hash.json",),
        tools=("golang-1.19-go",),
        build=_compile_go,
        source={"work.go": GO_WORK},
    ),
    "nodejs": Stranger(
        packages=("nodejs",),
        entrypoint=("node",),
        command=("/work.js",),
        user="1000:1000",
        outputs=("teams.json",),
        environment=("NODE_ENV=production",),
        files={"work.js": NODE_WORK},
        settings={"ExposedPorts": {"8080/tcp": {}}},
    ),
    "openjdk": Stranger(
        packages=("openjdk-17-jre-headless",),
        entrypoint=("java",),
        command=("-jar", "/app/work.jar"),
        user="1000:1000",
        memory_mib=768,
        outputs=("teams.csv",),
        links={"/usr/bin/java": "../lib/jvm/java-17-openjdk-amd64/bin/java"},
        tools=("openjdk-17-jdk-headless",),
        build=_compile_java,
        source={"Work.java": JAVA_WORK},
    ),
}


def rows(folder: Path) -> Path:
    """Write `rows.csv`: id, team, x and y = 3 x + 2 + noise; the same every time."""
    dice = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w") as target:
        target.write("id,team,x,y\n")
        for number in range(ROWS):
            x = round(dice.uniform(0, 100), 3)
            team = ("ants", "bees", "cats", "dogs")[number * number % 4 if number % 3 else dice.randrange(4)]
            target.write(f"{number},{team},{x},{round(3 * x + 2 + dice.gauss(0, 1), 4)}\n")
    return folder


def build(name: str, *, user: str | None = None) -> Path:
    """The layout from the cache, made first when it is not there; of another `user` if given. Raises `RuntimeError` where apt fails."""
    return cached(f"stranger-{name}", ALL[name] if user is None else replace(ALL[name], user=user))


def cached(name: str, one: Stranger) -> Path:
    """As `build`, of any image: it has no name of its own."""
    cache = images.cache_folder()
    key = hashlib.sha256()
    for file in (Path(debian_root.__file__), Path(images.__file__)):
        key.update(file.read_bytes())
    for part in (_build, _owned, _added, _inside, *((one.build,) if one.build else ())):
        key.update(inspect.getsource(part).encode())
    key.update(repr(replace(one, build=None, memory_mib=0, outputs=())).encode())
    for wanted in (one.packages, one.tools):
        key.update("\n".join(_known(wanted)).encode())
    target = cache / f"{name}-{key.hexdigest()[:16]}"
    with images.locked(cache / ".strangers.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{name}-") as folder:
                before = os.umask(0o022)  # modes are content
                try:
                    _build(one, Path(folder), cache / "debs", name.partition("-")[2])
                finally:
                    os.umask(before)
                (Path(folder) / "layout").rename(target)
    return target


def _known(packages: Sequence[str]) -> list[str]:
    """The digests of what apt would install, remembered for as long as apt's lists stay the same."""
    if not packages:
        return []
    lists = Path("/var/lib/apt/lists")
    state = [
        f"{one.name} {one.stat().st_size} {one.stat().st_mtime_ns}"
        for one in sorted(lists.glob("*Packages*"))
    ]
    state += [*_full(packages), Path(debian_root.__file__).read_text()]
    memo = images.cache_folder() / f"closure-{hashlib.sha256(chr(10).join(state).encode()).hexdigest()[:16]}"
    if not memo.exists():
        memo.write_text("\n".join(debian_root.names(debian_root.closure(_full(packages)))))
    return memo.read_text().split("\n")


def _full(packages: Sequence[str]) -> tuple[str, ...]:
    return (*debian_root.BASIC, *packages)


def _build(one: Stranger, work: Path, debs: Path, name: str) -> None:
    made: dict[str, bytes] = {}
    if one.build is not None:
        debian_root.unpack(debian_root.fetch(_full(one.tools), debs), work / "tools")
        made = one.build(work / "tools", one.source)
    layout = images.Layout(work / "layout")
    if one.packages:
        accounts = (one.user,) if one.user in ("postgres", "redis") else ()
        debian_root.unpack(debian_root.fetch(_full(one.packages), debs), work / "root", accounts=accounts)
        for link, target in one.links.items():
            place = work / "root" / link.removeprefix("/")
            if not os.path.lexists(place):
                place.symlink_to(target)
        for copied, source in one.copies.items():
            (work / "root" / copied).write_bytes((work / "root" / source).read_bytes())
        for folder in one.owners:
            (work / "root" / folder).mkdir(parents=True, exist_ok=True)
        layout.layer(_owned(work / "root", one.owners), compress=one.compress)
    layout.layer(_added(made | {path: text.encode() for path, text in one.files.items()}), compress=True)
    layout.finish(
        name,
        {
            "Entrypoint": list(one.entrypoint),
            "Cmd": list(one.command),
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", *one.environment],
            "User": one.user,
            "WorkingDir": "/",
            **one.settings,
        },
    )


def _owned(root: Path, owners: dict[str, int]) -> Iterator[Any]:
    for info, data in images.tree(root):
        info.uid = info.gid = owners.get(info.name, 0)
        yield info, data


def _added(files: dict[str, bytes]) -> Iterator[Any]:
    folders: set[str] = set()
    for path, data in sorted(files.items()):
        parent = path.rpartition("/")[0]
        if parent and parent not in folders:
            folders.add(parent)
            yield images.folder(parent)
        runs = data.startswith((b"#!", b"\x7fELF"))
        yield images.file(path, data, mode=0o755 if runs else 0o644)


def _inside(root: Path, command: Sequence[str]) -> None:
    """Run a compiler of `root`, which wants /proc and /dev."""
    script = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    for name in ("proc", "dev", "tmp"):
        (root / name).mkdir(exist_ok=True)
    subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(root), *command],
        check=True,
        env={"LC_ALL": "C.UTF-8", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"},
    )


if __name__ == "__main__":
    print(build(sys.argv[1]))
