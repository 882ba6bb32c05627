#!/bin/bash
# certificates.sh authority FOLDER [NAME]     makes FOLDER/authority.pem and FOLDER/authority.key
# certificates.sh issue FOLDER NAME SAN...    makes FOLDER/NAME.pem and FOLDER/NAME.key, signed by it
#
# A SAN is what others dial: an IP address or a DNS name; give each node the pair's name as well.
# The steps one by one, and what to keep where: docs/operations/tls.md.
# DAYS and AUTHORITY_DAYS (environment) say how long they are good: 365 and 3650 if not given.
set -eu
umask 077

usage() {
  sed -n '2,3s/^# //p' "$0" >&2
  exit 2
}

# Says what openssl said only if it failed.
quietly() {
  local said
  said=$("$@" 2>&1) || {
    echo "certificates.sh: $1 $2: $said" >&2
    exit 1
  }
}

new_key() { quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

authority() {
  local folder=$1 name=${2:-hotpair}
  mkdir -p "$folder"
  new_key "$folder/authority.key"
  quietly openssl req -x509 -new -key "$folder/authority.key" -sha256 -days "${AUTHORITY_DAYS:-3650}" \
    -subj "/CN=$name authority" -out "$folder/authority.pem" \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign,cRLSign"
  chmod 644 "$folder/authority.pem"
}

issue() {
  local folder=$1 name=$2 san names=
  shift 2
  for san in "$@"; do
    # Digits and dots, or anything with a colon, is an IP address.
    if [[ $san == *:* || $san =~ ^[0-9.]+$ ]]; then san=IP:$san; else san=DNS:$san; fi
    names=${names:+$names,}$san
  done
  new_key "$folder/$name.key"
  local request=$folder/$name.csr extensions=$folder/$name.ext
  quietly openssl req -new -key "$folder/$name.key" -sha256 -subj "/CN=$name" -out "$request"
  cat >"$extensions" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth,clientAuth
subjectAltName=$names
EXTENSIONS
  quietly openssl x509 -req -in "$request" -CA "$folder/authority.pem" -CAkey "$folder/authority.key" \
    -CAcreateserial -sha256 -days "${DAYS:-365}" -extfile "$extensions" -out "$folder/$name.pem"
  rm "$request" "$extensions"
  chmod 644 "$folder/$name.pem"
}

[ $# -ge 2 ] || usage
what=$1
shift
case $what in
authority) authority "$@" ;;
issue) [ $# -ge 3 ] && issue "$@" || usage ;;
*) usage ;;
esac
