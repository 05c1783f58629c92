#!/usr/bin/env bash
# Makes sure that a build (`setup.sh build`) or also the tests (`setup.sh test`) have what they need.
# Installs what is missing with apt-get. When nothing is missing it changes nothing and needs no network.
set -euo pipefail
cd "$(dirname "$0")/.."

goal=${1:-build}
rust_min=1.92
cmake_min=3.24
# The PyPI package whose shared library runs models: onnxruntime, or onnxruntime-gpu where the environment
# variable ONNXRUNTIME says so (CUDA and cuDNN come from the system then).
runtime_package=${ONNXRUNTIME:-onnxruntime}
runtime_version=1.31.1

say() { echo "setup: $*" >&2; }

# at_least HAVE WANTED: whether version HAVE is WANTED or newer.
at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

has_cmake() {
    command -v cmake >/dev/null &&
        at_least "$(cmake --version | sed -n '1s/[^0-9]*\([0-9.]*\).*/\1/p')" "$cmake_min"
}

has_compiler() {
    command -v cc >/dev/null && command -v c++ >/dev/null &&
        echo '#include <vector>' | c++ -x c++ -fsyntax-only - 2>/dev/null
}

# Whether a program linked as faiss is (-lblas -llapack) really gets both.
links_blas() {
    local folder=$1
    echo 'extern "C" void sgemm_(); extern "C" void sgeqrf_();
          int main(int n, char **) { if (n > 99) { sgemm_(); sgeqrf_(); } }' >"$folder/blas.cc"
    c++ "$folder/blas.cc" -lblas -llapack -o "$folder/blas" 2>/dev/null
}

# faiss runs on any BLAS, but many times slower on the reference one, and nothing would say so.
has_openblas() {
    local folder result=1
    command -v c++ >/dev/null || return 1
    folder=$(mktemp -d)
    # No pipe into grep -q: it may end before ldd does, which pipefail takes for a failure.
    if links_blas "$folder" && [[ $(ldd "$folder/blas") == *libopenblas* ]]; then
        result=0
    fi
    rm -rf "$folder"
    return "$result"
}

has_venv() {
    command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null
}

# A browser for the tests of the web page. Debian has it with its driver; where it is a snap, as on Ubuntu,
# it cannot be driven from here, and these tests are skipped unless both programs are there.
has_browser() {
    command -v chromedriver >/dev/null &&
        { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null
}

is_debian() {
    grep -qx 'ID=debian' /etc/os-release 2>/dev/null
}

# Installs Debian packages, or says what to install by hand and ends.
install() {
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        root=(sudo)
        # Without a terminal nobody can type a password.
        [ -t 0 ] || root=(sudo -n)
    fi
    say "missing, installing: $*"
    if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null; }; then
        if "${root[@]}" apt-get update -q >&2 &&
            "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -q -y --no-install-recommends "$@" >&2; then
            return
        fi
    fi
    say "could not install them. Please install by hand and run this again:"
    printf '    %s\n' "$@" >&2
    say "Debian or Ubuntu, as root:  apt-get install $*"
    exit 1
}

check_rust() {
    if ! command -v cargo >/dev/null; then
        say "there is no Rust toolchain; get one from https://rustup.rs and run this again"
        exit 1
    fi
    local have
    have=$(rustc --version | sed -n 's/^rustc \([0-9.]*\).*/\1/p')
    if ! at_least "${have:-0}" "$rust_min"; then
        say "Rust ${have:-of unknown version} is too old, $rust_min or newer is needed: rustup update"
        exit 1
    fi
}

check_openblas() {
    has_openblas && return
    local triplet
    triplet=$(c++ -dumpmachine)
    say "libblas.so.3 and liblapack.so.3 are not OpenBLAS although it is installed. Choose it:"
    for name in libblas.so libblas.so.3 liblapack.so liblapack.so.3; do
        echo "    update-alternatives --auto $name-$triplet" >&2
    done
    exit 1
}

# ONNX Runtime's shared library beside the programs, where they look for it. A server without it serves
# vectors, but makes none of pictures.
get_runtime() {
    local folder made="${CARGO_TARGET_DIR:-target}" profile
    folder="$PWD/.onnxruntime/$runtime_package-$runtime_version-$(uname -m)"
    if [ ! -e "$folder/libonnxruntime.so" ]; then
        say "fetching $runtime_package $runtime_version from PyPI"
        local fetched
        fetched=$(mktemp -d)
        # The wheel's Python does not matter, only its library is wanted.
        if ! { python3 -m venv "$fetched/venv" &&
            "$fetched/venv/bin/python" -m pip download -q --no-deps --only-binary=:all: --python-version 3.12 \
                --platform "manylinux_2_28_$(uname -m)" -d "$fetched" "$runtime_package==$runtime_version" &&
            python3 -m zipfile -e "$fetched"/*.whl "$fetched/wheel"; }; then
            rm -rf "$fetched"
            say "$runtime_package $runtime_version could not be fetched from PyPI (see above)"
            exit 1
        fi
        rm -rf "$folder"
        mkdir -p "$folder"
        mv "$fetched"/wheel/onnxruntime/capi/libonnxruntime*.so* "$folder/"
        rm -rf "$fetched"
        ln -s "libonnxruntime.so.$runtime_version" "$folder/libonnxruntime.so"
    fi
    for profile in debug debug/deps release; do
        mkdir -p "$made/$profile"
        ln -sfn "$folder"/libonnxruntime* "$made/$profile/"
    done
}

# The Python environment of the tests, made anew when its requirements or its Python change.
make_venv() {
    local requirements=tests/requirements.txt stamp wanted
    if [ ! -f "$requirements" ]; then
        say "$requirements is missing"
        exit 1
    fi
    stamp=.venv/.requirements
    wanted="$(python3 -V) $(sha256sum "$requirements")"
    [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ] && return
    say "making .venv from $requirements"
    if ! { python3 -m venv --clear .venv && .venv/bin/python -m pip install -q -r "$requirements"; }; then
        say "the Python packages of $requirements could not be installed (see above)"
        exit 1
    fi
    echo "$wanted" >"$stamp"
}

case $goal in build | test) ;; *)
    say "usage: setup.sh build|test"
    exit 2
    ;;
esac

check_rust
missing=()
has_cmake || missing+=(cmake)
has_compiler || missing+=(g++)
# A BLAS that is there but not in use is not repaired by installing; check_openblas speaks then.
has_openblas || compgen -G '/usr/lib/*/openblas*/libblas.so' >/dev/null || missing+=(libopenblas-dev)
command -v nasm >/dev/null || [ "$(uname -m)" != x86_64 ] || missing+=(nasm)
has_venv || missing+=(python3 python3-venv)
if [ "$goal" = test ] && ! has_browser; then
    if is_debian; then
        missing+=(chromium chromium-driver)
    else
        say "no Chromium with its chromedriver: the tests of the web page will be skipped"
    fi
fi
[ ${#missing[@]} -eq 0 ] || install "${missing[@]}"

if ! has_cmake; then
    say "cmake is older than $cmake_min, which faiss needs"
    exit 1
fi
check_openblas
get_runtime
if [ "$goal" = test ]; then
    make_venv
fi
