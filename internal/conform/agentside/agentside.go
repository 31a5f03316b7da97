// Package agentside is the suite of tests for an agent.Arming and its
// agent.Home. It is not in package conform, since packages that the agent
// imports use conform in their tests.
package agentside

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"testbox-imaging/internal/agent"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/copier"
	"testbox-imaging/internal/disk"
	"testbox-imaging/internal/efi"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
	"testbox-imaging/internal/match"
)

// Side is an implementation under test, for one box that has no backup yet.
type Side interface {
	// Arm arms the box, and replaces what it was armed with before.
	Arm(t *testing.T, cmd bootcfg.Cmdline)
	// Start makes the Arming of an agent that was started with cmd.
	Start(t *testing.T, cmd *bootcfg.Cmdline, now func() time.Time, voice agent.Voice) agent.Arming
	// ReadLog returns the text of the box's log.
	ReadLog(t *testing.T) string
	// Cmdline is a command line for the box, without action and arming.
	Cmdline() bootcfg.Cmdline
}

// Conforms tests an agent.Arming and its agent.Home. open returns a Side for
// each test.
func Conforms(t *testing.T, open func(t *testing.T) Side) {
	tests := []struct {
		name string
		run  func(*testing.T, *agentCase)
	}{
		{"agrees", testAgrees}, {"disarm", testDisarm}, {"disarm-armed-anew", testDisarmAnew}, {"clock", testAgentClock},
		{"record", testRecord}, {"record-of-another-arming", testRecordOther}, {"done-by-commit", testDoneByCommit},
		{"log", testAgentLog}, {"inventory", testInventory}, {"firmware", testFirmware}, {"selection", testSelection},
		{"no-images", testNoImages}, {"backup", testAgentBackup}, {"backup-given-up", testAgentAbort},
		{"bad-sectors", testAgentBad}, {"names-stay", testAgentNames},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, &agentCase{Side: open(t)}) })
	}
}

// agentCase is a side with helpers for the tests.
type agentCase struct {
	Side
	said agentVoice
}

// start arms the box for an action and starts its agent.
func (c *agentCase) start(t *testing.T, action box.Action) (agent.Arming, agent.Home) {
	t.Helper()
	cmd := c.Cmdline()
	cmd.Action, cmd.Arming = action, box.NewArming()
	c.Arm(t, cmd)
	return c.again(t, &cmd)
}

// again starts an agent with the command line, as after a power cut.
func (c *agentCase) again(t *testing.T, cmd *bootcfg.Cmdline) (agent.Arming, agent.Home) {
	t.Helper()
	a := c.Start(t, cmd, func() time.Time { return time.Now().UTC() }, &c.said)
	must(t, a.Reach())
	h, err := a.Open()
	must(t, err)
	must(t, h.Recover())
	return a, h
}

// agentVoice collects what an implementation says.
type agentVoice struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (v *agentVoice) Info(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintf(&v.text, format+"\n", args...)
}
func (v *agentVoice) Error(format string, args ...any) { v.Info("error: "+format, args...) }
func (v *agentVoice) Warn(format string, args ...any)  { v.Info("warning: "+format, args...) }

// wantArmed checks whether the box is armed for this agent.
func wantArmed(t *testing.T, a agent.Arming, want bool) {
	t.Helper()
	_, err := a.Agrees()
	if not := errors.As(err, new(*agent.NotArmedError)); not == want || want && err != nil {
		t.Errorf("the box should be armed %v: %v", want, err)
	}
}

