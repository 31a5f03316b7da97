package match

import (
	"fmt"
	"strings"
	"testing"
)

// TestAlike: twins are what the rules do not know any more, or mix up, when the disks have changed places.
func TestAlike(t *testing.T) {
	for _, c := range []struct {
		disks []string
		want  string // with + where the places tell them apart
	}{
		{words{"sda serial=A path=p1", "sdb serial=B path=p2"}, ""},
		{words{"sda wwn=naa.1", "sdb wwn=naa.2"}, ""},
		{words{"vda path=p1", "vdb path=p2"}, "vda vdb+"},
		{words{"vda path=p1 serial=A", "vdb path=p2"}, ""},
		{words{"vda path=p1 size=9", "vdb path=p2"}, ""},
		{words{"sda path=p1 model=M", "sdb path=p2 model=N"}, ""},
		{words{"vda path=p1", "vdb path=p1"}, "vda vdb"},
		{words{"vda", "vdb"}, "vda vdb"},
		{words{"sda serial=X path=p1", "sdb serial=X path=p2"}, "sda sdb+"},
		{words{"sda serial=X wwn=naa.1", "sdb serial=X wwn=naa.2"}, ""},
		{words{"sdj path=p1", "sdaa path=p2", "sdb path=p3 size=9", "sdc path=p4 size=9"}, "sdb sdc+ sdj sdaa+"},
		{words{"sda usb", "sdb usb"}, ""},
		{words{"nvme0n1 serial=A ns=1", "nvme0n2 serial=A ns=2"}, ""},
		{words{"sda wwn=naa.1 serial=A path=p1 bus=sas", "sdb wwn=naa.1 serial=A path=p2 bus=sas"}, ""},
	} {
		var got []string
		for _, twins := range Alike(disksOf(t, c.disks)) {
			text := strings.Join(twins.Disks, " ")
			if twins.Placed {
				text += "+"
			}
			got = append(got, text)
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%q: %q, not %q", c.disks, text, c.want)
		}
	}

	// What Alike says is what a restore does when two disks have changed places.
	for disks, want := range map[[2]string]string{
		{"vda path=p1", "vdb path=p2"}:                       "vda=vda vdb=vdb", // which are the wrong ones
		{"vda", "vdb"}:                                       "",
		{"sda serial=A path=p1", "sdb serial=B path=p2"}:     "sda=sdb sdb=sda",
		{"sda serial=X path=p1", "sdb serial=X path=p2"}:     "sda=sda sdb=sdb",
		{"sda wwn=naa.1 serial=X", "sdb wwn=naa.2 serial=X"}: "sda=sdb sdb=sda",
	} {
		var now []string // the disk that was the first has the name and the place of the second
		for i := range disks {
			name, _, _ := strings.Cut(disks[i], " ")
			spec := name
			for _, w := range strings.Fields(disks[1-i])[1:] {
				if !strings.HasPrefix(w, "path=") {
					spec += " " + w
				}
			}
			if strings.Contains(disks[i], "path=") {
				spec += fmt.Sprintf(" path=p%d", i+1)
			}
			now = append(now, spec)
		}
		if got, _, _, _ := match(t, disks[:], now, nil); got != want {
			t.Errorf("%q, now %q: %q, not %q", disks, now, got, want)
		}
	}
}
