#!/bin/sh
# Makes what docker-compose.yml reads as secrets, in deploy/secrets, and .env with whom the
# registry runs as. What is there already stays: run it again after an upgrade.
# The registry's own key is made by the program (docs/OPERATIONS.md), and never here.
set -eu
if [ "$(id -u)" = 0 ]; then
	echo "type this as the user whom the registry is to run as, not as root: .env would give the servers root's rights" >&2
	exit 1
fi
cd "$(dirname "$0")/.."
umask 077
mkdir -p deploy/secrets

# once FILE: writes standard input to deploy/secrets/FILE, unless it is there. The folder is for
# its owner alone; the files are read by several users, each in a container of its own.
once() {
	if [ -e "deploy/secrets/$1" ]; then cat >/dev/null; else cat >"deploy/secrets/.$1" && chmod 444 "deploy/secrets/.$1" && mv "deploy/secrets/.$1" "deploy/secrets/$1"; fi
}
random() { head -c 24 /dev/urandom | base64 | tr '+/' '-_'; }
secret() { tr -d '\n' <"deploy/secrets/$1"; }

random | once postgres_password
printf 'database:5432:aln:aln:%s\n' "$(secret postgres_password)" | once pgpass
random | once store_user
random | once store_password
printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' "$(secret store_user)" "$(secret store_password)" | once store_credentials
printf 'user = "%s:%s"\n' "$(secret store_user)" "$(secret store_password)" | once store_curl

# A certificate for this computer alone; put your own in its place.
if [ ! -e deploy/secrets/tls.crt ] && [ ! -e deploy/secrets/tls.key ]; then
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj /CN=localhost \
		-addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout deploy/secrets/.tls.key -out deploy/secrets/.tls.crt 2>/dev/null
	chmod 444 deploy/secrets/.tls.key deploy/secrets/.tls.crt
	mv deploy/secrets/.tls.key deploy/secrets/tls.key
	mv deploy/secrets/.tls.crt deploy/secrets/tls.crt
fi

[ -e .env ] || printf 'ALN_UID=%s\nALN_GID=%s\nALN_PUBLIC_URL=https://localhost:8443\n# The DID of the first admin, for the first start alone: aln-registry key show\nALN_ADMIN=\n' "$(id -u)" "$(id -g)" >.env
echo "deploy/secrets and .env are complete, but for deploy/secrets/registry.jwk where that is not there yet"
