package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/bench/measure"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/testenv"
)

// A room of boxes is a server and boxes with slow ports at one switch, which is a host
// of its own. So two processors do more than all the ports together, and what a room takes is
// what its ports let through.
//
//	10.88.0.1  server ── port ──┐
//	10.88.0.21 box    ── port ──┤ br0
//	10.88.0.22 box    ── port ──┤
//	...                         ┘

const (
	// roomRegions is how many regions of an image have something in them, roomRegion how far they are
	// apart. A page of an image is about one region.
	roomRegions = 16
	roomRegion  = 256 * mib
	roomDisk    = roomRegions * roomRegion
	firstBox    = 21
	sourceBox   = 11
	roomGroup   = "lab"
	// changed is how long a run of bytes is that differs: between the two backups of the source, and on disks that have most
	// of the image already.
	changed = 512 << 10
	// unitsInMemory is for how many units before compression a box has memory, for itself and for others, in
	// the benchmark. It is what boxes have by themselves: 512 MiB, and units of 8 MiB. fewInMemory is that of the test,
	// whose image would not fill more.
	unitsInMemory = 64
	fewInMemory   = 32
)

// labTCP makes TCP in a host of a room what it is in a lab, whatever this machine has. With a slow port TCP
// sends one or two packets at a time, and the processors would work for packets. With fast ports, of which
// these are a model, it sends some dozens. The congestion control is of the family of what Debian has, which
// not each kernel lets a network namespace use.
func labTCP(t testing.TB, h host) {
	t.Helper()
	for name, value := range map[string]string{"tcp_congestion_control": "reno", "tcp_min_tso_segs": "16"} {
		argv := h.in("tee", "/proc/sys/net/ipv4/"+name)
		run(t, value, argv[0], argv[1:]...)
	}
}

// roomSite is a server, the disk of which it has a backup, and boxes that can restore that.
type roomSite struct {
	*serverSite
	source *testDisk
	data   []image.Range // of the source, which an image has
	// foreign is the name of a page of another backup of the source. Only a region differs there.
	foreign object.Name
	evil    []*hostile // of the round that runs
	boxes   []*servedBox
	port    string // of the switch, to which the server is connected
	mbit    int    // what each port lets through, in Mbit/s; 0 is all
}

// newRoomSite makes a room. each is how many bytes of a region are used, inMemory for how many units before
// compression a box has memory.
func newRoomSite(t testing.TB, boxes int, each, inMemory int64) *roomSite {
	t.Helper()
	testenv.Tools(t, "tc", "sfdisk", "mkswap")
	r := &roomSite{serverSite: initServer(t, tempDir(t), fmt.Sprintf("[room]\nunit = %d\n", *roomsKiB<<10))}
	r.lan, r.host = newHost(t), newHost(t)
	for _, command := range []string{"link set lo up", bridge, "link set br0 up"} {
		r.lan.ip(t, command)
	}
	labTCP(t, r.host)
	r.port = r.join(r.host, serverIP)
	r.start()
	r.source = disk("sda", func(t testing.TB, path string) { r.data = scatter(t, path, each) }).ofSize(roomDisk)
	b := r.box(sourceBox, r.source)
	writeAt(t, r.source.file, mib, noise(wreckSeed, changed))
	b.act(done, "backup")
	other := &hostile{servedBox: b, id: b.ask("restore")}
	other.open(t.Context())
	r.foreign = other.image.Root.Pages[0]
	other.close()
	half(t, r.source.file, image.Range{Off: mib, Len: each}, 0)
	b.act(done, "backup")
	r.rooms(true)
	for i := range boxes {
		b := r.box(firstBox+i, disk("sda", nil).ofSize(roomDisk))
		labTCP(t, b.host)
		b.args = []string{"--room-memory", fmt.Sprint(inMemory * *roomsKiB << 10)}
		r.does(done, []string{"box", "add", b.addr, "--groups", roomGroup})
		r.boxes = append(r.boxes, b)
	}
	return r
}

// limit lets no more than so many Mbit/s through each port, in each direction.
func (r *roomSite) limit(mbit int) {
	r.t.Helper()
	if mbit == r.mbit {
		return
	}
	r.mbit = mbit
	limit := func(h host, card string) {
		// A burst is what 4 ms let through, but no less than the longest packet.
		argv := h.in(strings.Fields(fmt.Sprintf("tc qdisc replace dev %s root tbf rate %dmbit burst %d latency 50ms", card, mbit,
			max(64<<10, mbit*500)))...)
		run(r.t, "", argv[0], argv[1:]...)
	}
	limit(r.host, "eth0")
	limit(r.lan, r.port)
	for _, b := range r.boxes {
		limit(b.host, "eth0")
		limit(r.lan, b.port)
	}
}

// rooms lets boxes get chunks from each other, or not.
func (r *roomSite) rooms(on bool) {
	r.t.Helper()
	r.does(done, []string{"group", "set", roomGroup, "--peers", map[bool]string{true: "on", false: "off"}[on]})
}

// isolate keeps boxes from each other, as a firewall does that drops what it does not like, or lets
// them speak again. They reach the server all the same.
func (r *roomSite) isolate(on bool) {
	r.t.Helper()
	for _, b := range r.boxes {
		r.lan.ip(r.t, fmt.Sprintf("link set %s type bridge_slave isolated %s", b.port, map[bool]string{true: "on", false: "off"}[on]))
	}
}

