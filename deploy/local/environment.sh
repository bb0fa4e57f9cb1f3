#!/usr/bin/env bash
# Makes the virtual environment and installs the locked, hashed requirements and this package into it.
#
#   deploy/local/environment.sh .venv requirements.txt
#
# Works with nothing but a Python of 3.11 or newer; uses uv when there is one, because it takes a fifth of the time.
set -euo pipefail

venv=$1
requirements=$2
cd "$(dirname "$0")/../.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${PYTHON_FOR_PAYRAIL:+"$PYTHON_FOR_PAYRAIL"} python3 python3.11 python3.12 python3.13 python3.14 python; do
        if new_enough "$candidate"; then printf '%s' "$candidate"; return; fi
    done
    fail "Payrail needs Python 3.11 or newer and none was found on the PATH. Install one (Debian 12, Ubuntu 24.04:" \
        "apt-get install python3 python3-venv), or name it: make ... PYTHON_FOR_PAYRAIL=/path/to/python3.12"
}

has_uv() { command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; }

make_venv() {
    local python
    python=$(find_python)
    say "making $venv with $("$python" --version)"
    rm -rf "$venv"
    if "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        "$python" -m venv "$venv"
    elif has_uv; then
        uv venv --quiet --python "$python" "$venv"
    else
        fail "this Python has no venv module. Debian and Ubuntu keep it apart: apt-get install python3-venv"
    fi
}

install_by_uv() {
    uv pip install --quiet --python "$venv/bin/python" --require-hashes -r "$requirements" -r requirements-build.txt &&
        uv pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
}

install_by_pip() {
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check -qq)
    "${pip[@]}" --version >/dev/null 2>&1 || "$venv/bin/python" -m ensurepip >/dev/null
    "${pip[@]}" install --require-hashes -r "$requirements" -r requirements-build.txt
    "${pip[@]}" install --no-deps --no-build-isolation -e .
}

new_enough "$venv/bin/python" || make_venv
say "installing $requirements"
if has_uv && install_by_uv; then exit 0; fi
install_by_pip || fail "the requirements could not be installed; pip's message above says which and why." \
    "A machine that reaches no package registry needs a mirror in pip's configuration."
