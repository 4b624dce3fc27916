#!/usr/bin/env python3
"""Print the public SPF test suite (a file of YAML documents) as lines that test_spf reads:

zone                              a scenario begins
record NAME TYPE VALUE
case ID HOST HELO SENDER RESULTS  the results that are right, with spaces between

with tabs between the fields; backslashes and what is not printable ASCII are written \\xNN."""

import sys

import yaml


def field(text):
    octets = str(text).encode("latin-1")
    return "".join(chr(o) if 32 <= o < 127 and o != 92 else f"\\x{o:02x}" for o in octets)


def emit(*fields):
    print("\t".join([fields[0], *map(field, fields[1:])]))


def records(entries):
    """(type, value) of a name's entries.  SPF stands for TXT where no TXT is given."""
    types = [next(iter(entry)) for entry in entries if isinstance(entry, dict)]
    for entry in entries:
        if entry == "TIMEOUT":
            yield "TIMEOUT", ""
            continue
        (kind, value), = entry.items()
        if value == "NONE" or (kind == "SPF" and "TXT" in types):
            continue
        if kind == "MX":
            value = value[1]
        if isinstance(value, list):
            value = "".join(value)
        yield ("TXT" if kind == "SPF" else kind), value


with open(sys.argv[1], encoding="latin-1") as suite:
    for scenario in yaml.safe_load_all(suite):
        emit("zone")
        for name, entries in scenario["zonedata"].items():
            for kind, value in records(entries):
                emit("record", name, kind, value)
        for name, case in scenario["tests"].items():
            results = case["result"]
            emit("case", name, case["host"], case["helo"], case["mailfrom"],
                 results if isinstance(results, str) else " ".join(results))
