#!/bin/bash
# install.sh NAME... : makes sure that what a test or the demo needs is on this machine.
#
# Says nothing and needs no rights when everything is there. Otherwise installs the missing Debian
# packages, or says exactly which ones they are and why it could not. Safe to call from many
# processes at once: one installs, the others wait and then find everything there.
#
#   install.sh --check NAME...   never installs; exit 1 and a sentence when something is missing
#   install.sh --list            the names it knows
set -u
export LC_ALL=C

# NAME | what proves that it is there (commands, or files by their full path) | Debian packages
needs() {
  cat <<'TABLE'
zookeeper|java /usr/share/java/zookeeper.jar|zookeeper default-jre-headless
namespaces|ip nft iptables nsenter|iproute2 nftables iptables util-linux
systemd|systemd-analyze|systemd
python|python3|python3
openssl|openssl|openssl
nspawn|systemd-nspawn debootstrap nsenter|systemd-container debootstrap util-linux
prometheus|promtool|prometheus
zeromq|/usr/bin/python3 /usr/lib/python3/dist-packages/zmq|python3 python3-zmq
proxies|haproxy wrk|haproxy wrk
fuzzing|c++|g++
postgresql|/usr/lib/postgresql/*/bin/initdb psql|postgresql postgresql-client
TABLE
}

fail() {
  echo "install.sh: $*" >&2
  exit 1
}

present() {
  case $1 in
  /*) [ -e "$1" ] ;;
  *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
  esac
}

# What is missing of all names given, a proof and its packages a line; empty when all is there.
missing_proofs() {
  local name row proof
  for name in "$@"; do
    row=$(needs | grep "^$name|")
    for proof in $(echo "$row" | cut -d'|' -f2); do
      present "$proof" || echo "$proof|$(echo "$row" | cut -d'|' -f3)"
    done
  done
}

known_names() { needs | cut -d'|' -f1 | tr '\n' ' '; }

# Debian starts the services of a package it installs; a test wants the programs only.
without_starting_services() {
  local policy=/usr/sbin/policy-rc.d made=no status
  if [ ! -e $policy ]; then
    made=yes
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
  fi
  "$@"
  status=$?
  [ $made = yes ] && rm -f $policy
  return $status
}

# PostgreSQL's package also makes a database cluster for the machine; a test makes its own.
without_making_clusters() {
  local folder=/etc/postgresql-common/createcluster.d file status made=no
  file=$folder/hotpair-tests.conf
  [ -d $folder ] || made=yes
  mkdir -p $folder && echo 'create_main_cluster = false' >$file
  # What fails there must not leave the file behind.
  ("$@")
  status=$?
  rm -f $file
  [ $made = yes ] && rmdir --ignore-fail-on-non-empty $folder
  return $status
}

install_packages() {
  export DEBIAN_FRONTEND=noninteractive
  local log
  log=$(mktemp) || fail "cannot make a temporary file"
  if ! without_starting_services apt-get -qq -o DPkg::Lock::Timeout=500 install -y \
    --no-install-recommends "$@" >"$log" 2>&1; then
    # The list of packages may be old or absent: once more with a new one.
    if ! { apt-get -qq -o DPkg::Lock::Timeout=500 update &&
      without_starting_services apt-get -qq -o DPkg::Lock::Timeout=500 install -y \
        --no-install-recommends "$@"; } >"$log" 2>&1; then
      tail -n 15 "$log" >&2
      rm -f "$log"
      fail "could not install: $*. Is a Debian package registry reachable? Install them by hand, then try again."
    fi
  fi
  rm -f "$log"
}

mode=install
case ${1:-} in
--list) known_names; echo; exit 0 ;;
--check) mode=check; shift ;;
esac
[ $# -gt 0 ] || fail "say what is needed; known: $(known_names)"
for name in "$@"; do
  needs | grep -q "^$name|" || fail "unknown name '$name'; known: $(known_names)"
done

missing=$(missing_proofs "$@")
[ -z "$missing" ] && exit 0
proofs=$(echo "$missing" | cut -d'|' -f1 | sort -u | tr '\n' ' ')
packages=$(echo "$missing" | cut -d'|' -f2 | tr ' ' '\n' | sort -u | tr '\n' ' ')
what="missing for '$*': ${proofs% }"
todo="apt-get install --no-install-recommends ${packages% }"
[ $mode = check ] && fail "$what (do: $todo)"
command -v apt-get >/dev/null || fail "$what (this system has no apt-get; install the like of ${packages% } by hand)"
[ "$(id -u)" = 0 ] || fail "$what (not root; do: sudo $todo)"

exec 9>/var/lock/hotpair-install.lock
flock -w 900 9 || fail "another install.sh has held /var/lock/hotpair-install.lock for 15 minutes"
# Somebody else may have installed it while we waited.
[ -z "$(missing_proofs "$@")" ] && exit 0
echo "installing ${packages% }" >&2
# shellcheck disable=SC2086  # package names are to be split
case $packages in
*postgresql*) without_making_clusters install_packages $packages || exit 1 ;;
*) install_packages $packages ;;
esac
missing=$(missing_proofs "$@")
[ -z "$missing" ] || fail "installed ${packages% }, and yet missing for '$*': $(echo "$missing" | cut -d'|' -f1 | tr '\n' ' ')"
