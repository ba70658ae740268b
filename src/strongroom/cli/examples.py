"""What to type: examples of every verb, which its `--help` ends with. Tests hold them to the parser."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

_CONTRACT_NEW = """\
strongroom contract new flights --out contract.json --party data-owner=alice.party.json \\
  --party program-owner=bob.party.json --image query.manifest.json --dataset flights.manifest.json \\
  --output /out=bob --base base --node node.json --simulated"""
_KEYLESS = """\
strongroom image verify registry.example/team/query@sha256:… --identity build@example.com \\
  --issuer https://accounts.example.com --trusted-root trusted_root.json"""
_VERIFY_EVIDENCE = "strongroom evidence verify report.bin --policy policy.toml"

EXAMPLES: dict[str, tuple[str, ...]] = {
    "init": (
        "strongroom init nginx.tar --port 8443 --open --certificate-name shop.example.org",
        "strongroom init --schema >compose.schema.json",
    ),
    "up": ("strongroom up -d", "strongroom up shop/compose.yaml"),
    "join": ("strongroom join compose.yaml --as alice", "strongroom join compose.yaml --as bob --operate"),
    "ps": ("strongroom ps", "strongroom ps --json"),
    "logs": ("strongroom logs", "strongroom logs -f web"),
    "restart": ("strongroom restart web",),
    "pause": ("strongroom pause", "strongroom pause web"),
    "resume": ("strongroom resume",),
    "down": ("strongroom down",),
    "identity new": ("strongroom identity new alice",),
    "identity show": ("strongroom identity show alice.party.json",),
    "identity passwd": ("strongroom identity passwd alice.identity",),
    "identity rotate": ("strongroom identity rotate alice.identity --out new --disk flights.manifest.json",),
    "identity accept": ("strongroom identity accept alice.party.json alice.rotation.json",),
    "seal": (
        "strongroom seal flights/ -i alice.identity --name flights",
        "strongroom seal flights/ -i alice.identity --name flights --passphrase-fd 3 3<passphrase",
    ),
    "inspect": ("strongroom inspect flights.disk",),
    "verify": ("strongroom verify flights.disk --owner alice.party.json",),
    "open": (
        "strongroom open run/out-0.tar.age -i bob.identity",
        "strongroom open flights.disk -i alice.identity --out flights-again",
    ),
    "connect": (
        "strongroom connect web:http",
        "strongroom connect web:http --contract contract.json --at 127.0.0.1:9443 --trust alice.party.json --browser",
        "strongroom connect web:http --contract contract.json --at node.example:9443 --verify --json",
    ),
    "contract new": (_CONTRACT_NEW, "strongroom contract new --compose compose.yaml --out contract.json"),
    "contract show": ("strongroom contract show contract.json",),
    "contract sign": (
        "strongroom contract sign contract.json -i alice.identity --trust bob.party.json",
        "strongroom contract sign next.json -i alice.identity --replaces contract.json",
    ),
    "contract merge": ("strongroom contract merge from-alice.json from-bob.json --out contract.json",),
    "contract verify": ("strongroom contract verify contract.json",),
    "contract diff": ("strongroom contract diff contract.json next.json",),
    "contract check": (
        "strongroom contract check contract.json",
        "strongroom contract check contract.json --ask",
    ),
    "node init": ("strongroom node init node --name operator",),
    "node show": ("strongroom node show node --json >node.json",),
    "node doctor": ("strongroom node doctor", "strongroom node doctor --backend qemu-snp"),
    "scrape": ("strongroom scrape 4711 --children --canary 'a line of the data'",),
    "run": (
        "strongroom run contract.json --base base --node node --disk query.disk --disk flights.disk --out run",
        "strongroom run contract.json --base bases/snp --backend qemu-snp --disk query.disk --disk flights.disk --out run",
    ),
    "runs": ("strongroom runs", "strongroom runs results --json"),
    "convert": (
        "strongroom convert image.tar -i bob.identity --name query",
        "strongroom convert registry.example/team/query@sha256:… -i bob.identity --name query --signed-by cosign.pub",
        "strongroom convert root/ --config config.json -i bob.identity --name query --encrypt",
    ),
    "try": (
        "strongroom try image.tar --data flights/ --out results",
        "strongroom try registry.example/team/query@sha256:… --data flights=sample/ --memory-mib 256 -- --verbose",
    ),
    "image verify": (
        "strongroom image verify registry.example/team/query@sha256:… --key cosign.pub",
        _KEYLESS,
    ),
    "reference sign": (
        "strongroom reference sign --base bases/snp --values snp.json --name base --version 7 -i maker.identity",
    ),
    "reference show": (
        "strongroom reference show base.reference.jsonl --trust maker.party.json --for snp >values.json",
    ),
    "reference verify": (
        "strongroom reference verify base.reference.jsonl --trust maker.party.json --base bases/snp",
    ),
    "reference publish": ("strongroom reference publish base.reference.jsonl registry.example/team/base:v7",),
    "reference pull": (
        "strongroom reference pull registry.example/team/base@sha256:… --trust maker.party.json",
    ),
    "preflight": (
        "strongroom preflight image.tar",
        "strongroom preflight compose.yaml --from image.tar --platform local --memory-mib 1024",
    ),
    "base build": (
        "strongroom base build --out base",
        "strongroom base build --for snp,tdx,nitro --out bases",
    ),
    "base show": ("strongroom base show base",),
    "base measure": ("strongroom base measure base",),
    "base verify": ("strongroom base verify base --rebuild",),
    "base clean": ("strongroom base clean",),
    "measure predict": (
        "strongroom measure base",
        "strongroom measure bases/snp --ovmf OVMF.amdsev.fd --reference >snp.json",
    ),
    "measure diff": ("strongroom measure diff bases/old bases/new",),
    "broker init": (
        "strongroom broker init broker -i alice.identity --listen 0.0.0.0:8443 --url https://keys.alice.example:8443",
    ),
    "broker add-key": (
        "strongroom broker add-key broker flights.manifest.json flights.key.age -i alice.identity",
    ),
    "broker admit": ("strongroom broker admit broker contract.json",),
    "broker remove-key": ("strongroom broker remove-key broker flights.manifest.json",),
    "broker withdraw": ("strongroom broker withdraw broker contract.json",),
    "broker pause": ("strongroom broker pause broker contract.json --room main",),
    "broker resume": ("strongroom broker resume broker contract.json",),
    "broker serve": ("strongroom broker serve broker --workers 4",),
    "broker status": ("strongroom broker status broker",),
    "broker party": ("strongroom broker party broker >alice.party.json",),
    "broker passwd": ("strongroom broker passwd broker",),
    "broker rotate-keys": ("strongroom broker rotate-keys broker -i alice.identity",),
    "broker rotate-root": (
        "strongroom broker rotate-root broker --prepare",
        "strongroom broker rotate-root broker --prepare --key 'pkcs11:token=broker;object=root?module-path=/usr/lib/softhsm/libsofthsm2.so'",
        "strongroom broker rotate-root broker --switch -i alice.identity",
        "strongroom broker rotate-root broker --retire",
    ),
    "broker rotate-identity": ("strongroom broker rotate-identity broker new/alice.rotation.json",),
    "ledger show": ("strongroom ledger show alice.party.json",),
    "ledger verify": ("strongroom ledger verify alice.party.json --against bobs.checkpoint",),
    "ledger witness": ("strongroom ledger witness alice.party.json -i bob.identity",),
    "proof export": ("strongroom proof export run --out run.proof",),
    "proof verify": ("strongroom proof verify run.proof --trust alice.party.json --trust bob.party.json",),
    "evidence show": ("strongroom evidence show report.bin",),
    "evidence verify": (
        f"{_VERIFY_EVIDENCE} --endorsements endorsements.json --report-data 00…ff",
        f"{_VERIFY_EVIDENCE} --nonce 00…ff --ear result.jwt --audience database -i judge.identity",
    ),
    "evidence diff": ("strongroom evidence diff yesterday.bin today.bin",),
    "evidence forecast": (
        "strongroom evidence forecast quote.bin --policy policy.toml --endorsements old.json --newer new.json",
    ),
    "result ask": (
        "strongroom result ask alice.party.json RUN --audience database --nonce 00…ff --out result.jwt",
    ),
    "result verify": (
        "strongroom result verify result.jwt --trust alice.party.json --audience database --policy sha256:… --nonce 00…ff",
    ),
    "endorsements fetch": ("strongroom endorsements fetch --evidence quote.bin --out endorsements.json",),
    "endorsements list": ("strongroom endorsements list",),
    "endorsements import": ("strongroom endorsements import endorsements.export",),
    "endorsements export": ("strongroom endorsements export endorsements.export",),
    "doctor": ("strongroom doctor", "strongroom doctor base build"),
    "completion": (
        "strongroom completion bash >~/.local/share/bash-completion/completions/strongroom",
        "strongroom completion zsh >~/.zfunc/_strongroom",
        "strongroom completion fish >~/.config/fish/completions/strongroom.fish",
    ),
    "manual": ("strongroom manual >strongroom.1 && man ./strongroom.1",),
}


def append(app: typer.Typer, *before: str) -> None:
    """End the help of each verb in `app` with its examples, each on a line of its own whatever the terminal's width."""
    for verb in app.registered_commands:
        examples = EXAMPLES.get(" ".join((*before, verb.name or "")), ())
        lines = [line for example in examples for line in example.splitlines()]
        if lines:
            verb.epilog = "\b\n" + "\n".join(
                ("Example:" if len(examples) == 1 else "Examples:", *(f"  {line}" for line in lines))
            )
    for group in app.registered_groups:
        if group.typer_instance is not None:
            append(group.typer_instance, *before, group.name or "")