func testAgrees(t *testing.T, c *agentCase) {
	cmd := c.Cmdline()
	cmd.Action, cmd.Arming = box.Verify, box.NewArming()
	a, _ := c.again(t, &cmd)
	wantArmed(t, a, false)
	c.Arm(t, cmd)
	if version, err := a.Agrees(); version == "" || err != nil {
		t.Errorf("the version is %q, %v", version, err)
	}
	for what, change := range map[string]func(*bootcfg.Cmdline){
		"action":  func(c *bootcfg.Cmdline) { c.Action = box.Restore },
		"arming":  func(c *bootcfg.Cmdline) { c.Arming = box.NewArming() },
		"disks":   func(c *bootcfg.Cmdline) { c.Disks = []string{"sdb"} },
		"map":     func(c *bootcfg.Cmdline) { c.Map = []string{"sda=sdb"} },
		"images":  func(c *bootcfg.Cmdline) { c.OldImages = true },
		"machine": func(c *bootcfg.Cmdline) { c.AcceptMachine = true },
		"from":    func(c *bootcfg.Cmdline) { c.From = "10.88.0.99" },
		"hooks":   func(c *bootcfg.Cmdline) { c.Action, c.Hooks = box.Restore, box.Hooks },
	} {
		other := cmd
		change(&other)
		c.Arm(t, other)
		if _, err := a.Agrees(); err == nil || errors.As(err, new(*agent.NotArmedError)) {
			t.Errorf("armed with another %s: %v", what, err)
		}
	}
}

func testDisarm(t *testing.T, c *agentCase) {
	a, _ := c.start(t, box.Verify)
	wantArmed(t, a, true)
	for range 2 { // an answer may have been lost
		must(t, a.Disarm(agent.End{Outcome: box.Done}))
		wantArmed(t, a, false)
	}
}

func testDisarmAnew(t *testing.T, c *agentCase) {
	first, _ := c.start(t, box.Verify)
	second, _ := c.start(t, box.Restore)
	must(t, first.Disarm(agent.End{Outcome: box.Done}))
	wantArmed(t, second, true)
}

func testAgentClock(t *testing.T, c *agentCase) {
	a, h := c.start(t, box.Verify)
	for _, clock := range []func() (time.Duration, error){a.Clock, h.Clock} {
		if ahead, err := clock(); err != nil || ahead.Abs() > 5*time.Second {
			t.Errorf("the clock is %v ahead, %v", ahead, err)
		}
	}
}

// wantDone checks the outcome that a new start of the agent finds. Where a record
// also disarms the box, a new start finds that, and does nothing either.
func (c *agentCase) wantDone(t *testing.T, cmd *bootcfg.Cmdline, want box.Outcome) {
	t.Helper()
	a, h := c.again(t, cmd)
	if _, err := a.Agrees(); want != "" && h.Done() == "" && errors.As(err, new(*agent.NotArmedError)) {
		return
	}
	if h.Done() != want {
		t.Errorf("a new start of the %s finds %q, not %q", cmd.Action, h.Done(), want)
	}
}

func testRecord(t *testing.T, c *agentCase) {
	cmd := c.Cmdline()
	cmd.Action = box.Verify
	for _, o := range box.Outcomes() {
		if o.Class() != box.Ended || o == box.Expired {
			continue
		}
		cmd.Arming = box.NewArming()
		c.Arm(t, cmd)
		c.wantDone(t, &cmd, "")
		_, h := c.again(t, &cmd)
		receipts := []image.Receipt{{Image: "sda", Disk: "sda", Differ: []image.Range{{Off: 0, Len: 512}}}}
		for range 2 { // an answer may have been lost
			must(t, h.Record(agent.End{Outcome: o, Receipts: receipts}))
			c.wantDone(t, &cmd, o)
		}
	}
}

func testRecordOther(t *testing.T, c *agentCase) {
	_, h := c.start(t, box.Verify)
	must(t, h.Record(agent.End{Outcome: box.Done}))
	cmd := c.Cmdline()
	cmd.Action, cmd.Arming = box.Verify, box.NewArming()
	c.Arm(t, cmd)
	c.wantDone(t, &cmd, "")
}

func testAgentLog(t *testing.T, c *agentCase) {
	_, h := c.start(t, box.Verify)
	log := h.Log("box11")
	log.Hello()
	log.Info("an event of %s", "one")
	log.Announce("announced %d", 2)
	log.Error("an error\nof two lines")
	var lines sync.WaitGroup
	for i := range 8 {
		lines.Go(func() { log.Info("beside others %d", i) })
	}
	lines.Wait()
	must(t, log.Flush())
	text := c.ReadLog(t)
	for _, want := range []string{"an event of one\n", "announced 2\n", "an error\n", "of two lines\n", "beside others 7\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not have %q:\n%s", want, text)
		}
	}
	h.Log("box11").Hello()
	if !strings.HasPrefix(c.ReadLog(t), text) {
		t.Error("a new start does not go on with the log")
	}
}

