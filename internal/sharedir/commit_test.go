package sharedir

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/faults"
	"testbox-imaging/internal/testenv"
)

// scenario is a folder with what earlier backups left, and a backup.
type scenario struct {
	before map[string]string // files
	with   Before
	names  []string // images of the new backup, which has armingC
}

// after is the folder after the backup: all that was current is .old, and no
// other .old is left; but .old stays if nothing was current, or if that is
// replaced.
func (s scenario) after() map[string]string {
	if s.with == Replace {
		return merged(s.before, setFiles(armingC, "", s.names...))
	}
	files, retired := map[string]string{}, false
	for name, text := range s.before {
		if _, _, ok := splitFile(name); ok {
			files[name+oldExt], retired = text, true
		}
	}
	for name, text := range s.before {
		_, _, isImage := splitFile(name)
		isOld := len(name) > 4 && name[len(name)-4:] == oldExt
		if !isImage && !(isOld && retired) {
			files[name] = text
		}
	}
	return merged(files, setFiles(armingC, "", s.names...))
}

var others = map[string]string{"maintenance.log": "a line\n", "disk-devices.lst": "sda\nsdb\n", "notes.txt": "of the admin"}

var scenarios = map[string]scenario{
	"first backup":               {others, None, []string{"sda", "sdb"}},
	"first backup, told to keep": {others, Retire, []string{"sda"}},
	"images moved away, old kept": {merged(others, setFiles(armingA, oldExt, "sda")), None,
		[]string{"sda"}},
	"images moved away, old kept, told to keep": {merged(others, setFiles(armingA, oldExt, "sda")), Retire,
		[]string{"sda"}},
	"second": {merged(others, setFiles(armingB, "", "sda", "sdb")), Retire, []string{"sda", "sdb"}},
	"third": {merged(others, setFiles(armingB, "", "sda", "sdb"), setFiles(armingA, oldExt, "sda", "sdb")), Retire,
		[]string{"sda", "sdb"}},
	"other disks each time": {merged(setFiles(armingB, "", "sda", "sdb"), setFiles(armingA, oldExt, "sda", "sdc")), Retire,
		[]string{"sdb", "sdd"}},
	"images of older scripts": {map[string]string{"sda.gz": "anonymous a", "sdb.gz": "anonymous b", "sdb.gz.old": "older b"}, Retire,
		[]string{"sda"}},
	"forms change both ways": {merged(map[string]string{"sda.gz": "anonymous", "sdb.gz.old": "older"}, setFiles(armingA, oldExt, "sda"),
		setFiles(armingB, "", "sdb")), Retire,
		[]string{"sda", "sdb"}},
	"damaged once more, replaced": {merged(others, setFiles(armingB, "", "sda", "sdb"), setFiles(armingA, oldExt, "sda", "sdc")), Replace,
		[]string{"sda", "sdb", "sdd"}},
	"image without its sidecar": {map[string]string{"sda.raw.gz": "by hand", "sda.json.old": "{}"}, Retire, []string{"sda"}},
}

// folderWith is a file system with a box's folder of these files, all durable.
func folderWith(t testing.TB, files map[string]string) *faults.Volatile {
	t.Helper()
	v := newArea(t)
	f := openFolder(t, v)
	for name, text := range files {
		must(t, durable.WriteFile(v, f.Path(name), []byte(text), 0o644))
	}
	return v
}

func all() bool { return true }

// chance keeps each unsynced part as the seed has it, some seeds all or none.
func chance(seed uint64) func() bool {
	r := rand.New(rand.NewPCG(seed, 1))
	percent := []int{0, 100, 50, 50, 20, 80}[seed%6]
	return func() bool { return r.IntN(100) < percent }
}

// run does the backup on a file system of which operation k fails, and returns
// what is left, before any power cut.
func (s scenario) run(t testing.TB, base *faults.Volatile, k int, manner faults.Manner) (*faults.Volatile, *faults.Kth, error) {
	v := base.Crash(all)
	kth := &faults.Kth{FS: v}
	f := openFolder(t, kth)
	kth.K, kth.Manner = kth.Count()+k, manner
	return v, kth, backup(f, armingC, s.with, s.names...)
}

// check recovers and holds the folder against what the backup's result allows.
func (s scenario) check(t testing.TB, v *faults.Volatile, result error, what string) {
	t.Helper()
	f := openFolder(t, v)
	if err := f.Recover(); err != nil {
		t.Errorf("%s: recover: %v", what, err)
		return
	}
	got := contents(t, v)
	isOld, isNew := differ(got, s.before), differ(got, s.after())
	committed := result == nil || errors.Is(result, ErrCommitted)
	unsure := errors.Is(result, durable.ErrUnsure) || errors.Is(result, errKilled)
	switch {
	case committed && isNew != "":
		t.Errorf("%s: result %v, but it is not the new backup: %s", what, result, isNew)
	case !committed && !unsure && isOld != "":
		t.Errorf("%s: result %v, but it is not the old backup: %s", what, result, isOld)
	case isOld != "" && isNew != "":
		t.Errorf("%s: neither the old backup: %s; nor the new: %s", what, isOld, isNew)
	}
	if _, err := f.Images(); err != nil && s.before["sda.json.old"] == "" {
		t.Errorf("%s: %v", what, err)
	}
	durableAfter := contents(t, v.Crash(func() bool { return false }))
	if d := differ(durableAfter, got); d != "" {
		t.Errorf("%s: what Recover left is not durable: %s", what, d)
	}
	if err := f.Recover(); err != nil || differ(contents(t, v), got) != "" {
		t.Errorf("%s: recovering twice: %v, %s", what, err, differ(contents(t, v), got))
	}
}

