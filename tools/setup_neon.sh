#!/usr/bin/env bash
# What `make neon` needs on Debian 12: a cross compiler and qemu for the machine, and the arm64 libraries unpacked into .cache/arm64.
# The libraries are fetched by an apt that has its own state: the machine's list of architectures and packages stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=(g++-aarch64-linux-gnu qemu-user-static)
libraries=(libc6-dev libstdc++-12-dev nlohmann-json3-dev libcli11-dev libfmt-dev libpcre2-dev libgtest-dev
  libpng-dev libturbojpeg0-dev libfreetype-dev librsvg2-dev zlib1g-dev)
root=.cache/arm64
stamp=$root/.stamp
wanted=$(sha256sum < "$0" | cut -d' ' -f1)

missing=()
for package in "${tools[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2> /dev/null | grep -q 'ok installed' || missing+=("$package")
done
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
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-remove --no-upgrade "${missing[@]}" > /dev/null
fi
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

echo "setup: fetching arm64 libraries into $root (about 100 MB)"
sources=/etc/apt/sources.list.d/debian.sources
[ -f "$sources" ] || sources=/etc/apt/sources.list
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state/lists/partial" "$state/archives/partial"
: > "$state/status"
own=(-o "Dir::State=$state" -o "Dir::State::status=$state/status" -o "Dir::State::lists=$state/lists"
  -o "Dir::Cache=$state" -o "Dir::Cache::archives=$state/archives"
  -o "Dir::Etc::sourcelist=$sources" -o Dir::Etc::sourceparts=/dev/null
  -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=)
apt-get "${own[@]}" update -qq
apt-get "${own[@]}" install -y -qq --no-install-recommends --download-only "${libraries[@]}" > /dev/null
rm -rf "$root.new"
mkdir -p "$root.new"
for package in "$state"/archives/*.deb; do dpkg-deb -x "$package" "$root.new"; done
rm -rf "$root"
mv "$root.new" "$root"
echo "$wanted" > "$stamp"