func testInventory(t *testing.T, c *agentCase) {
	_, h := c.start(t, box.RefreshInfo)
	if h.HasInventory() {
		t.Error("there is an inventory before one was saved")
	}
	files := []inventory.File{{Name: box.InfoText, Data: []byte("text")}, {Name: box.InfoJSON, Data: []byte("{}")},
		{Name: box.InfoZip, Data: bytes.Repeat([]byte{'z'}, 3<<20)}}
	for range 2 { // an answer may have been lost
		must(t, h.SaveInventory(files))
	}
	if _, h := c.start(t, box.Verify); !h.HasInventory() {
		t.Error("there is no inventory after one was saved")
	}
	must(t, h.SetHost("box11"))
	must(t, h.SetHost("unknown"))
}

func testFirmware(t *testing.T, c *agentCase) {
	_, h := c.start(t, box.RefreshInfo)
	if known, err := h.Firmware(); err != nil || known.Before != nil || known.Image != nil {
		t.Errorf("before anything was noted, there is %+v, %v", known, err)
	}
	noteOf := func(vendor string) *efi.Note {
		return &efi.Note{Format: efi.NoteFormat, Time: time.Unix(1000, 0).UTC(), State: efi.State{Kind: efi.UEFI, Vendor: vendor},
			NetworkFirst: &efi.NetworkFirst{Result: efi.OrderRepaired, Wrote: []efi.Number{1}}}
	}
	for _, vendor := range []string{"first", "first", "second"} {
		must(t, h.SaveFirmware(noteOf(vendor)))
	}
	cmd := c.Cmdline()
	cmd.Action, cmd.Arming = box.Backup, box.NewArming()
	c.Arm(t, cmd)
	_, h = c.again(t, &cmd)
	known, err := h.Firmware()
	if err != nil || known.Before == nil || known.Before.State.Vendor != "second" || len(known.Before.NetworkFirst.Wrote) != 1 {
		t.Errorf("the next start knows %+v, %v", known, err)
	}
	note := noteOf("of the backup")
	note.Arming = string(cmd.Arming)
	must(t, h.SaveFirmware(note))
	disks := []*testDisk{newTestDisk("sda", "S1")}
	b := plan(t, h, disks)
	defer b.Abort()
	save(t, b, disks, asItIs)
	must(t, b.Commit(t.Context()))
	_, h = c.start(t, box.Restore)
	must(t, h.SaveFirmware(noteOf("later")))
	if known, err := h.Firmware(); err != nil || known.Image == nil || known.Image.Vendor != "of the backup" {
		t.Errorf("a restore knows %+v, %v", known, err)
	}
}

func testSelection(t *testing.T, c *agentCase) {
	_, h := c.start(t, box.Verify)
	if sel, err := h.Selection(); err != nil || sel.Named() {
		t.Errorf("disks are named: %q, %v", sel, err)
	}
}

func testNoImages(t *testing.T, c *agentCase) {
	_, h := c.start(t, box.Restore)
	if images, err := h.List(); err == nil {
		t.Errorf("a box without a backup has the images %v", images)
	}
}

// testDisk is a disk in memory.
type testDisk struct {
	disk.Disk
	data []byte
}

func (d *testDisk) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(d.data).ReadAt(b, off)
}

func (d *testDisk) WriteAt(b []byte, off int64) (int, error) { return copy(d.data[off:], b), nil }
func (d *testDisk) Size() int64                              { return int64(len(d.data)) }
func (d *testDisk) ZeroAt(off, n int64) error                { clear(d.data[off : off+n]); return nil }
func (d *testDisk) Sync() error                              { return nil }

func newTestDisk(name, serial string) *testDisk {
	d := &testDisk{Disk: disk.Disk{Name: name, Transport: "virtio"}, data: make([]byte, 5<<20+3*512)}
	rnd := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", serial))))
	rnd.Read(d.data[1<<20 : 3<<20]) // zeros are around it
	rnd.Read(d.data[len(d.data)-700:])
	d.Identity = image.Identity{Serial: serial, SectorSize: 512, Size: int64(len(d.data))}
	return d
}

