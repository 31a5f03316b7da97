# Runs in a chroot of the new root, once its packages and files are there.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin

useradd --create-home --shell /bin/bash --comment 'Testbox maintenance' testbox
usermod --password '*' root
usermod --password '*' testbox
mkdir -p /mnt/testbox-tftp /mnt/testbox-backup /media/root-ro /media/root-rw

# Made at each start, by each box for itself.
rm -f /etc/ssh/ssh_host_* /etc/hostname /var/lib/dbus/machine-id
: >/etc/machine-id
rm -f /etc/resolv.conf
: >/etc/resolv.conf

sed -i 's/^MODULES=.*/MODULES=netboot/' /etc/initramfs-tools/initramfs.conf
grep -q '^MODULES=netboot$' /etc/initramfs-tools/initramfs.conf

# What assembles, activates or scans disks by itself.
for rule in 64-md-raid-assembly 69-md-clustered-confirm-device 69-lvm 64-btrfs 64-btrfs-dm 64-btrfs-zoned 69-bcache 70-nvmf-autoconnect; do
	ln -sf /dev/null "/etc/udev/rules.d/$rule.rules"
done
mkdir -p /etc/systemd/system-generators
for generator in systemd-gpt-auto-generator systemd-hibernate-resume-generator systemd-cryptsetup-generator; do
	ln -sf /dev/null "/etc/systemd/system-generators/$generator"
done
systemctl --quiet mask mdmonitor.service mdmonitor-oneshot.timer mdcheck_start.timer mdcheck_continue.timer \
	lvm2-monitor.service lvm2-lvmpolld.socket blk-availability.service \
	cryptdisks.service cryptdisks-early.service smartmontools.service \
	nvmf-autoconnect.service nvmefc-boot-connections.service nfs-blkmap.service \
	fstrim.timer e2scrub_all.timer e2scrub_reap.service \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer logrotate.timer man-db.timer \
	systemd-remount-fs.service systemd-firstboot.service systemd-pstore.service systemd-repart.service \
	systemd-networkd.service systemd-networkd.socket networking.service NetworkManager.service dhcpcd.service \
	rpc-statd-notify.service hibernate.target suspend.target sleep.target
systemctl --quiet enable testbox-maintenance.service testbox-ssh-keys.service ssh.service
systemctl --quiet set-default multi-user.target

update-initramfs -c -k all
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/*.log /tmp/* /var/tmp/*
