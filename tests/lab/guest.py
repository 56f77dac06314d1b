# Copyright: holdfast.virt contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What runs inside the laboratory's guests: the VM's first process, and the writer of both kinds."""

from __future__ import annotations

READY = "LAB-READY"
"""What the VM writes to its serial port when its disks are mounted and the writer runs."""
BOOTED = "LAB-BOOTED"
"""What it writes when it was only started to see whether a kernel gets that far (``lab=probe`` on its command line)."""

WRITER = """\
#!/bin/sh
# Appends numbered lines, each with its checksum, to the log in every folder given; one folder after the other, each
# flushed before the next. A line is in the second log only if it is in the first. At start the last numbers found are
# noted.
last() { tail -n 1 "$1/writer.log" 2>/dev/null | cut -d " " -f 1; }
state=
for folder in "$@"; do
    number=$(last "$folder")
    state="$state ${number:-0}"
done
for folder in "$@"; do
    echo "$state" >>"$folder/boots.log"
done
sync
number=$(last "$1")
number=${number:-0}
while :; do
    number=$((number + 1))
    sum=$(echo "$number" | md5sum | cut -d " " -f 1)
    for folder in "$@"; do
        echo "$number $sum" | dd of="$folder/writer.log" oflag=append conv=notrunc,fsync 2>/dev/null
    done
    sleep 0.2
done
"""

SHUTDOWN = """\
#!/bin/sh
# Asked for by the guest agent and by the power button.
killall -9 writer
for folder in /a /b; do
    umount "$folder" || { sleep 0.2; umount "$folder"; } || mount -o remount,ro "$folder"
done
sync
poweroff -f
"""

INIT = """\
#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mkdir -p /var/run /run/lock
if grep -q lab=probe /proc/cmdline; then
    echo LAB-BOOTED >/dev/ttyS0
    poweroff -f
fi
for module in /modules/*; do
    insmod "$module" 2>/dev/null
done
tries=0
while [ ! -b /dev/sda ] || [ ! -b /dev/vda ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || break
    sleep 0.1
done
mount -t ext4 /dev/sda /a
mount -t ext4 /dev/vda /b
for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" = org.qemu.guest_agent.0 ] && agent=/dev/${port##*/}
done
[ -z "$agent" ] || qemu-ga -d -m virtio-serial -p "$agent" -l /var/log/qga.log -f /run/qga.pid
acpid -c /etc/acpi 2>/dev/null
writer /a /b &
echo LAB-READY >/dev/ttyS0
while :; do
    sleep 3600
done
"""
