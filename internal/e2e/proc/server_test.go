package proc

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"testbox-imaging/internal/image"
)

// TestServed is the main job with a server: backup, backup again, wreck, restore,
// verify.
func TestServed(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)
	before := sda.hash(t)
	first, out := b.act(done, "backup")
	if first.Outcome != "done" || first.Backup == "" || first.Attempt != 1 || first.Sent < mib {
		t.Errorf("the job of the backup: %+v", first)
	}
	if sda.hash(t) != before {
		t.Error("the backup changed the disk")
	}
	if !strings.Contains(out, "backup: done") || !strings.Contains(b.log("maintenance.log"), "backup: done") {
		t.Errorf("console:\n%s\nlog:\n%s", out, b.log("maintenance.log"))
	}
	if _, err := os.Stat(b.folder("testbox-info.json")); err != nil {
		t.Error(err)
	}

	writeAt(t, sda.file, 2*mib+12345, noise(7, 3000))
	second, changed := sda.hash(t), ""
	job, _ := b.act(done, "backup-again")
	if job.Backup == first.Backup || job.Sent > 2*mib {
		t.Errorf("a change of 3000 bytes: %+v", job)
	}
	changed = job.Backup

	sda.wreck(t)
	job, _ = b.act(done, "restore")
	if sda.hash(t) != second {
		t.Error("the restored disk is not the one that was backed up last")
	}
	if job.Backup != changed || len(job.Receipts) != 1 || job.Receipts[0].Verified != sda.size || job.Receipts[0].Written != sda.size {
		t.Errorf("the job of the restore: %+v", job)
	}
	if job, _ := b.act(done, "restore"); job.Receipts[0].Skipped != sda.size || job.Receipts[0].Written != 0 {
		t.Errorf("a restore of a disk that is right: %+v", job)
	}
	if job, _ := b.act(done, "restore", "--image", first.Backup); sda.hash(t) != before || job.Receipts[0].Written > 3*mib {
		t.Errorf("a restore of the first backup: %+v", job)
	}
	if job, _ := b.act(done, "verify", "--image", first.Backup); job.Outcome != "done" {
		t.Errorf("a verify of what is the same: %+v", job)
	}
	if job, out := b.act(differ, "verify"); job.Outcome != "done, disk and image differ" || !strings.Contains(out, "sda") {
		t.Errorf("a verify of what differs: %+v\n%s", job, out)
	}
	if job, _ := b.act(done, "refresh-info"); job.Outcome != "done" || job.Backup != "" {
		t.Errorf("an inventory: %+v", job)
	}
	// Both were read from the disk, whose speed is the last column.
	rates := s.does(done, []string{"box", "rates", b.addr})
	for _, want := range []string{`backup-again +sda +read +\S+ \S+ +\S+ +\d+ MB/s +\d+ MB/s\n`, `verify +sda +compare .* MB/s +\d+ MB/s\n`} {
		if !regexp.MustCompile(want).MatchString(rates) {
			t.Errorf("the rates of the box have no line like %s:\n%s", want, rates)
		}
	}
}

// TestServedUsedOnly backs up what the file system uses alone, and restores to a
// wrecked disk.
func TestServedUsedOnly(t *testing.T) {
	t.Parallel()
	sda := disk("sda", gptExt4(1)).ofSize(32 * mib)
	s := newServerSite(t, "")
	b := s.box(11, sda)
	job, _ := b.act(done, "backup")
	if read := job.Receipts[0].Read; read > 24*mib {
		t.Errorf("of 32 MiB with a file system %d bytes were read", read)
	}
	if job, _ := b.act(done, "backup-again", "--all-used"); job.Receipts[0].Read != sda.size {
		t.Errorf("of 32 MiB %d bytes were read, and all were asked for", job.Receipts[0].Read)
	}
	sda.wreck(t)
	b.act(done, "restore", "--image", job.Backup)
	b.act(done, "verify", "--image", job.Backup)
	run(t, "", "sfdisk", "--verify", sda.file)
}

