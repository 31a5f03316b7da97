package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/boottest"
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
	"testbox-imaging/internal/sharedir"
)

// Finding is what Look says about a part of a server.
type Finding struct {
	What string // the part, such as a path
	Text string // how it is, if nothing is wrong with it
	Err  error  // what is wrong with it
}

// leastFree is how many bytes must be free where the server writes.
const leastFree = 1 << 30

// Look says whether a server with this configuration could start and work. It changes
// nothing, and may be called beside a server that runs. ready says whether boxes can be
// armed for an action.
func Look(ctx context.Context, cfg *Config, ready func(box.Action) error) (all []Finding) {
	say := func(what, text string, err error) { all = append(all, Finding{what, text, err}) }
	runsAs, err := writerOf(cfg.State)
	if err != nil {
		say("state folder "+cfg.State, "", fmt.Errorf("%w; `testbox server init` makes it", err))
		return all
	}
	say("state folder "+cfg.State, "it belongs to "+runsAs.name, runsAs.mayWrite(cfg.State))
	for _, dir := range []string{cfg.BootDir(), cfg.BoxesDir(), cfg.StoreDir()} {
		say("folder "+dir, "the server can write there", runsAs.mayWrite(dir))
	}
	for _, dir := range []string{cfg.State, cfg.StoreDir()} {
		if free, known := (durable.OS{}).Free(dir); known && free < leastFree {
			say("room at "+dir, "", fmt.Errorf("only %d MiB are free; at %d MiB something goes wrong soon", free>>20, leastFree>>20))
		} else if known {
			say("room at "+dir, fmt.Sprintf("%d GiB are free", free>>30), nil)
		}
	}
	text, err := lookAtLedger(ctx, cfg, runsAs)
	say("ledger "+cfg.LedgerFile(), text, err)
	for _, name := range []string{"agents", "api"} {
		text, err := lookAtKey(cfg.KeyDir(), name, runsAs)
		say("key "+filepath.Join(cfg.KeyDir(), name+".key"), text, err)
	}
	_, err = sharedir.Open(durable.OS{}, cfg.BoxesDir())
	say("boxes' logs "+cfg.BoxesDir(), "the area is there", err)
	powers, err := cfg.parsePowers() // it is right, as the configuration was read
	for _, name := range slices.Sorted(maps.Keys(powers)) {
		say("power command "+name, "its program and its files are there", lookAtPower(powers[name], runsAs))
	}
	if err != nil {
		say("power commands", "", err)
	}
	for i := range cfg.Hooks {
		h := &cfg.Hooks[i]
		_, err := h.readSecrets()
		if err == nil {
			err = runsAs.mayRead(h.SecretFile)
		}
		say("web hook "+h.URL, "its secret is there", err)
	}
	if cfg.Upkeep.BootTest != "" {
		say("boot tests of backups", "QEMU is there", boottest.Ready())
	}
	say("boot files "+cfg.BootDir(), "boxes can be armed", ready(box.Backup))
	return all
}

func lookAtLedger(ctx context.Context, cfg *Config, runsAs *writer) (text string, err error) {
	switch err := ledger.Check(ctx, cfg.LedgerFile()); {
	case errors.Is(err, ledger.ErrInUse):
		return "a server works with it", nil
	case errors.Is(err, fs.ErrNotExist):
		return "the first start of the server makes it", nil
	case err != nil:
		return "", fmt.Errorf("%w; if it is damaged, `testbox server recover` takes its copy", err)
	}
	for _, end := range ledgerFiles {
		if err := runsAs.owns(cfg.LedgerFile() + end); err != nil {
			return "", err
		}
	}
	return "it is whole", nil
}

