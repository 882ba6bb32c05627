#!/bin/bash
# debian-tree.sh : a minimal Debian with systemd as a folder, to be booted by systemd-nspawn.
#
# Made once (about 80 s, 300 MB) under ${HOTPAIR_TEST_CACHE:-/var/tmp/hotpair-test-cache}, outside
# the repository, and never written to afterwards: each container has its own overlay on it. Prints
# the folder. Built beside its final name and renamed, so a half-built one is never used.
set -eu
export LC_ALL=C
cache=${HOTPAIR_TEST_CACHE:-/var/tmp/hotpair-test-cache}
include=systemd,systemd-sysv,dbus,iproute2,procps
# A change of what the tree holds is a change of its name.
tree=$cache/debian-$(echo "$include" | cksum | cut -d' ' -f1)
if [ -e "$tree/.complete" ]; then
  echo "$tree"
  exit 0
fi
[ "$(id -u)" = 0 ] || { echo "debian-tree.sh: needs root for debootstrap" >&2; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock -w 900 9 || { echo "debian-tree.sh: $cache/.lock was held for 15 minutes" >&2; exit 1; }
if [ ! -e "$tree/.complete" ]; then
  # The same registry that apt uses here, whatever it is.
  apt-get -qq update >&2 || true
  line=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN) $(LABEL)' \
    'Created-By: Packages' | grep -vE -- '-(security|updates|backports)' | grep -E ' main Debian Debian$' | head -n 1)
  [ -n "$line" ] || { echo "debian-tree.sh: apt knows no Debian registry (apt-get update first)" >&2; exit 1; }
  mirror=${line%% *}
  suite=$(echo "$line" | cut -d' ' -f2)
  rm -rf "$tree.partial"
  echo "building a minimal Debian ($suite) in $tree, once" >&2
  if ! debootstrap --variant=minbase --include=$include "$suite" "$tree.partial" "$mirror" >"$cache/debootstrap.log" 2>&1; then
    tail -n 15 "$cache/debootstrap.log" >&2
    exit 1
  fi
  rm -rf "$tree.partial"/var/cache/apt/archives/*.deb "$tree.partial"/var/lib/apt/lists/*
  touch "$tree.partial/.complete"
  mv "$tree.partial" "$tree"
fi
echo "$tree"