// TestServedRefusals has jobs that the agent or the server refuse. No disk and no
// backup may change, and the box must not stay armed.
func TestServedRefusals(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)
	before := sda.hash(t)
	s.does(refused, []string{"restore", b.addr, "--wait"}, "no backup")
	s.does(wrongUse, []string{"restore", "10.88.0.300"})
	s.does(wrongUse, []string{"format", b.addr})
	id := b.ask("rescue") // it waits until there is a maintenance system for it
	s.until("the job waits", serverLimit, func() bool { j := b.job(id); return j.Wait != nil && j.Wait.Reason == "system" })
	s.does(done, []string{"cancel", id})
	b.act(done, "backup")

	b.uuid = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	b.plug()
	job, _ := b.act(refused, "restore")
	if job.Outcome != "refused" || job.Class != "box" {
		t.Errorf("a restore of another machine: %+v", job)
	}
	b.uuid = boxUUID
	b.plug()
	job, _ = b.act(refused, "restore", "--disks", "sdq")
	if job.Outcome != "refused" || sda.hash(t) != before {
		t.Errorf("a restore of a disk that is not there: %+v", job)
	}
}

// TestServedMapped restores to two disks that were both replaced, as the admin's map
// says, and refuses what a map must not do.
func TestServedMapped(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "")
	b := s.box(11, two()...)
	before := b.snapshot()
	b.act(done, "backup")
	s.does(wrongUse, []string{"restore", b.addr, "--map", "sda"}, "IMAGE=DISK")
	s.does(wrongUse, []string{"backup", b.addr, "--map", "sda=sdb"}, "unknown flag")
	job, out := b.act(refused, "restore", "--map", "sda=sdb")
	if job.Outcome != "refused" || !strings.Contains(out, "--map sda=sdb,sdb=DISK") {
		t.Errorf("a restore onto the disk of another image: %+v\n%s", job, out)
	}
	b.act(refused, "restore", "--map", "sda=sdx")
	b.act(refused, "verify", "--map", "sdx=sda")
	for i, d := range b.disks {
		if d.hash(t) != before["disk SERIAL-"+d.name] {
			t.Errorf("a refusal changed disk %d", i)
		}
	}
	replace(0, func(d *testDisk) { d.port = 5 })(t, b.testBox)
	replace(1, func(d *testDisk) { d.port = 6 })(t, b.testBox)
	b.act(refused, "restore")
	const crossed = "sda=NEW-SERIAL-sdb,sdb=sda"
	b.act(done, "restore", "--map", crossed)
	if b.disks[1].hash(t) != before["disk SERIAL-sda"] || b.disks[0].hash(t) != before["disk SERIAL-sdb"] {
		t.Error("the disks did not get the images that were mapped to them")
	}
	b.act(done, "verify", "--map", crossed)
}

// TestServedSmaller restores to a smaller disk, which only happens if it is asked for.
func TestServedSmaller(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "")
	b := s.box(11, disk("sda", gptAndRoom(1)).ofSize(12*mib))
	old := b.disks[0]
	b.act(done, "backup")
	replace(0, func(d *testDisk) { d.size = 6*mib + 32*512; d.fill = scattered(3) })(t, b.testBox)
	before := b.disks[0].hash(t)
	_, out := b.act(refused, "restore", "--shrink-table")
	if !strings.Contains(out, "partition 1 ends at byte 6291456, which is 512 bytes behind") || b.disks[0].hash(t) != before {
		t.Errorf("a restore to a disk that is a sector too small:\n%s", out)
	}
	replace(0, func(d *testDisk) { d.size = 6*mib + 33*512; d.fill = scattered(3) })(t, b.testBox)
	before = b.disks[0].hash(t)
	_, out = b.act(refused, "restore")
	if !strings.Contains(out, "--shrink-table") || b.disks[0].hash(t) != before {
		t.Errorf("a restore that was not asked to shrink anything:\n%s", out)
	}
	b.act(done, "restore", "--shrink-table")
	sameTable(t, old.file, b.disks[0].file)
	b.act(done, "verify", "--shrink-table")
	if job, _ := b.act(done, "restore", "--shrink-table"); job.Receipts[0].Written != 0 {
		t.Errorf("a restore of what is right: %+v", job)
	}
}

// wrongUse is the exit code of a command that was called in a wrong way.
const wrongUse = 2

// TestServedBadSectors has a disk of which not all can be read.
func TestServedBadSectors(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	s := newServerSite(t, "")
	b := s.box(11, sda)
	sda.server.set(faultSet{BadReads: []image.Range{{Off: 2*mib + 1024, Len: 1024}}})
	job, _ := b.act(badOnes, "backup")
	if job.Outcome != "done with bad sectors" || job.Backup == "" {
		t.Errorf("a backup with bad sectors: %+v", job)
	}
	sda.server.set(faultSet{})
	if job, _ := b.act(badOnes, "restore"); job.Outcome != "done with bad sectors" {
		t.Errorf("a restore of it: %+v", job)
	}
}

