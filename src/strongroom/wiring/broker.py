"""Builds the broker out of its directory, with the real clock, randomness and disk.

A broker's directory: `broker.json` (settings, secrets under the passphrase), `broker.db` (SQLite),
`serve.lock`, and `endorsements/` (what vendors said, kept while it counts). Everything below takes time and randomness as arguments; this is where they come from.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import secrets
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from strongroom import files
from strongroom.broker import settings as settings_model
from strongroom.broker.administration import rotate
from strongroom.broker.administration import status as status_model
from strongroom.broker.broker import Broker
from strongroom.broker.budgets import Budgets
from strongroom.broker.certificates import rotation as roots
from strongroom.broker.log_signer import Notary
from strongroom.broker.request_log import RequestLog
from strongroom.crypto import hpke
from strongroom.errors import Conflict, Misuse, NotFound, Refused, Unavailable, of_file
from strongroom.ledger import checkpoint, merkle
from strongroom.model import record, rotation
from strongroom.parties import papers
from strongroom.store import turn
from strongroom.wiring import token_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strongroom.broker.ports import Endorser
    from strongroom.broker.request_log import Event
    from strongroom.crypto import sign
    from strongroom.model.messages import LedgerProof
    from strongroom.model.party import Party
    from strongroom.store.sqlite import SqliteStore

SETTINGS = "broker.json"
DATABASE = "broker.db"
LOCK = "serve.lock"
ENDORSEMENTS = "endorsements"
_GIVEN_OUT = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of IPv6, too
_LEAST_PORT = 10_000
_TRIES = 64


class SteadyClock:
    """UTC that never goes back: the wall clock read once, then the monotonic clock.

    `floor` is the latest time already on record: a host that sets its clock back and starts the broker
    anew gains nothing (rule 50). Whole microseconds; a clock set forward shows at the next start.
    """

    __slots__ = ("_monotonic", "_start")

    def __init__(self, *, wall: datetime, monotonic: float, floor: datetime) -> None:
        self._start = max(wall, floor)
        self._monotonic = monotonic

    def at(self, monotonic: float) -> datetime:
        """The time when the monotonic clock reads so many seconds."""
        return self._start + timedelta(seconds=max(0.0, monotonic - self._monotonic))

    def __call__(self) -> datetime:
        """The time now."""
        return self.at(time.monotonic())


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A broker with its store, and its secrets while it is open."""

    broker: Broker
    store: SqliteStore
    settings: settings_model.Settings
    secrets: settings_model.Secrets = field(repr=False)


