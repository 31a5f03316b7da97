#!/bin/sh
# Makes the volumes in this folder, as root: real ones of mkntfs and ntfs-3g,
# but for the table $UpCase, which is large and which nothing here reads: it
# becomes zeros. Another run gives other times and serial numbers; nothing
# depends on them.
set -eu
dir=$(mktemp -d /dev/shm/ntfs-seeds.XXXXXX)
here=$(cd "$(dirname "$0")" && pwd)

# make NAME SIZE CLUSTER MKNTFS-OPTIONS...
make() {
	name=$1 img=$dir/$1.img cluster=$3
	truncate -s "$2" "$img"
	shift 3
	mkntfs -q -Q -F -T -p 2048 -H 255 -S 63 -L "seed $name" -c "$cluster" "$@" "$img"
	mkdir -p "$dir/m"
	ntfs-3g -o compression,streams_interface=windows "$img" "$dir/m"
	(
		cd "$dir/m"
		mkdir packed
		python3 -c 'import os; os.setxattr("packed", "system.ntfs_attrib_be", b"\0\0\10\0")'
		seq 9000 | head -c 40000 >packed/numbers # compressed where clusters are small enough
		head -c 9000 /dev/zero >HiberFil.sys
		truncate -s 300000 sparse && echo end >>sparse
		echo stream >sparse:more
		# All of the room is taken and given back in pieces, so that the MFT
		# has to grow in pieces; and the root directory gets several blocks.
		mkdir fill
		for i in $(seq 70); do head -c "$((cluster * 3))" /dev/zero >"fill/$i"; done
		head -c 90000000 /dev/zero >rest 2>/dev/null || true
		for i in $(seq 1 2 70); do rm "fill/$i"; done
		for i in $(seq 60); do echo "$i" >"a name that is long enough to fill an index block soon $i"; done
		rm rest
	)
	umount "$dir/m"
	python3 - "$img" <<-'P'
		import sys
		b = bytearray(open(sys.argv[1], 'rb').read())
		at = b.index(b'\0\0\1\0\2\0\3\0\4\0\5\0')
		b[at:at + 131072] = bytes(131072)
		open(sys.argv[1], 'wb').write(b)
	P
	gzip -9n <"$img" >"$here/$name.gz"
}

make plain 6M 4096 -s 512
make small 5M 512 -s 512
make large 24M 65536 -s 4096
rm -r "$dir"