// TestServedKills kills the server at lines that the agent says, and starts it
// again after a while. The agent must go on as if nothing had been.
func TestServedKills(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1)).ofSize(64 * mib)
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	for _, action := range []string{"backup", "restore"} {
		for _, at := range []string{action + ", arming", "seen: disk", "receipt", action + ": done"} {
			if action == "restore" {
				sda.wreck(t)
			}
			ask := action
			if action == "backup" {
				ask = "backup-again"
			}
			id := b.ask(ask)
			b.boot()
			a := b.start()
			a.waitLine(strings.ReplaceAll(at, action, ask))
			s.kill()
			time.Sleep(time.Second)
			s.start()
			a.ends(done)
			if j := b.job(id); j.Outcome != "done" || j.State != "ended" || j.Attempt != 1 || b.armed() {
				t.Errorf("%s, killed at %q: %+v, armed: %v", action, at, j, b.armed())
			}
			if sda.hash(t) != want {
				t.Fatalf("%s, killed at %q: the disk has changed", action, at)
			}
		}
	}
	// Each backup is there once.
	if list := s.does(done, []string{"image", "list"}); strings.Count(list, b.addr) != 4 {
		t.Errorf("four backups were made, and these are there:\n%s", list)
	}
	s.end()
	s.start()
}

// TestServedCut takes the box off the network for a moment in a backup and a restore.
func TestServedCut(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1)).ofSize(64 * mib)
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	for _, action := range []string{"backup", "restore"} {
		if action == "restore" {
			sda.wreck(t)
		}
		id := b.ask(action)
		b.boot()
		a := b.start()
		a.waitLine("seen: disk")
		b.cut(true)
		time.Sleep(3 * time.Second)
		b.cut(false)
		a.ends(done)
		if j := b.job(id); j.Outcome != "done" || j.Attempt != 1 || sda.hash(t) != want {
			t.Errorf("%s: %+v", action, j)
		}
	}
}

// TestServedPowerCut kills the agent in the middle of a restore, as a box that
// loses power. The box boots into maintenance again, and the next attempt restores.
func TestServedPowerCut(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	b.act(done, "backup")
	sda.wreck(t)
	id := b.ask("restore")
	b.boot()
	sda.server.set(faultSet{HoldAt: 4})
	a := b.start()
	s.until("the disk is being written", serverLimit, func() bool { return sda.server.state().Held != "" })
	a.kill()
	sda.server.release()
	<-a.ended
	sda.server.set(faultSet{})
	if !b.armed() {
		t.Fatal("the box is not armed any more, and its disk is half written")
	}
	b.boot() // the boot file has another secret now
	b.start().ends(done)
	if j := b.job(id); j.Outcome != "done" || j.Attempt != 2 || sda.hash(t) != want {
		t.Errorf("the job: %+v", j)
	}
}

// TestServedHeld has a disk on which every write fails. After three attempts the
// box is held, and only a release or a restore that succeeds lets it go.
func TestServedHeld(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	sda.faulty = true
	s := newServerSite(t, "")
	b := s.box(11, sda)
	b.act(done, "backup")
	want := sda.hash(t)
	sda.wreck(t)
	id := b.ask("restore")
	for attempt := 1; attempt <= 3; attempt++ {
		b.boot()
		sda.server.set(faultSet{FailAt: 3})
		b.start().ends(failed)
		if j := b.job(id); attempt < 3 && (j.State != "armed" || j.Attempt != attempt+1) || !b.armed() {
			t.Fatalf("after attempt %d: %+v, armed: %v", attempt, j, b.armed())
		}
	}
	sda.server.set(faultSet{})
	s.does(refused, []string{"pxe-conf", "-c", filepath.Dir(b.bootFile()), "disarm", b.addr}, "testbox release")
	if j := b.job(id); j.State != "held" || !b.armed() {
		t.Fatalf("the job: %+v", j)
	}
	s.does(done, []string{"jobs", b.addr}, "HELD")
	next := b.ask("restore") // takes over
	// Until then the box has the boot file of the job before, and would restart once more.
	s.until("the new job has written its boot file", serverLimit, func() bool { j := b.job(next); return j.State == "armed" && j.Settled })
	b.boot()
	b.start().ends(done)
	if j := b.job(next); j.Outcome != "done" || b.armed() || sda.hash(t) != want {
		t.Errorf("the restore that took over: %+v", j)
	}
	if j := b.job(id); j.State != "ended" {
		t.Errorf("the job that was held: %+v", j)
	}
}