func choiceOf(t *testing.T, disks []*testDisk) ([]disk.Disk, match.Choice) {
	t.Helper()
	var all []disk.Disk
	for _, d := range disks {
		all = append(all, d.Disk)
	}
	choice, err := match.Choose(all, nil)
	must(t, err)
	return all, choice
}

// plan plans a backup of disks.
func plan(t *testing.T, h agent.Home, disks []*testDisk) agent.Backup {
	t.Helper()
	b, err := h.Plan(choiceOf(t, disks))
	must(t, err)
	return b
}

// save writes the images of disks.
func save(t *testing.T, b agent.Backup, disks []*testDisk, from func(*testDisk) copier.Source) {
	t.Helper()
	must(t, b.Begin("box11", "4c4c4544-0043-3510-8052-b4c04f4d3132"))
	for _, d := range disks {
		r, err := b.Save(t.Context(), d.Disk, from(d), copier.SourceOptions{TakeFailing: true})
		must(t, err)
		if r.Read != d.Size() {
			t.Errorf("the receipt says that %d bytes of %s were read, of %d", r.Read, d.Name, d.Size())
		}
	}
}

func asItIs(d *testDisk) copier.Source { return d }

var errMedium = fmt.Errorf("unreadable: %w", disk.ErrMedium)

// badDisk is a disk with one sector that cannot be read.
type badDisk struct {
	*testDisk
	bad int64 // offset
}

func (d badDisk) ReadAt(b []byte, off int64) (int, error) {
	if off <= d.bad && d.bad < off+int64(len(b)) {
		return 0, errMedium
	}
	return d.testDisk.ReadAt(b, off)
}

// wantImages checks that the box has complete images of these disks, from one
// backup, and that each restores its disk.
func (c *agentCase) wantImages(t *testing.T, disks []*testDisk) []agent.ImageInfo {
	t.Helper()
	_, h := c.start(t, box.Restore)
	images, err := h.List()
	must(t, err)
	if len(images) != len(disks) {
		t.Fatalf("%d disks have %d images", len(disks), len(images))
	}
	var infos []agent.ImageInfo
	for _, im := range images {
		i := im.Info()
		infos = append(infos, i)
		at := slices.IndexFunc(disks, func(d *testDisk) bool { return d.Serial == i.Disk.Serial })
		if at < 0 || i.Disk != disks[at].Identity || i.Time.IsZero() || i.Box == "" || i.UUID == "" || i.Place == "" {
			t.Fatalf("an image says that it is %+v", i)
		}
		c.wantRestored(t, im, disks[at], i.Bad)
	}
	return infos
}

func (c *agentCase) wantRestored(t *testing.T, im agent.Image, d *testDisk, bad []image.Range) {
	t.Helper()
	defer im.Close()
	told := int64(0)
	must(t, im.Check(t.Context(), d.Disk, func(done, total int64) { told = max(told, done) }))
	if n, reads := im.CheckBytes(); reads && n > 0 && told != n || !reads && told > 0 {
		t.Errorf("a check of %s told of %d bytes of %d, it reads: %v", im.Info().Name, told, n, reads)
	}
	to := newTestDisk(d.Name, "other")
	job := im.Job()
	job.Target = to
	_, err := copier.Restore(t.Context(), []copier.Job{job}, copier.RestoreOptions{})
	must(t, err)
	want := bytes.Clone(d.data)
	for _, r := range bad {
		clear(want[r.Off : r.Off+r.Len])
	}
	if !bytes.Equal(to.data, want) {
		t.Errorf("the image %s does not bring disk %s back", im.Info().Name, d.Name)
	}
}

func testAgentBackup(t *testing.T, c *agentCase) {
	disks := []*testDisk{newTestDisk("vda", "S1"), newTestDisk("vdb", "S2")}
	_, h := c.start(t, box.Backup)
	b := plan(t, h, disks)
	if b.Name(disks[0].Disk) != "vda" || b.Name(disks[1].Disk) != "vdb" {
		t.Errorf("the images of a first backup are called %s and %s", b.Name(disks[0].Disk), b.Name(disks[1].Disk))
	}
	save(t, b, disks, asItIs)
	if images, err := c.beside(t).List(); err == nil {
		t.Errorf("before the commit there are %d images", len(images))
	}
	must(t, b.Commit(t.Context()))
	b.Abort() // as a deferred call does; it must not undo the commit
	if strings.Contains(c.said.text.String(), "error:") {
		t.Errorf("a backup said: %s", c.said.text.String())
	}
	c.wantImages(t, disks)
}

