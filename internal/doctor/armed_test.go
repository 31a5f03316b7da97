package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/arming"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/job"
	"testbox-imaging/internal/sharedir"
)

const boxAddr = "10.40.41.42"

// serverArmed arms a box for a job of a server with the key.
func serverArmed(t testing.TB, p *arming.Place, key string) {
	t.Helper()
	addr, err := box.ParseAddr(boxAddr)
	must(t, err)
	b, err := p.ForJob(arming.Target{Given: boxAddr, Addr: addr}, arming.Served{Agents: 8444, HTTP: 80},
		bootcfg.Cmdline{Action: box.Backup, Arming: box.NewArming(), Secret: "1-0123456789abcdef", Key: key})
	must(t, err)
	must(t, p.Arm(b, true))
}

func TestKeys(t *testing.T) {
	p := place(t)
	key := strings.Repeat("0123456789abcdef", 4)
	is := func() (string, error) { return key, nil }
	onlyFine(t, Keys(p.Boot, is))
	serverArmed(t, p, key)
	onlyFine(t, Keys(p.Boot, is))
	serverArmed(t, p, strings.Repeat("f", 64))
	has(t, Keys(p.Boot, is), Problem, "keys", boxAddr+" names another key")
	has(t, Keys(p.Boot, func() (string, error) { return "", errors.New("no certificate") }), NotLooked, "keys", "no certificate")
}

func TestOrphans(t *testing.T) {
	p := place(t)
	serverArmed(t, p, strings.Repeat("f", 64))
	files, err := p.Boot.List()
	must(t, err)
	say := func(j *api.LastJob) []Finding { return Orphans(p.Boot, files, []api.Box{{Address: boxAddr, Last: j}}) }
	has(t, say(nil), Problem, "stale", "no job of the server needs it")
	has(t, say(&api.LastJob{State: job.Ended}), Problem, "stale", boxAddr)
	has(t, Orphans(p.Boot, files, nil), Problem, "stale", boxAddr)
	if all := say(&api.LastJob{State: job.Armed}); all != nil {
		t.Errorf("the boot file of a job that is armed: %+v", all)
	}
	// It was armed anew after the files were read, and disarmed.
	serverArmed(t, p, strings.Repeat("f", 64))
	if all := say(nil); all != nil {
		t.Errorf("another boot file by now: %+v", all)
	}
	must(t, os.Remove(p.Boot.BootFile(files[0].Addr)))
	if all := say(nil); all != nil {
		t.Errorf("no boot file by now: %+v", all)
	}
}

// shareArmed arms a box in share mode for a backup.
func shareArmed(t testing.TB, p *arming.Place, expire time.Duration) {
	t.Helper()
	plan, err := p.Plan(t.Context(), arming.Request{Boxes: []string{boxAddr}, Replace: true,
		Cmdline: bootcfg.Cmdline{Action: box.BackupAgain}, Expire: expire})
	must(t, err)
	must(t, p.Arm(plan.Boxes[0], true))
}

func TestExpired(t *testing.T) {
	p := place(t)
	now := time.Now()
	shareArmed(t, p, time.Hour)
	onlyFine(t, BootFiles(t.Context(), p))
	p.Now = func() time.Time { return now.Add(2 * time.Hour) }
	all := BootFiles(t.Context(), p)
	has(t, all, Warning, "stale", boxAddr+" is still armed for backup-again")
	has(t, BootFiles(t.Context(), p, boxAddr), Warning, "stale", "expired at")
	p.Now = func() time.Time { return now.Add(-time.Hour) }
	has(t, BootFiles(t.Context(), p), Problem, "clock", "in the future")
}

// TestShareBox: of a box of share mode it is said whether it can be armed, and what the box would refuse.
func TestShareBox(t *testing.T) {
	p := place(t)
	area := filepath.Join(filepath.Dir(p.Boot.TFTP()), bootcfg.BackupArea)
	all := ShareBox(t.Context(), p, boxAddr)
	has(t, all, Fine, "arming", "could be armed for backup-again")
	has(t, all, Fine, "arming", "could be armed for restore")
	has(t, all, NotLooked, "backup", "it is not mounted")
	write(t, filepath.Join(area, sharedir.Marker), "")
	has(t, ShareBox(t.Context(), p, boxAddr), Warning, "arming", boxAddr+" will refuse `restore`")
	write(t, filepath.Join(area, boxAddr, box.DisksFile), "sda\n")
	has(t, ShareBox(t.Context(), p, boxAddr), Fine, "disks", "sda")
	has(t, ShareBox(t.Context(), p, "10.40.41.0/24"), Problem, "arming", "could not be armed for backup-again")
}