// TestServedCancel cancels jobs before the box starts, and while it reads.
func TestServedCancel(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1)).ofSize(64 * mib)
	s := newServerSite(t, "")
	b := s.box(11, sda)
	id := b.ask("backup")
	b.boot()
	s.does(done, []string{"cancel", id})
	if j := b.job(id); j.State != "ended" || j.Outcome != "cancelled" || b.armed() {
		t.Errorf("cancelled before the start: %+v", j)
	}
	// An agent that was started by then is told to restart.
	b.start().wait()
	if b.job(id).State != "ended" {
		t.Error("a job that ended runs again")
	}
}

// TestServedStrangers has others use what a box was given.
func TestServedStrangers(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)
	id := b.ask("backup")
	b.boot()
	other := newHost(t)
	s.join(other, "10.88.0.77")
	if r := b.startIn(other).wait(); r.code == done {
		t.Errorf("an agent at another address did the job:\n%s", r.out)
	}
	if j := b.job(id); j.State != "armed" {
		t.Errorf("after a stranger's hello: %+v", j)
	}
	b.start().ends(done)
	// The same boot file once more: the secret was used.
	if r := b.start().wait(); r.code == done {
		t.Errorf("a secret counted twice:\n%s", r.out)
	}
	if n := strings.Count(s.does(done, []string{"image", "list"}), b.addr); n > 1 {
		t.Errorf("the box has %d backups", n)
	}
}

// TestServedTwo has two boxes and one place.
func TestServedTwo(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "boxes = 1\n")
	one, two := s.box(11, disk("sda", scattered(1))), s.box(12, disk("sda", scattered(2)))
	first := one.ask("backup")
	second := two.ask("backup")
	one.boot()
	s.until("the second box waits for a place", serverLimit, func() bool {
		j := two.job(second)
		return j.State == "queued" && j.Wait != nil && j.Wait.Reason == "place"
	})
	if two.armed() {
		t.Error("the second box is armed")
	}
	one.start().ends(done)
	two.boot()
	two.start().ends(done)
	if one.job(first).Outcome != "done" || two.job(second).Outcome != "done" {
		t.Error("not both are done")
	}
}

