"""`strongroom scrape`: read another process's memory as root, and say whether a canary is in it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from strongroom.errors import Misuse

if TYPE_CHECKING:
    from strongroom.node.scrape import ScrapeReport


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("scrape")(scrape)


def scrape(
    pids: Annotated[list[int], typer.Argument(help="The processes to read.", metavar="PID…")],
    canary: Annotated[
        list[str] | None, typer.Option(metavar="TEXT-TO-FIND", help="Text to search for. Repeatable.")
    ] = None,
    canary_hex: Annotated[
        list[str] | None, typer.Option(metavar="HEX", help="Bytes to search for, in hex. Repeatable.")
    ] = None,
    canary_file: Annotated[
        list[Path] | None, typer.Option(help="A file whose exact bytes to search for. Repeatable.")
    ] = None,
    children: Annotated[bool, typer.Option("--children", help="Read all their descendants too.")] = False,
    gcore: Annotated[bool, typer.Option("--gcore", help="Also let gdb attach and dump core.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
) -> None:
    """Read the memory of processes by /proc/PID/mem and process_vm_readv, and search it for canaries.

    Exits 0 when the search ran, whatever it found: the answer is in the output ("hits" in JSON).
    """
    from strongroom.node import scrape as scraper

    needles = [os.fsencode(text) for text in canary or ()]
    try:
        needles += [bytes.fromhex(text) for text in canary_hex or ()]
    except ValueError as failure:
        raise Misuse(
            "--canary-hex: expected hexadecimal digits, two for each byte",
            code="scrape-canary",
            hint="for example --canary-hex 0a1b2c",
        ) from failure
    needles += [scraper.load_needle(path) for path in canary_file or ()]
    reports = scraper.scrape_processes(
        pids,
        needles=needles,
        children=children,
        gcore=gcore,
        on_report=_silent if as_json else _print,
    )
    if as_json:
        document: dict[str, Any] = {
            "hits": sum(report.hit_count for report in reports),
            "processes": [
                {**dataclasses.asdict(report), "hits": report.hit_count, "sentence": report.sentence}
                for report in reports
            ],
        }
        print(json.dumps(document, indent=2))


def _silent(_report: ScrapeReport) -> None:
    pass


def _print(report: ScrapeReport) -> None:
    print(report.sentence)
    for memory_pass in report.passes:
        if memory_pass.refused:
            print(f"  {memory_pass.method}: refused: {memory_pass.refused}")
            continue
        print(
            f"  {memory_pass.method}: {memory_pass.hit_count} hits, {memory_pass.read >> 10} KiB read, {memory_pass.unreadable >> 10} KiB unreadable"
        )
        for hit in memory_pass.hits:
            print(f"    {sum(hit.counts)} in {hit.region} {hit.perms}")
        for part in sorted(memory_pass.unread, key=lambda part: -part.size)[:5]:
            print(f"    {part.size >> 10} KiB of {part.region}: {part.reason}")
