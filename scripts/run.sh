#!/usr/bin/env bash
# Says what to do next, then serves in the foreground. Arguments go to `voisin serve`.
set -euo pipefail
cd "$(dirname "$0")/.."

voisin="${CARGO_TARGET_DIR:-target}/release/voisin"

# The settings that will be in force, from the program itself; a wrong one ends here with its reason.
settings=$("$voisin" serve --check-config "$@")
setting() { sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" <<<"$settings"; }

# Where the commands below find the server, unless it is where they look by themselves.
grpc=$(setting grpc)
case "$grpc" in
127.0.0.1:16000 | 0.0.0.0:16000) at="" ;;
0.0.0.0:*) at=" --server 127.0.0.1:${grpc##*:}" ;;
*) at=" --server $grpc" ;;
esac

cat <<TEXT

Voisin $("$voisin" --version | cut -d ' ' -f 2)
    gRPC   $grpc
    HTTP   $(setting http)
    page   http://$(setting http)/
    data   $(realpath -m "$(setting data)")

In another terminal, pictures in and similar pictures out:
    $voisin index DIR --collection photos$at
    $voisin search IMAGE --collection photos -k 5$at
or vectors of your own:
    make venv                                              the stock Python client, in .venv
    .venv/bin/python client/examples/image_search.py       a walk through it
or in a Python of your own:
    pip install 'pyproximabe==0.2.*' 'protobuf<4' grpcio numpy requests orjson

Other settings:  make run ARGS="--grpc 0.0.0.0:16000"      $voisin serve --help
Stop:            Ctrl-C (everything acknowledged is kept; so it is after kill -9)

TEXT
exec "$voisin" serve "$@"