// beside opens the box's home while another agent is at work. It does not call
// Recover.
func (c *agentCase) beside(t *testing.T) agent.Home {
	t.Helper()
	cmd := c.Cmdline()
	cmd.Action, cmd.Arming = box.Restore, box.NewArming()
	h, err := c.Start(t, &cmd, time.Now, &c.said).Open()
	must(t, err)
	return h
}

func testAgentAbort(t *testing.T, c *agentCase) {
	disks := []*testDisk{newTestDisk("vda", "S1")}
	_, h := c.start(t, box.Backup)
	b := plan(t, h, disks)
	b.Abort() // before Begin
	save(t, b, disks, asItIs)
	b.Abort()
	if err := b.Commit(t.Context()); err == nil {
		t.Error("what was given up is committed")
	}
	if images, err := h.List(); err == nil {
		t.Errorf("a backup that was given up left %d images", len(images))
	}
	_, h = c.start(t, box.Backup)
	b = plan(t, h, disks)
	save(t, b, disks, asItIs)
	must(t, b.Commit(t.Context()))
	c.wantImages(t, disks)
}

func testAgentBad(t *testing.T, c *agentCase) {
	disks := []*testDisk{newTestDisk("vda", "S1"), newTestDisk("vdb", "S2")}
	_, h := c.start(t, box.Backup)
	b := plan(t, h, disks)
	const at = 2 << 20
	save(t, b, disks, func(d *testDisk) copier.Source {
		if d.Name == "vda" {
			return badDisk{d, at}
		}
		return d
	})
	must(t, b.Commit(t.Context()))
	for _, i := range c.wantImages(t, disks) {
		if bad := i.Disk.Serial == "S1"; bad != (len(i.Bad) == 1 && i.Bad[0].Off <= at && at < i.Bad[0].Off+i.Bad[0].Len) ||
			!bad && len(i.Bad) > 0 {
			t.Errorf("image %s says that it lacks %v", i.Name, i.Bad)
		}
	}
}

// testDoneByCommit loses power between the commit and the record.
func testDoneByCommit(t *testing.T, c *agentCase) {
	disks := []*testDisk{newTestDisk("vda", "S1")}
	for bad, want := range map[bool]box.Outcome{false: box.Done, true: box.BadSectors} {
		cmd := c.Cmdline()
		cmd.Action, cmd.Arming = box.BackupAgain, box.NewArming()
		c.Arm(t, cmd)
		_, h := c.again(t, &cmd)
		b := plan(t, h, disks)
		from := func(d *testDisk) copier.Source {
			if bad {
				return badDisk{d, 2 << 20}
			}
			return d
		}
		save(t, b, disks, from)
		_, h = c.again(t, &cmd) // power was lost before the commit
		if o := h.Done(); o != "" {
			t.Errorf("before the commit the action is %q", o)
		}
		b = plan(t, h, disks)
		save(t, b, disks, from)
		must(t, b.Commit(t.Context()))
		c.wantDone(t, &cmd, want)
	}
}

// testAgentNames swaps the disks' kernel names between two backups.
func testAgentNames(t *testing.T, c *agentCase) {
	disks := []*testDisk{newTestDisk("vda", "S1"), newTestDisk("vdb", "S2")}
	for i, action := range []box.Action{box.Backup, box.BackupAgain} {
		if i == 1 {
			disks[0].Name, disks[1].Name = "vdb", "vda"
			io.ReadFull(rand.NewChaCha8([32]byte{}), disks[0].data[:1000])
		}
		_, h := c.start(t, action)
		b := plan(t, h, disks)
		if b.Name(disks[0].Disk) != "vda" || b.Name(disks[1].Disk) != "vdb" {
			t.Errorf("%s: the images are called %s and %s", action, b.Name(disks[0].Disk), b.Name(disks[1].Disk))
		}
		save(t, b, disks, asItIs)
		must(t, b.Commit(t.Context()))
		c.wantImages(t, disks)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
