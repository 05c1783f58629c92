#!/usr/bin/env bash
# The dependency policy of deny.toml: bans, licences and sources always, advisories where their database
# can be had. Installs the pinned cargo-deny into target/tools once (about two minutes on two cores).
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.20.2
tools="$PWD/target/tools"

if [ "$(cargo-deny --version 2>/dev/null || true)" = "cargo-deny $version" ]; then
    deny=cargo-deny
else
    deny="$tools/bin/cargo-deny"
    if [ "$("$deny" --version 2>/dev/null || true)" != "cargo-deny $version" ]; then
        echo "deny.sh: installing cargo-deny $version into target/tools"
        # Unoptimised: compiling it costs more than running it ever will.
        if ! CARGO_TARGET_DIR="$tools/build" cargo install cargo-deny --version "=$version" \
            --locked --debug --quiet --root "$tools"; then
            echo "deny.sh: cargo-deny could not be installed, so the dependency policy was NOT checked" >&2
            exit 1
        fi
        rm -rf "$tools/build"
    fi
fi

# `--hide-inclusion-graph` below: the graphs of who uses whom fill pages.
policy() {
    "$deny" --locked "$@"
}

# What the lock file names for any platform must be here before it can be looked at offline.
if ! cargo fetch --locked --quiet; then
    echo "deny.sh: the crates of Cargo.lock could not be fetched, so the dependency policy was NOT checked" >&2
    exit 1
fi

policy --offline check --hide-inclusion-graph bans licenses sources

if reason=$(timeout 120 "$deny" fetch db 2>&1); then
    policy --offline check --hide-inclusion-graph advisories
else
    echo
    echo "deny.sh: ADVISORIES WERE NOT CHECKED: their database cannot be fetched from here:"
    grep -m 1 '^fatal' <<<"$reason" || grep -m 1 -i error <<<"$reason" || echo "no answer within 120 s"
    echo "deny.sh: bans, licences and sources were checked and hold."
fi