def init_broker(directory: Path, owner: Party, *, listen: str, url: str, passphrase: bytes) -> Party:
    """Make a broker's directory; return the owner's public part with the broker's address.

    Raises `Misuse` when there is something already: keys are never made twice for one directory.
    """
    from strongroom.store import sqlite  # noqa: PLC0415 - as in `_open_store`; first, since it may not be installed

    if directory.exists() and any(directory.iterdir()):
        raise Misuse(
            f"{directory}: not empty",
            hint="name a new folder: a broker's keys are made once, and in one of its own",
        )
    settings = settings_model.make(
        owner,
        listen=listen,
        url=url,
        passphrase=passphrase,
        now=datetime.now(UTC).replace(microsecond=0),
        random=secrets.token_bytes,
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    try:
        sqlite.create(directory / DATABASE)
        # The settings come last: without them the folder is no broker.
        _write(directory / SETTINGS, settings.encode())
    except BaseException:
        unmake_broker(directory)
        raise
    return settings.party


@dataclass(frozen=True, kw_only=True)
class NewBroker:
    """A broker that was made. url: how rooms reach it. earlier_url: of the broker that the party file named until now; empty where it named none."""

    party: Party
    url: str
    party_file: Path
    earlier_url: str

    @property
    def of_this_machine(self) -> bool:
        """Whether rooms on this machine alone reach it there."""
        return settings_model.of_this_machine(self.url)


def set_up_broker(
    directory: Path,
    owner: Party,
    *,
    listen: str,
    url: str | None,
    party_file: Path,
    passphrase: Callable[[], bytes],
) -> NewBroker:
    """Make a broker for `owner` in the folder `directory`, and write its address into the owner's party file; both, or neither.

    listen: HOST:PORT; port 0 chooses one for good, now (`ports_to_choose`). url: how rooms reach it, if not there. passphrase: asked once all else is known to be right.
    Raises `Misuse` for a party file of somebody else, for a folder that is not empty, and for addresses that are none.
    """
    host, port = settings_model.listen_parts(listen)
    port = port or _free_port(host)
    reached = settings_model.url_of(host, port, url)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    papers.refuse_foreign(party_file, owner)
    earlier = papers.load_party(party_file).broker if party_file.exists() else None
    party = init_broker(directory, owner, listen=address, url=reached, passphrase=passphrase())
    try:
        files.write(party_file, party.encode(), replace=True)
    except BaseException:
        unmake_broker(directory)  # a broker that nobody can find is none
        raise
    return NewBroker(
        party=party, url=reached, party_file=party_file, earlier_url="" if earlier is None else earlier.url
    )


def ports_to_choose(given_out: str) -> list[int]:
    """Ports of 10,000 and above that nobody has who did not name them. given_out: first and last of those that the kernel gives to who names none.

    Contracts carry a broker's port, so that it is chosen long before the broker serves: one of the kernel's would be some connection's by then.
    """
    first, last = (int(word) for word in given_out.split())
    return [port for port in range(_LEAST_PORT, 65_536) if not first <= port <= last]


def _free_port(host: str) -> int:
    from strongroom.api import server  # noqa: PLC0415 - of what this module does, making a broker alone needs it

    failure = Unavailable(
        f"listening on {host}: the kernel gives out every port from {_LEAST_PORT} up by itself ({_GIVEN_OUT})",
        code="address-taken",
        hint="name a port with --listen HOST:PORT",
    )
    places = ports_to_choose(_GIVEN_OUT.read_text())
    for port in secrets.SystemRandom().sample(places, min(len(places), _TRIES)):
        try:
            server.bind(host, port).close()
        except Unavailable as cause:
            failure = cause
        else:
            return port
    raise failure


def unmake_broker(directory: Path) -> None:
    """Take back what `init_broker` has just made. The folder stays, empty."""
    for name in (SETTINGS, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}{turn.SUFFIX}"):
        (directory / name).unlink(missing_ok=True)


def read_settings(directory: Path) -> settings_model.Settings:
    """The broker's own file. Raises `NotFound` or `Malformed`."""
    path = directory / SETTINGS
    if not path.is_file():
        raise NotFound(
            f"{directory}: not a broker's folder", hint="name the folder that `strongroom broker init` made"
        )
    with of_file(path), path.open("rb") as source:
        return settings_model.parse(source.read(settings_model.MAX_BYTES + 1))


def change_passphrase(directory: Path, old: bytes, new: bytes) -> None:
    """Lock the broker's keys under another passphrase, whole or not at all. Raises `Refused` for a wrong old one."""
    read_settings(directory)  # what is no broker's folder is refused as that
    store = _open_store(directory)
    try:
        # Before, not after: what a rotation has left is under the old passphrase.
        _put_in_place(directory, store)
    finally:
        store.close()
    with of_file(directory / SETTINGS):
        settings = settings_model.relock(read_settings(directory), old, new, random=secrets.token_bytes)
    _replace_settings(directory, settings)


def _replace_settings(directory: Path, settings: settings_model.Settings) -> None:
    part = directory / f".{SETTINGS}.{secrets.token_hex(4)}.part"
    try:
        _write(part, settings.encode())
        part.replace(directory / SETTINGS)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def open_broker(
    directory: Path,
    passphrase: bytes,
    *,
    budgets: Budgets | None = None,
    endorser: Endorser | None = None,
    tell: Callable[[Event], None] | None = None,
) -> Iterator[Opened]:
    """The broker of a directory, open until the context ends.

    endorser: fetches what vendors say. tell: called with each event of the request log.
    """
    limits = budgets or Budgets()
    read_settings(directory)  # what is no broker's folder is refused as that
    store = _open_store(directory)
    try:
        _put_in_place(directory, store)
        settings = read_settings(directory)
        with of_file(directory / SETTINGS):
            opened = settings_model.unlock(settings, passphrase, open_root_key=token_key.open_root_key)
            _belongs(settings, store)
        clock = SteadyClock(wall=datetime.now(UTC), monotonic=time.monotonic(), floor=_latest(store))
        log = RequestLog() if tell is None else RequestLog(tell, clock=clock, size=store.ledger.size())
        broker = Broker(
            party=settings.party,
            audience=settings.address.pin,
            store=store,
            clock=clock,
            random=secrets.token_bytes,
            at_rest=opened.at_rest,
            authority=opened.authority,
            notary=Notary(opened.ledger),
            budgets=limits,
            endorser=endorser,
            request_log=log,
        )
        store.gather_while(lambda: broker.workers.busy)
        try:
            yield Opened(broker=broker, store=store, settings=settings, secrets=opened)
        finally:
            log.close()
    finally:
        store.close()


@dataclass(frozen=True, kw_only=True)
class RotatedParty:
    """A broker's party after a rotation, and the proof that it is in the ledger."""

    party: Party
    proof: LedgerProof


def rotate_broker_keys(directory: Path, passphrase: bytes, key: sign.SigningKey) -> RotatedParty:
    """New keys for the broker, but for its ledger's; `key` is its party's. Raises `Conflict` while it serves, `Refused`."""
    with serving(directory, replica=False), open_broker(directory, passphrase) as opened:
        now = datetime.now(UTC).replace(microsecond=0)
        rotated = settings_model.renew(opened.settings, passphrase, now=now, random=secrets.token_bytes)
        statement = rotation.make(opened.settings.party, rotated.settings.party, time=now, keys=(key,))
        return _rotated(directory, opened, statement, rotated)


def rotate_broker_identity(directory: Path, passphrase: bytes, statement: rotation.Rotation) -> RotatedParty:
    """The broker for its party's new keys. Raises `Conflict` while it serves, `Refused`."""
    with serving(directory, replica=False), open_broker(directory, passphrase) as opened:
        rotation.verify(statement, opened.settings.party)
        party = replace(statement.new, broker=opened.settings.party.broker)
        rotated = settings_model.adopt(opened.settings, passphrase, party, random=secrets.token_bytes)
        return _rotated(directory, opened, statement, rotated)


def prepare_root(
    directory: Path, passphrase: bytes, *, secret: bytes | None = None
) -> settings_model.Settings:
    """Give the broker's authority a next root. secret: of a key in a token (`token_key.with_pin`); None for a key in the broker's file.

    Raises `Conflict` while it serves, or where there is a next root, `Refused`, and `Unavailable` for a token that is out of reach.
    """
    with serving(directory, replica=False), open_broker(directory, passphrase) as opened:
        now = datetime.now(UTC).replace(microsecond=0)
        key = None
        if secret is not None:
            key = settings_model.RootKey(signer=token_key.open_root_key(secret), secret=secret)
        prepared = roots.prepare(
            opened.settings, opened.secrets.at_rest, now=now, random=secrets.token_bytes, key=key
        )
        _replace_settings(directory, prepared)
        return prepared


def switch_root(directory: Path, passphrase: bytes, key: sign.SigningKey) -> RotatedParty:
    """Make the next root the current one; `key` is its party's. Raises as `prepare_root`, and `NotFound` without a next one."""
    with serving(directory, replica=False), open_broker(directory, passphrase) as opened:
        now = datetime.now(UTC).replace(microsecond=0)
        switched = roots.switch(opened.settings)
        statement = rotation.make(opened.settings.party, switched.party, time=now, keys=(key,))
        rotated = settings_model.RotatedSettings(settings=switched, at_rest=opened.secrets.at_rest)
        return _rotated(directory, opened, statement, rotated)


def retire_root(directory: Path) -> settings_model.Settings:
    """Forget the root before the current one, and its key. Raises `Conflict` while the broker serves, `NotFound` without one."""
    read_settings(directory)  # what is no broker's folder is refused as that
    with serving(directory, replica=False):
        store = _open_store(directory)
        try:
            _put_in_place(directory, store)  # before: what a rotation has left would bring the root back
        finally:
            store.close()
        retired = roots.retire(read_settings(directory))
        _replace_settings(directory, retired)
        return retired


def _rotated(
    directory: Path, opened: Opened, statement: rotation.Rotation, rotated: settings_model.RotatedSettings
) -> RotatedParty:
    proof = asyncio.run(rotate.rotate(opened.broker, statement, rotated.settings, rotated.at_rest))
    _put_in_place(directory, opened.store)
    return RotatedParty(party=rotated.settings.party, proof=proof)


def _put_in_place(directory: Path, store: SqliteStore) -> None:
    """Where a rotation was committed, its settings become the folder's. Done again it changes nothing."""
    staged = store.staged_settings()
    if staged is not None:
        _replace_settings(directory, settings_model.parse(staged))
        asyncio.run(store.write(lambda transaction: transaction.staged.clear()))


def _belongs(settings: settings_model.Settings, store: SqliteStore) -> None:
    """Raise `Refused` for a broker's file of other keys than the database is of: one from before a rotation, brought back."""
    known = store.keys()
    if known is None:
        asyncio.run(store.write(lambda transaction: transaction.staged.belong(settings.keys)))
    elif known != settings.keys:
        raise Refused(
            f"is not of the keys that the database beside it is of: expected {known}, got {settings.keys}",
            code="old-settings",
            hint=f"keys were rotated since this copy was made: bring back the newest {SETTINGS}, or the whole folder of one time. "
            "Nothing was served",
        )


@contextlib.contextmanager
def serving(directory: Path, *, replica: bool) -> Iterator[None]:
    """Hold the directory's lock: alone, or together with other replicas. Raises `Conflict`."""
    fd = os.open(directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if replica else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"{directory}: another broker serves this folder",
                code="already-serving",
                hint="stop it; or start every one of them with --replica, on addresses of their own",
            ) from None
        yield
    finally:
        os.close(fd)


def _latest(store: SqliteStore) -> datetime:
    """The latest time that the store knows to have been."""
    times = [datetime.fromtimestamp(store.latest_time(), UTC)]
    size = store.ledger.size()
    if size:
        times.append(record.parse(store.ledger.leaves(size - 1, 1)[0]).time)
    return max(times)


def _open_store(directory: Path) -> SqliteStore:
    from strongroom.store import sqlite  # noqa: PLC0415 - SQLAlchemy is half of a broker's start (decision 7)

    return sqlite.open_store(directory / DATABASE)


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "wb") as target:
        target.write(data)
        target.flush()
        os.fsync(target.fileno())