// scatter makes a disk with a partition of data in each region. The rest of the region is swap, of which an
// image has the header alone. It returns what an image has.
func scatter(t testing.TB, path string, each int64) (used []image.Range) {
	t.Helper()
	const swapHeader = 4096
	used = []image.Range{{Off: 0, Len: mib}, {Off: roomDisk - mib, Len: mib}} // with the tables
	table, data, swaps := "label: gpt\n", []image.Range{}, []image.Range{}
	for i := range int64(roomRegions) {
		from, to := max(i*roomRegion, mib), min((i+1)*roomRegion, roomDisk-mib)
		d := image.Range{Off: from, Len: each}
		s := image.Range{Off: from + each, Len: to - from - each}
		data, swaps = append(data, d), append(swaps, s)
		used = append(used, image.Range{Off: from, Len: each + swapHeader})
		table += fmt.Sprintf("start=%d, size=%d, type=linux\nstart=%d, size=%d, type=swap\n", d.Off/512, d.Len/512, s.Off/512, s.Len/512)
	}
	run(t, table, "sfdisk", "-q", path)
	for i := range data {
		half(t, path, data[i], i)
		swap := filepath.Join(t.TempDir(), "swap")
		must(t, os.WriteFile(swap, nil, 0o600))
		must(t, os.Truncate(swap, swaps[i].Len))
		run(t, "", "mkswap", swap)
		writeAt(t, path, swaps[i].Off, readPart(t, swap, 0, swapHeader))
	}
	return used
}

// half fills a range with turns of what does not compress, and of what nearly vanishes.
func half(t testing.TB, path string, r image.Range, seed int) {
	t.Helper()
	const turn = 128 << 10
	b := noise(uint64(seed), int(r.Len))
	for off := turn; off < len(b); off += 2 * turn {
		piece := b[off:min(off+turn, len(b))]
		mark := fmt.Sprintf("byte %d of the data of region %d; ", off, seed)
		copy(piece, strings.Repeat(mark, len(piece)/len(mark)+1))
	}
	writeAt(t, path, r.Off, b)
}

// wipe makes a disk as it was when it was new.
func (d *testDisk) wipe(t testing.TB) {
	t.Helper()
	dev, err := os.OpenFile(d.dev, os.O_RDWR, 0)
	must(t, err)
	defer dev.Close()
	must(t, setReadOnly(dev, false))
	must(t, os.Truncate(d.file, 0))
	must(t, os.Truncate(d.file, d.size))
	must(t, unix.IoctlSetInt(int(dev.Fd()), unix.BLKFLSBUF, 0))
}

// nearly makes the disk of a box the image, but for a twentieth, which is another one for each box.
func (r *roomSite) nearly(b *servedBox, number int) {
	r.t.Helper()
	const block = changed
	d := b.disks[0]
	d.wipe(r.t)
	for _, u := range r.data {
		data := readPart(r.t, r.source.file, u.Off, u.Len)
		for at := 0; at+block <= len(data); at += block {
			if n := int(u.Off)/block + at/block; (n*7919+number*104729+n*number*31)%1000 < 50 {
				copy(data[at:], noise(wreckSeed, block))
			}
		}
		writeAt(r.t, d.file, u.Off, data)
	}
}

// same compares the disk of a box with the source, where the image has something.
func (r *roomSite) same(b *servedBox) bool {
	r.t.Helper()
	d := b.disks[0]
	dev, err := os.Open(d.dev)
	must(r.t, err)
	must(r.t, unix.Fsync(int(dev.Fd())))
	must(r.t, dev.Close())
	for _, u := range r.data {
		if !bytes.Equal(readPart(r.t, d.file, u.Off, u.Len), readPart(r.t, r.source.file, u.Off, u.Len)) {
			return false
		}
	}
	return true
}

// roomUsed is what a room has used so far.
type roomUsed struct {
	server          int // process
	cpu             measure.Used
	sent            int64 // by the server, with what Ethernet, TCP and TLS add
	working, passed int64 // of the processors of this machine, in hundredths of a second
}

func (r *roomSite) used() (u roomUsed) {
	r.t.Helper()
	u.server = r.proc.Process.Pid
	var err error
	u.cpu, err = measure.Process(u.server)
	must(r.t, err)
	argv := r.lan.in("cat", "/proc/net/dev")
	for line := range strings.Lines(run(r.t, "", argv[0], argv[1:]...)) {
		if name, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); name == r.port {
			u.sent, err = strconv.ParseInt(strings.Fields(rest)[0], 10, 64) // received by the switch
			must(r.t, err)
		}
	}
	const idle, wait = 3, 4
	text, err := os.ReadFile("/proc/stat")
	must(r.t, err)
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line)[1:9] {
		n, err := strconv.ParseInt(f, 10, 64)
		must(r.t, err)
		if u.passed += n; i != idle && i != wait {
			u.working += n
		}
	}
	return u
}

// ran is how one box went through a round.
type ran struct {
	*agent
	id         string
	begin, end time.Time
	cpu        time.Duration
	rss        int64
}

func (a *ran) took() time.Duration { return a.end.Sub(a.begin) }

// watch notes what a process uses, until it ends.
func (a *ran) watch(wg *sync.WaitGroup) {
	wg.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-a.ended:
				a.end = time.Now()
				a.cpu = a.cmd.ProcessState.UserTime() + a.cmd.ProcessState.SystemTime()
				return
			case <-tick.C:
				if u, err := measure.Process(a.cmd.Process.Pid); err == nil {
					a.rss = u.RSS
				}
			}
		}
	})
}

// addrOf is the address of the box with that number.
func (s *serverSite) addrOf(number int) string { return fmt.Sprintf("10.88.0.%d", number) }
