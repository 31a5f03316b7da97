package disk

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

// checkDiscard discards the middle of a device full of ones: what is around it
// must stay, and a file behind it must shrink.
func checkDiscard(t *testing.T, dev *Device, file string) {
	t.Helper()
	ones := bytes.Repeat([]byte{1}, int(dev.Size()))
	_, err := dev.WriteAt(ones, 0)
	must(t, err, dev.Sync())
	before := blocksOf(t, file)
	if !dev.CanDiscard() {
		t.Fatal("it says that it cannot discard")
	}
	const off, n = 4096 - 512, 1<<20 + 1024
	must(t, dev.Discard(off, n), dev.Sync())
	got := make([]byte, len(ones))
	_, err = dev.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got[:off], ones[:off]) || !bytes.Equal(got[off+n:], ones[off+n:]) {
		t.Error("more than was asked is gone")
	}
	if after := blocksOf(t, file); after > before-2000 {
		t.Errorf("the file has %d blocks of 512 bytes, %d before", after, before)
	}
	if dev.Discard(dev.Size()-512, 1024) == nil {
		t.Error("a discard beyond the end is no error")
	}
}

func blocksOf(t *testing.T, file string) int64 {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(file, &st))
	return st.Blocks
}

func TestDiscardFile(t *testing.T) {
	devDir, file, d := fileDisk(t, 4<<20, 512)
	checkDiscard(t, open(t, devDir, d, true), file)
}

func TestDiscardLoop(t *testing.T) {
	devDir, file, _, d := loopDisk(t, 4<<20, 512)
	checkDiscard(t, open(t, devDir, d, true), file)
}
