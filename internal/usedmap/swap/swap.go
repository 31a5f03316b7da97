// Package swap reads the header of a Linux swap area.
//
// The format is union swap_header of the Linux kernel (include/linux/swap.h),
// and is read as mm/swapfile.c does. The first page begins with 1024 bytes for
// a boot loader or a disk label. Then come version, last_page, nr_badpages,
// UUID and label. The last 10 bytes of the page are a signature. The header
// does not have the page size. The page ends where the signature ends.
//
// The pages behind the header are worthless once the kernel that wrote them is
// gone. But a swap area can hold other things too. With the signature SWAPSPACE2
// this is the state of each:
//
//   - Hibernation (kernel/power/swap.c) writes the memory of the sleeping
//     system into free pages and replaces the signature by S1SUSPEND. At the
//     next boot the old signature is restored before the first page is read. So
//     an area with SWAPSPACE2 has no image, or one that was used or given up.
//     The same holds for S2SUSPEND, ULSUSPEND (uswsusp), LINHIB0001 and
//     TuxOnIce. An image in a swap file needs no care here, since its blocks
//     belong to the file.
//   - zswap and zram hold pages in memory. The pages that they write to the
//     area are like others.
//   - Swap that is encrypted with a new key at each boot has at most the header
//     in plain text.
//   - A crash dump of kernels older than kdump (LKCD, diskdump) stays in the
//     swap area from the crash until the next boot saves it. That may be the
//     very boot that was intercepted for an image, so a dump makes doubt.
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
	badPagesAt = 1536 // info.badpages, the last field before the signature
	crashMagic = 8    // bytes of the longest signature of a crash dump
	lkcdBig    = "\xa8\x19\x01\x73\x61\x8f\x23\xed"
	lkcdLittle = "\xed\x23\x8f\x61\x73\x01\x19\xa8"
	diskDump   = "DISKDUMP"
	kdump      = "KDUMP   "
)

// Read maps a swap area. All its pages but the first are free.
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

// signature finds the page size by the one signature that is there. It fails if
// there is another signature at the end of a page of any size: SWAP-SPACE is
// the format before 1998, whose header is a map of pages, and the rest are
// suspended systems.
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

// readInfo reads the header in the byte order of the machine that made it. Like
// the kernel it accepts both, and tells them apart by the version, which is 1.
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

// crashDump fails if there is a crash dump. LKCD has its header in page 1, in
// later versions at byte 64 KiB (struct dump_header). diskdump has it in page 1
// (disk_dump_header).
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
