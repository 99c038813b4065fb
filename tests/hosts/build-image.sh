#!/usr/bin/env bash
# Builds the image of the test hosts from Debian's packages alone, with no container registry, and prints its name.
# The name carries a checksum of this file and of what lies in root/: what is built already is not built again.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
podman=$here/podman
bytecode=$here/../support/kept_bytecode/kept_bytecode.py
mapfile -t files < <(cd "$here/root" && find . -type f | LC_ALL=C sort)
checksum=$(cd "$here/root" && cat "$here/build-image.sh" "$bytecode" "${files[@]}" | sha256sum | cut -c1-12)
image=localhost/backstop-host:bookworm-$checksum

if ! "$podman" image exists "$image"; then
    packages=(
        systemd systemd-sysv dbus openssh-server iproute2 procps sudo acl ca-certificates cron git
        python3 python3-apt python3-psycopg2
        postgresql-15 nodejs npm prometheus-node-exporter
    )
    masked=(
        systemd-logind.service getty.target console-getty.service systemd-udevd.service
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
    )
    overlay=$(mktemp)
    trap 'rm -f "$overlay"' EXIT
    tar --create --file="$overlay" --directory="$here/root" --owner=0 --group=0 --mode=u=rwX,go=rX "${files[@]}"
    # Host keys are made at the first start. The user of the deploy has no rights beyond what a scenario gives.
    # shellcheck disable=SC2016
    mmdebstrap --variant=minbase --quiet \
        --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='force-unsafe-io' \
        --include="$(
            IFS=,
            echo "${packages[*]}"
        )" \
        --customize-hook='rm -f "$1"/etc/machine-id "$1"/var/lib/dbus/machine-id "$1"/etc/ssh/ssh_host_*; : >"$1"/etc/machine-id' \
        --customize-hook="chroot \"\$1\" systemctl mask ${masked[*]}" \
        --customize-hook='mkdir -p "$1"/etc/systemd/system/ssh.service.d' \
        --customize-hook='printf "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n" >"$1"/etc/systemd/system/ssh.service.d/keys.conf' \
        --customize-hook='chroot "$1" useradd --create-home --home-dir /srv/deployer --shell /bin/bash deployer' \
        --customize-hook='echo "host all all samenet scram-sha-256" >>"$1"/etc/postgresql/15/main/pg_hba.conf' \
        --customize-hook="tar-in $overlay /" \
        --customize-hook="copy-in $bytecode /usr/lib/python3/dist-packages" \
        --customize-hook='echo "import kept_bytecode" >"$1"/usr/lib/python3/dist-packages/kept_bytecode.pth' \
        bookworm - |
        "$podman" import --change 'CMD=["/sbin/init"]' --change STOPSIGNAL=SIGRTMIN+3 - "$image" >&2
fi
echo "$image"