// TestServedImages pins and deletes backups while the server has the store.
func TestServedImages(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)
	want := sda.hash(t)
	first, _ := b.act(done, "backup")
	writeAt(t, sda.file, 3*mib, noise(5, 100))
	second, _ := b.act(done, "backup-again")
	name := func(j servedJob) string { return b.addr + "@" + j.Backup }

	s.does(done, []string{"image", "pin", "--baseline", "--note", "as delivered", name(first)}, "as delivered")
	s.does(done, []string{"image", "list"}, "as delivered")
	if j, _ := b.act(done, "restore"); j.Backup != first.Backup || sda.hash(t) != want {
		t.Errorf("a restore does not take the baseline: %+v", j)
	}
	s.does(refused, []string{"image", "delete", "--yes", name(first)}, "baseline")
	s.does(done, []string{"image", "pin", name(second)})
	s.does(refused, []string{"image", "delete", "--yes", name(second)}, "pinned")
	s.does(done, []string{"image", "pin", "--off", name(second)})
	s.does(done, []string{"image", "delete", "--yes", name(second)}, "1 backup is deleted")
	s.does(wrongUse, []string{"image", "verify", name(second)})
	s.does(done, []string{"image", "verify", name(first)})
	s.does(done, []string{"image", "date", name(first), "2026-01-01T00:00:00Z"}, "is 20260101-000000 now")
	first.Backup = "20260101-000000"
	s.does(refused, []string{"store", "rebuild-index"}, "the server of this machine has the store")

	// Another store has the same backup, and another process than the server has it open.
	other := filepath.Join(tempDir(t), "other")
	s.does(done, []string{"store", "init", other})
	s.does(done, []string{"store", "copy", other})
	lock, err := os.OpenFile(filepath.Join(other, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer lock.Close()
	must(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	s.does(refused, []string{"image", "pin", "--store", other, "--note", "of the other store", name(first)}, "in use by another process")
	if list := s.does(done, []string{"image", "list"}); strings.Contains(list, "of the other store") {
		t.Errorf("the server has changed its own store:\n%s", list)
	}
	if audit := s.does(done, []string{"audit"}); !strings.Contains(audit, "delete backup") || !strings.Contains(audit, name(second)) {
		t.Errorf("the audit log does not tell of it:\n%s", audit)
	}
}

// TestServedPxeConf arms a box by the command of share mode.
func TestServedPxeConf(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "")
	b := s.box(11, sda)
	first := sda.hash(t)
	pxe := []string{"pxe-conf", "-c", filepath.Join(s.state, "testbox-tftp", "pxelinux.cfg")}
	conf := func(args ...string) []string { return append(slices.Clone(pxe), args...) }
	copyLedger(t, s)
	for _, action := range []string{"backup", "backup-again"} {
		s.does(done, conf(b.addr, action, "--disks", "sda"), "job")
		b.boot()
		s.does(refused, conf("disarm", b.addr), "testbox cancel")
		if !b.armed() {
			t.Error("pxe-conf disarm took the boot file of a job away")
		}
		b.start().ends(done)
		writeAt(t, sda.file, 3*mib, noise(5, 100))
	}
	s.does(done, conf(b.addr, "restore", "--image=old"))
	b.boot()
	b.start().ends(done)
	if sda.hash(t) != first {
		t.Error("the restore of the backup before the latest did not bring it back")
	}
	// A boot file whose job the server does not have any more can be removed.
	s.does(done, conf(b.addr, "verify"))
	b.boot()
	s.end()
	s.does(done, []string{"server", "recover", "--config", s.config(), "--yes"})
	s.start()
	if out := b.start().ends(refused); !strings.Contains(out, "no such job") || !b.armed() {
		t.Errorf("a box of which the server knows nothing: %s", out)
	}
	s.does(done, conf("disarm", b.addr), "does not have")
	if b.armed() {
		t.Error("the box is still armed")
	}
	for _, flag := range []string{"--replace", "--show", "--raw", "--precheck=size", "--expire=2h"} {
		s.does(wrongUse, conf(b.addr, "restore", flag), "storage server")
	}
	if b.armed() {
		t.Error("a command that was refused armed the box")
	}
}

// copyLedger makes the copy of the ledger that upkeep makes at night.
func copyLedger(t *testing.T, s *serverSite) {
	t.Helper()
	s.end()
	text, err := os.ReadFile(filepath.Join(s.state, "ledger.db"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(s.state, "ledger-copy.db"), text, 0o600))
	s.start()
}

// TestServedHolder has a box that somebody has reserved.
func TestServedHolder(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "")
	b := s.box(11, disk("sda", scattered(1)))
	b.act(done, "refresh-info")
	s.does(done, []string{"box", "hold", b.addr, "--holder", "alice", "--why", "a long test"})
	s.does(refused, []string{"backup", b.addr}, "alice", "a long test")
	s.does(done, []string{"box", "unhold", b.addr})
	b.act(done, "backup")
}

// TestServedDamage has a store with a damaged chunk. The restore names it and writes
// nothing, a backup of the same disk heals it, and then the restore is done.
func TestServedDamage(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := newServerSite(t, "[jobs]\nattempts = 1\n")
	b := s.box(11, sda)
	want := sda.hash(t)
	first, _ := b.act(done, "backup")
	s.end()
	packs, err := filepath.Glob(filepath.Join(s.state, "store", "packs", "*"))
	must(t, err)
	if len(packs) == 0 {
		t.Fatal("the store has no packs")
	}
	st, err := os.Stat(packs[0])
	must(t, err)
	writeAt(t, packs[0], st.Size()/2, noise(3, 100))
	s.start()
	whole, err := os.ReadFile(sda.file)
	must(t, err)
	sda.wreck(t)
	wrecked := sda.hash(t)
	job, out := b.act(failed, "restore")
	if job.Outcome != "failed" || job.Class != "image" || !regexp.MustCompile(`chunk [0-9a-f]{64}`).MatchString(out) {
		t.Errorf("the job: %+v\n%s", job, out)
	}
	if sda.hash(t) != wrecked {
		t.Error("a restore that found a damaged chunk before it began has written to the disk")
	}
	sda.put(t, whole)
	b.act(done, "backup-again")
	sda.wreck(t)
	b.act(done, "restore", "--image", first.Backup)
	if sda.hash(t) != want {
		t.Error("the disk is not what it was")
	}
}

// TestServedTwice has two servers on one state folder.
func TestServedTwice(t *testing.T) {
	t.Parallel()
	s := newServerSite(t, "")
	s.mustNotStart("another")
	s.does(refused, []string{"store", "rebuild-index"}, "the server of this machine has the store")
}
