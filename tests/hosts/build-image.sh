#!/usr/bin/env bash
# Builds the image of the test hosts from Debian's packages alone, with no container registry, and prints its name.
# The name carries a checksum of this file: what is built already is not built again.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
podman=$here/podman
image=localhost/backstop-host:bookworm-$(sha256sum "$here/build-image.sh" | cut -c1-12)

if ! "$podman" image exists "$image"; then
    packages=(
        systemd systemd-sysv dbus openssh-server iproute2 procps sudo acl ca-certificates cron git
        python3 python3-apt python3-psycopg2
        postgresql-15 nodejs npm
    )
    masked=(
        systemd-logind.service getty.target console-getty.service systemd-udevd.service
        apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
    )
    # Host keys are made at the first start, so that no two hosts share one.
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
        bookworm - |
        "$podman" import --change 'CMD=["/sbin/init"]' --change STOPSIGNAL=SIGRTMIN+3 - "$image" >&2
fi
echo "$image"
