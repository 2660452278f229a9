#!/bin/bash
# Makes releases as deploy/install makes them, in the machine's root directory: releases.sh ROOT SRV, in mount and PID
# namespaces of its own. What is below SRV is seen as /srv; the releases come to be in SRV/opt and SRV/later.
set -euo pipefail
root=$1
srv=$2

mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" none /mnt/root
mount --bind "$srv" /mnt/root/srv
mount -t proc none /mnt/root/proc
mount --rbind /dev /mnt/root/dev
within() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 chroot /mnt/root "$@"; }

within /srv/bakehouse/deploy/install --root /srv/made --wheels /srv/wheels
mv "$srv/made/opt/bakehouse/releases" "$srv/opt"
rm -rf "$srv/made"
cp -a "$srv/bakehouse" "$srv/bakehouse-later"
mv "$srv/bakehouse" "$srv/bakehouse-now"
mv "$srv/bakehouse-later" "$srv/bakehouse"
sed -i 's/^version = .*/version = "0.1.1"/' "$srv/bakehouse/pyproject.toml"
within /srv/bakehouse/deploy/install --root /srv/made --wheels /srv/wheels
mv "$srv/made/opt/bakehouse/releases" "$srv/later"
rm -rf "$srv/made" "$srv/bakehouse"
mv "$srv/bakehouse-now" "$srv/bakehouse"