// lookAtKey looks at a key and its certificate as loadKey does, and makes none.
func lookAtKey(dir, name string, runsAs *writer) (text string, err error) {
	keyFile, certFile := filepath.Join(dir, name+".key"), filepath.Join(dir, name+".crt")
	key, err := readKey(durable.OS{}, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "the first start of the server makes it", nil
	}
	if err == nil {
		err = keyIsSecret(keyFile)
	}
	if err == nil {
		err = runsAs.owns(keyFile)
	}
	if err != nil {
		return "", err
	}
	cert, err := readCertificate(durable.OS{}, certFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "it is right, and the next start of the server makes its certificate anew", nil
	case err != nil:
		return "", fmt.Errorf("its certificate %s: %w", certFile, err)
	}
	if err := belongTogether(key, cert, keyFile); err != nil {
		return "", err
	}
	if time.Now().After(cert.NotAfter) { // one of an admin's own; ours do not end
		return "", fmt.Errorf("its certificate %s ended on %s, so browsers refuse it. Put a newer one there, or remove it: the next start of "+
			"the server makes one that does not end", certFile, cert.NotAfter.UTC().Format(time.DateOnly))
	}
	return "it is right, and so is its certificate", nil
}

// writer is the user as whom the server runs.
type writer struct {
	name   string
	uid    uint32
	groups []uint32
}

// writerOf is the owner of the state folder, since `testbox server init` gives that folder
// to the user as whom the server runs.
func writerOf(state string) (*writer, error) {
	st, err := statOf(state)
	if err != nil {
		return nil, err
	}
	w := &writer{name: fmt.Sprintf("user %d", st.Uid), uid: st.Uid, groups: []uint32{st.Gid}}
	u, err := user.LookupId(strconv.Itoa(int(st.Uid)))
	if err != nil {
		return w, nil // it has no name
	}
	w.name = "the user " + u.Username
	groups, err := u.GroupIds()
	if err != nil {
		return w, nil
	}
	for _, g := range groups {
		if gid, err := strconv.ParseUint(g, 10, 32); err == nil {
			w.groups = append(w.groups, uint32(gid))
		}
	}
	return w, nil
}

func statOf(path string) (*syscall.Stat_t, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil, fmt.Errorf("the owner of %s is not known", path)
	}
	return st, nil
}

// mayWrite returns an error if the server could not make files in a folder.
func (w *writer) mayWrite(dir string) error {
	st, err := statOf(dir)
	switch {
	case err != nil:
		return fmt.Errorf("%w; `testbox server init` makes it", err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return errors.New("it is no folder")
	case errors.Is(unix.Access(dir, unix.W_OK), unix.EROFS):
		return errors.New("its file system can only be read")
	}
	const write, enter = 2, 1
	if w.rights(st)&(write|enter) != write|enter {
		return fmt.Errorf("%s, to whom the state folder belongs, cannot write there; "+
			"`testbox server init --user USER` gives all that the server writes to the user as whom it runs", w.name)
	}
	return nil
}

// rights are what the server may do with a file: 4 is read, 2 is write, 1 is to enter.
func (w *writer) rights(st *syscall.Stat_t) uint32 {
	switch {
	case w.uid == 0:
		return 7
	case st.Uid == w.uid:
		return st.Mode >> 6
	case slices.Contains(w.groups, st.Gid):
		return st.Mode >> 3
	}
	return st.Mode
}

// mayRead returns an error if the server could not read a file.
func (w *writer) mayRead(path string) error {
	st, err := statOf(path)
	if err != nil {
		return err
	}
	const read = 4
	if w.rights(st)&read == 0 {
		return fmt.Errorf("%s, as whom the server runs, cannot read %s; give it to that user, or to a group of that user", w.name, path)
	}
	return nil
}

// owns returns an error if a file is another user's, so that the server could not use it.
// A file that is not there is no error.
func (w *writer) owns(path string) error {
	st, err := statOf(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case w.uid != 0 && st.Uid != w.uid:
		return fmt.Errorf("%s belongs to the user %d, and the state folder to %s; `testbox server init --user USER` gives all that "+
			"the server writes to the user as whom it runs", path, st.Uid, w.name)
	}
	return nil
}

// Wrong is an error that says what is wrong in all, or nil.
func Wrong(all []Finding) error {
	var lines []string
	for _, f := range all {
		if f.Err != nil {
			lines = append(lines, fmt.Sprintf("%s: %v", f.What, f.Err))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return problem.Refusef("%s", strings.Join(lines, "\n"))
}
