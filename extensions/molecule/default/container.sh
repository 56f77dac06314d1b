#!/bin/sh
# container.sh ID FIRST_UID: make the volume of a small container, with files whose restore can be compared.
# The owners of the files begin at FIRST_UID, as the container's id map says.
set -eu
id=$1 first=$2
seed=/var/tmp/seed
volume=/var/lib/vz/images/$id/subvol-$id-disk-0.subvol

rm -rf "$seed"
lxc-create -P "$seed" -n "$id" -t busybox
cd "$seed/$id/rootfs/root"
uname -n >who
chmod 640 who
ln who same
ln -s ../root/who link
mknod fifo p
head -c 8M /dev/urandom >data
truncate -s 64M sparse
chown -hR "$first:$first" "$seed/$id/rootfs"
chown "$((first + 1000)):$((first + 100))" who
setfacl -m "u:$((first + 1001)):r" who
setfattr -n user.origin -v "container $id" data

# The volume appears when it is complete.
mkdir -p "$(dirname "$volume")"
mv "$seed/$id/rootfs" "$volume"
