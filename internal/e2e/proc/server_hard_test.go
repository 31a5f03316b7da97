package proc

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestServedManyKills kills the server again and again at random moments, while two
// boxes back up and restore. Each job is done, if not in its first attempt, and each
// backup is there once.
func TestServedManyKills(t *testing.T) {
	t.Parallel()
	kills, seed := 4, uint64(time.Now().UnixNano())
	if n, err := strconv.Atoi(os.Getenv("TESTBOX_KILLS")); err == nil {
		kills = n // for a long run by hand
	}
	t.Logf("seed %d", seed)
	draw := rand.New(rand.NewPCG(seed, 1))
	disks := []*testDisk{disk("sda", scattered(1)).ofSize(48 * mib), disk("sda", scattered(2)).ofSize(48 * mib)}
	s := newServerSite(t, "")
	boxes := []*servedBox{s.box(11, disks[0]), s.box(12, disks[1])}
	want := []string{disks[0].hash(t), disks[1].hash(t)}
	for round, action := range []string{"backup", "restore", "backup-again", "restore"} {
		var ids []string
		var agents []*agent
		for i, b := range boxes {
			if action == "restore" {
				disks[i].wreck(t)
			}
			ids = append(ids, b.ask(action))
		}
		for _, b := range boxes {
			b.boot()
			agents = append(agents, b.start())
		}
		for range kills {
			// From no time to what a job takes.
			time.Sleep(time.Duration(draw.IntN(500)) * time.Millisecond)
			s.kill()
			s.start()
		}
		for i, b := range boxes {
			// An agent gives up a backup of which too much was lost too often.
			for r := agents[i].wait(); r.code != done && b.armed(); r = b.start().wait() {
				t.Logf("round %d, %s of %s: once more, after\n%s", round, action, b.addr, r.out)
				b.boot()
			}
			j := b.job(ids[i])
			if j.State != "ended" || j.Outcome != "done" || b.armed() {
				t.Errorf("round %d, %s of %s: %+v, armed: %v", round, action, b.addr, j, b.armed())
			}
			if disks[i].hash(t) != want[i] {
				t.Fatalf("round %d, %s of %s: the disk is not what it must be", round, action, b.addr)
			}
			if all, err := os.ReadDir(s.state + "/store/records/" + b.addr); err != nil || len(all) != 1+round/2 {
				t.Errorf("round %d, %s of %s: there are %d backups (%v)", round, action, b.addr, len(all), err)
			}
		}
	}
	s.end()
	s.does(done, []string{"store", "scrub"})
	for _, b := range boxes {
		s.does(done, []string{"image", "verify", b.addr})
	}
}

// fullSite is a server whose state folder is a small file system.
func fullSite(t testing.TB, size, config string) *serverSite {
	t.Helper()
	state := tempDir(t)
	must(t, unix.Mount("tmpfs", state, "tmpfs", 0, "size="+size))
	t.Cleanup(func() { unix.Unmount(state, unix.MNT_DETACH) })
	return newServerSiteIn(t, state, config)
}

// fill takes all room in the state folder but some bytes, or gives it back.
func (s *serverSite) fill(leave int64) {
	s.t.Helper()
	path := filepath.Join(s.state, "filler")
	if leave < 0 {
		must(s.t, os.Remove(path))
		return
	}
	f, err := os.Create(path)
	must(s.t, err)
	defer f.Close()
	for err = unix.ENOSPC; err == unix.ENOSPC; { // others take room meanwhile
		var st unix.Statfs_t
		must(s.t, unix.Statfs(s.state, &st))
		take := (int64(st.Bavail)*st.Bsize - leave) &^ (st.Bsize - 1)
		if err = nil; take > 0 {
			err = unix.Fallocate(int(f.Fd()), 0, 0, take)
		}
	}
	must(s.t, err)
}

// TestServedFull has a state folder that is full at each stage of a backup and of a
// restore, and that has room again later. The job is done then, or it has failed with a
// reason and the next attempt is done.
func TestServedFull(t *testing.T) {
	t.Parallel()
	sda := disk("sda", scattered(1))
	s := fullSite(t, "96m", "")
	b := s.box(11, sda)
	s.fill(0)
	if c := s.command("backup", b.addr); c.code != failed || !strings.Contains(c.out, "no room") {
		t.Errorf("a job was asked for while the disk was full: %+v", c)
	}
	s.does(done, []string{"jobs"})
	s.kill()
	s.fill(-1)
	s.start()
	if b.armed() {
		t.Error("the box is armed without a job")
	}
	for n, one := range []struct {
		action, at string
		leave      int64
	}{
		{"backup", "", 0}, {"backup", "seen: disk", 64 << 10}, {"backup", "receipt", 0}, {"restore", "", 0}, {"restore", "seen: disk", 0},
		{"restore", "receipt", 0},
	} {
		if one.action == "backup" {
			writeAt(t, sda.file, mib, noise(uint64(n), mib))
		}
		want := sda.hash(t)
		if one.action == "restore" {
			sda.wreck(t)
		}
		id := b.ask(one.action)
		b.boot()
		var a *agent
		if one.at == "" {
			s.fill(one.leave)
			a = b.start()
		} else {
			a = b.start()
			a.waitLine(one.at)
			s.fill(one.leave)
		}
		time.Sleep(time.Second)
		if j := b.job(id); j.Outcome != "" && (one.at == "" || j.Outcome != "done") {
			t.Errorf("%+v: while the disk is full: %+v", one, j)
		}
		s.fill(-1)
		for r := a.wait(); r.code != done; r = b.start().wait() {
			j := b.job(id)
			t.Logf("%+v: %d %+v", one, r.code, j)
			if j.State != "armed" || j.Attempt != 2 || !b.armed() || !strings.Contains(j.Text, "no space left") {
				t.Fatalf("%+v: after a failure the job is %+v, armed: %v; the agent said\n%s", one, j, b.armed(), r.out)
			}
			b.boot()
		}
		if j := b.job(id); j.State != "ended" || j.Outcome != "done" || b.armed() || sda.hash(t) != want {
			t.Errorf("%+v: the job is %+v, armed: %v", one, j, b.armed())
		}
	}
	s.end()
	s.does(done, []string{"store", "scrub"})
}