def fast_encoder(value: object, *, sort: bool) -> bytes:
    """The encoder of a broker that serves (`canonical.write_with`): a tenth of the standard library's time."""
    import orjson  # noqa: PLC0415 - of what this module does, serving alone needs it

    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else None)


class Warm:
    """Readiness: false until everything that a release needs has been used once, and while writes fail."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._warm = False

    def warm_up(self) -> None:
        """Sign a checkpoint, seal to a fresh key: what fails here must not fail in a release first."""
        broker = self._opened.broker
        broker.notary.checkpoint(broker.store.ledger, broker.store.ledger.size())
        hpke.seal(hpke.generate().public, b"warm", info=b"warm")
        self._warm = True

        # What there is now stays: the collector need not look through it again and again while it serves.
        gc.collect()
        gc.freeze()

    def why_not(self) -> str | None:
        """None when ready, else a code: `starting`, or that of the last write's failure."""
        if not self._warm:
            return "starting"
        failing = self._opened.store.failing
        return None if failing is None else failing.code


def expect_checkpoint(opened: Opened, note: str) -> None:
    """Raise `Refused` unless the broker's ledger extends the checkpoint that a witness kept (rule 47)."""
    kept = checkpoint.verify(note, opened.broker.notary.public)
    ledger = opened.store.ledger
    size = ledger.size()
    if kept.size > size or merkle.root(ledger, kept.size) != kept.root:
        raise Refused(
            f"the ledger has {size} entries and does not extend the witnessed checkpoint of {kept.size}",
            code="restored-backup",
            hint="this is an old or altered copy of the broker's folder; find the newest one",
        )


def broker_status(directory: Path) -> tuple[settings_model.Settings, status_model.Status]:
    """What `broker status` shows. Takes no passphrase."""
    settings = read_settings(directory)
    store = _open_store(directory)
    try:
        return settings, status_model.status(store)
    finally:
        store.close()