// errKilled stands for the result of an agent that was killed: nobody saw one.
var errKilled = errors.New("killed")

func forScenarios(t *testing.T, run func(t *testing.T, s scenario, base *faults.Volatile)) {
	for name, s := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, s, folderWith(t, s.before))
		})
	}
}

func TestCommit(t *testing.T) {
	forScenarios(t, func(t *testing.T, s scenario, base *faults.Volatile) {
		v, kth, err := s.run(t, base, -1000, faults.Fails)
		must(t, err)
		if d := differ(contents(t, v), s.after()); d != "" {
			t.Errorf("before any recovery: %s", d)
		}
		if d := differ(contents(t, v.Crash(func() bool { return false })), s.after()); d != "" {
			t.Errorf("what Commit left is not durable: %s", d)
		}
		for seed := range uint64(50) {
			s.check(t, v.Crash(chance(seed)), nil, "a crash after the end")
		}
		t.Logf("%d operations", kth.Count())
	})
}

// TestCommitFails fails each operation once; after that the agent gives up, and
// the machine goes on, or its power is cut.
func TestCommitFails(t *testing.T) {
	for _, manner := range []faults.Manner{faults.Fails, faults.Lies} {
		t.Run(manner.String(), func(t *testing.T) {
			forScenarios(t, func(t *testing.T, s scenario, base *faults.Volatile) {
				for k := 1; ; k++ {
					v, kth, err := s.run(t, base, k, manner)
					if kth.Failed() == "" {
						break
					}
					what := fmt.Sprintf("operation %d (%s) %s", k, kth.Failed(), manner)
					for seed := range uint64(6) {
						s.check(t, v.Crash(chance(seed)), err, what+", then a crash")
					}
					s.check(t, v, err, what)
				}
			})
		})
	}
}

// TestCommitKilled kills the agent at each operation and cuts the power, or
// does not; then the one that recovers is killed at each of its operations.
func TestCommitKilled(t *testing.T) {
	forScenarios(t, func(t *testing.T, s scenario, base *faults.Volatile) {
		seed := uint64(0)
		for k := 1; ; k++ {
			v, kth, _ := s.run(t, base, k, faults.Dies)
			if kth.Failed() == "" {
				break
			}
			what := fmt.Sprintf("killed at operation %d (%s)", k, kth.Failed())
			for range testenv.Effort(6, 24) {
				seed++
				s.check(t, v.Crash(chance(seed)), errKilled, fmt.Sprint(what, ", crash ", seed))
			}
			for j := 1 + k%testenv.Effort(3, 1); recoverKilled(t, v.Crash(all), j) != ""; j += testenv.Effort(3, 1) {
				for _, powerCut := range []bool{false, true} {
					seed++
					// not Crash: what the first one did is not durable yet
					v, _, _ := s.run(t, base, k, faults.Dies)
					if powerCut {
						v = v.Crash(chance(seed))
					}
					at := recoverKilled(t, v, j)
					s.check(t, v.Crash(chance(seed+1)), errKilled, fmt.Sprintf("%s (power cut: %v), recovery killed at %d (%s), crash %d", what,
						powerCut, j, at, seed))
				}
			}
			s.check(t, v, errKilled, what)
		}
	})
}

// recoverKilled recovers until operation j, which it returns; "" if there were
// not so many.
func recoverKilled(t testing.TB, v *faults.Volatile, j int) string {
	kth := &faults.Kth{FS: v}
	f := openFolder(t, kth)
	kth.K, kth.Manner = kth.Count()+j, faults.Dies
	f.Recover()
	return kth.Failed()
}

// TestRecoverFails: a failure during recovery is told, and the next one ends it.
func TestRecoverFails(t *testing.T) {
	forScenarios(t, func(t *testing.T, s scenario, base *faults.Volatile) {
		_, whole, err := s.run(t, base, -1000, faults.Fails)
		must(t, err)
		for k := 1; k <= whole.Count(); k += testenv.Effort(3, 1) {
			for _, manner := range []faults.Manner{faults.Fails, faults.Lies} {
				for j, failed := 1, true; failed; j++ {
					v, _, _ := s.run(t, base, k, faults.Dies)
					v = v.Crash(chance(uint64(k*100 + j)))
					kth := &faults.Kth{FS: v}
					f := openFolder(t, kth)
					kth.K, kth.Manner = kth.Count()+j, manner
					err := f.Recover()
					failed = kth.Failed() != ""
					if kth.Injected() && err == nil {
						t.Errorf("recovery says nothing of the failure at %d (%s)", j, kth.Failed())
					}
					s.check(t, v.Crash(chance(uint64(j))), errKilled, fmt.Sprintf("killed at %d, recovery fails at %d (%s)", k, j, kth.Failed()))
				}
			}
		}
	})
}
