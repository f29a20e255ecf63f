#!/usr/bin/env bash
# Installs what a bare Debian 12 lacks: packages for the build, and a .venv with the pinned requirements. Does nothing when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(build-essential cmake ninja-build ccache mold git pkg-config clang-format clang-tidy
  nlohmann-json3-dev libcli11-dev libfmt-dev libpcre2-dev libgtest-dev libbenchmark-dev
  libpng-dev libturbojpeg0-dev libfreetype-dev librsvg2-dev zlib1g-dev
  libopenmpi-dev openmpi-bin
  python3 python3-venv python3-pip unzip)
stamp=.setup-stamp
wanted=$(cat "$0" requirements.txt | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/python ]; then exit 0; fi

missing=()
if command -v dpkg-query > /dev/null; then
  for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
  done
else
  echo "setup: this is no Debian; please install the equivalents of: ${packages[*]}" >&2
fi
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing ${missing[*]}"
  sudo=""
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo > /dev/null; then sudo=sudo; else
      echo "setup: please install as root, then run make again: apt-get install ${missing[*]}" >&2
      exit 1
    fi
  fi
  $sudo apt-get update -qq
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

# Debian's own python3, so that the .venv does not depend on another interpreter that may be first on PATH.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
if [ ! -x .venv/bin/python ]; then "$python" -m venv .venv; fi
echo "setup: installing libtorch and the reference libraries into .venv (a few minutes the first time)"
export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ -n "${TORCH_INDEX:-}" ]; then .venv/bin/pip install -q --index-url "$TORCH_INDEX" "$(grep '^torch==' requirements.txt)"; fi
.venv/bin/pip install -q -r requirements.txt
echo "$wanted" > "$stamp"
