// Package swap reads the header of a Linux swap area.
//
// The format is union swap_header of the Linux kernel (include/linux/swap.h),
// read as mm/swapfile.c does: in the first page 1024 bytes for a boot loader
// or a disk label, then version, last_page, nr_badpages, UUID and label, and a
// signature in the page's last 10 bytes. The header says nothing of the page
// size: where the signature is, the page ends.
//
// Nothing in the pages behind the header outlives the kernel that wrote them.
// What a signature of SWAPSPACE2 means for those who put more there:
//
//   - Hibernation (kernel/power/swap.c) writes the memory of the sleeping system
//     among the swapped pages and puts S1SUSPEND in the place of the signature.
//     At the next boot the old signature comes back before the first page is
//     read, so an area of SWAPSPACE2 has no image, or one that was used or
//     given up. The same holds for S2SUSPEND, ULSUSPEND (uswsusp), LINHIB0001
//     and TuxOnIce. An image in a swap file is no matter of ours: its blocks
//     belong to the file.
//   - zswap and zram hold pages in memory; what they wrote back is pages as
//     others.
//   - Swap that is encrypted with a new key at each boot has at most the
//     header left in the clear.
//   - A crash dump of the kernels before kdump (LKCD, diskdump) lies in the swap
//     area from the crash until the next boot saves it, which may be the very
//     boot that was caught for an image. That is doubt.
package swap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"testbox-imaging/internal/usedmap/volume"
)

const (
	minPage = 4 << 10 // the page sizes of the systems that Linux runs on
	maxPage = 64 << 10

	signed     = "SWAPSPACE2"
	tuxOnIce   = "\xed\xc3\x02\xe9\x98\x56\xe5\x0c"
	infoAt     = 1024 // info.version
	badPagesAt = 1536 // info.badpages: nothing of the header is behind it but the signature
	crashMagic = 8    // bytes of the longest signature of a crash dump
	lkcdBig    = "\xa8\x19\x01\x73\x61\x8f\x23\xed"
	lkcdLittle = "\xed\x23\x8f\x61\x73\x01\x19\xa8"
	diskDump   = "DISKDUMP"
	kdump      = "KDUMP   "
)

// Read says that all pages of a swap area but the first are free.
func Read(v *volume.Volume) (*volume.Found, error) {
	head, err := v.Bytes(0, int(min(v.Size(), maxPage+crashMagic)))
	if err != nil {
		return nil, err
	}
	page, found, err := signature(head)
	if err != nil {
		return found, err
	}
	h, err := readInfo(head)
	if err != nil {
		return found, err
	}
	found.Label, found.UUID = h.label, h.uuid
	found.Size = (h.lastPage + 1) * page
	switch {
	case h.lastPage == 0:
		return found, fmt.Errorf("the swap area has no pages")
	case found.Size > v.Size():
		return found, fmt.Errorf("the swap area has %d bytes, its volume %d", found.Size, v.Size())
	case h.badPages != 0:
		return found, fmt.Errorf("the swap area has a list of %d bad pages", h.badPages)
	}
	if err := crashDump(head); err != nil {
		return found, err
	}
	found.Free = &volume.Free{}
	found.Free.Add(page, found.Size-page)
	return found, nil
}

// signature finds the page size by the one signature that is there. Any other
// one, at the end of a page of any size, is doubt: SWAP-SPACE is the format
// before 1998, whose header is a map of pages, the rest are suspended systems.
func signature(head []byte) (page int64, found *volume.Found, err error) {
	if bytes.HasPrefix(head, []byte(tuxOnIce)) {
		return 0, &volume.Found{FS: "swsuspend"}, suspended("TuxOnIce")
	}
	for size := minPage; size <= min(maxPage, len(head)); size *= 2 {
		mark := string(head[size-len(signed) : size])
		switch {
		case mark == signed && page != 0:
			return 0, found, fmt.Errorf("the swap area has signatures of %d-byte and of %d-byte pages", page, size)
		case mark == signed:
			page, found = int64(size), &volume.Found{FS: "swap"}
		case mark == "SWAP-SPACE":
			return 0, &volume.Found{FS: "swap"}, fmt.Errorf("the swap area has the old format (SWAP-SPACE)")
		case strings.HasPrefix(mark, tuxOnIce):
			return 0, &volume.Found{FS: "swsuspend"}, suspended("TuxOnIce")
		}
		for _, name := range []string{"S1SUSPEND", "S2SUSPEND", "ULSUSPEND", "LINHIB0001"} {
			if strings.HasPrefix(mark, name) {
				return 0, &volume.Found{FS: "swsuspend"}, suspended(name)
			}
		}
	}
	if page == 0 {
		return 0, nil, fmt.Errorf("no swap signature")
	}
	return page, found, nil
}

func suspended(name string) error {
	return fmt.Errorf("the swap area holds the memory of a suspended system (%s)", name)
}

// info is swap_header.info.
type info struct {
	lastPage, badPages int64
	label, uuid        string
}

// readInfo reads the header in the byte order of the machine that made it: the
// kernel takes both, and knows them by the version, which is 1.
func readInfo(head []byte) (*info, error) {
	b := head[infoAt:badPagesAt]
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(b) != 1 {
		order = binary.BigEndian
	}
	if order.Uint32(b) != 1 {
		return nil, fmt.Errorf("the swap area has the unknown version %d", binary.LittleEndian.Uint32(b))
	}
	h := &info{lastPage: int64(order.Uint32(b[4:])), badPages: int64(order.Uint32(b[8:]))}
	h.uuid = volume.UUID(b[12:28])
	label, _, _ := bytes.Cut(b[28:44], []byte{0})
	h.label = string(label)
	return h, nil
}

// crashDump looks where LKCD (page 1 at first, later byte 64 KiB) and diskdump
// (page 1) have their headers: struct dump_header, disk_dump_header.
func crashDump(head []byte) error {
	for _, at := range []int{minPage, maxPage} {
		if len(head) < at+crashMagic {
			continue
		}
		switch string(head[at : at+crashMagic]) {
		case lkcdBig, lkcdLittle, diskDump, kdump:
			return fmt.Errorf("the swap area holds a crash dump that may not be saved yet")
		}
	}
	return nil
}
