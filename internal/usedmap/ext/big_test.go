package ext

import (
	"testing"
	"time"

	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/testenv"
)

// A file system of 1 TiB takes well below two seconds of the processor, with
// all bitmaps written and with none.
func TestBig(t *testing.T) {
	testenv.Root(t)
	for _, args := range [][]string{
		{"-O", "^metadata_csum,^uninit_bg", "-N", "1000000", "-J", "size=4", "-E", "nodiscard"},
		{"-N", "1000000", "-J", "size=4", "-E", "nodiscard"},
		{"-N", "1000000", "-J", "size=4", "-E", "nodiscard,packed_meta_blocks=1"},
	} {
		img := realfs.Ext.Make(t, 1<<40, args...)
		before := realfs.ProcessorTime(t)
		found, err := realfs.Map(t, img, Read)
		if err != nil {
			t.Fatal(err)
		}
		took := realfs.ProcessorTime(t) - before
		t.Logf("%v: %v", args, took)
		if took > 3*time.Second || found.Free.Bytes() < 1<<40-8<<30 {
			t.Errorf("%v: %v of the processor, %d bytes are free", args, took, found.Free.Bytes())
		}
	}
}
