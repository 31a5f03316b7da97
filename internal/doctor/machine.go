package doctor

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"testbox-imaging/internal/blob"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/bootfiles"
	"testbox-imaging/internal/server"
	"testbox-imaging/internal/wire"
)

// clockOff is how far two clocks may differ.
const clockOff = 5 * time.Minute

// Clock looks whether the clock of this machine can be right. program is the path of a file
// that was made before now, such as this program.
func Clock(now time.Time, program string) []Finding {
	st, err := os.Stat(program)
	switch {
	case err != nil:
		return []Finding{notLooked("clock", "%v", err)}
	case st.ModTime().After(now.Add(clockOff)):
		return []Finding{problem("clock", "Set the clock: `timedatectl set-ntp true`.", "the clock of this machine says %s, and %s was "+
			"made at %s, later than that",
			now.UTC().Format(time.RFC3339), program, st.ModTime().UTC().Format(time.RFC3339))}
	}
	return []Finding{fine("clock", "the clock says %s", now.UTC().Format(time.RFC3339))}
}

// Skew compares the clock of a server with this machine's.
func Skew(server, here time.Time) []Finding {
	if d := server.Sub(here).Abs(); d > clockOff {
		return []Finding{problem("clock", "`timedatectl` on both machines shows which of them is wrong.",
			"the clock of the server says %s, and this machine's %s: they differ by %v", server.UTC().Format(time.RFC3339),
			here.UTC().Format(time.RFC3339), d.Round(time.Second))}
	}
	return []Finding{fine("clock", "the clocks of the server and of this machine agree")}
}

// Configured turns what server.Look has found into findings.
func Configured(found []server.Finding) (all []Finding) {
	for _, f := range found {
		switch {
		case f.Err != nil && errors.Is(f.Err, unix.EACCES):
			all = append(all, notLooked("server-files", "only root and the server's user may look at %s: sudo testbox doctor", f.What))
		case f.Err != nil:
			all = append(all, problem("server-files", "As it says. `testbox server --check` says it again.", "%s: %v", f.What, f.Err))
		default:
			all = append(all, fine("server-files", "%s: %s", f.What, f.Text))
		}
	}
	return all
}

// Room looks how full a file system is.
func Room(path string) []Finding {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil || st.Blocks == 0 {
		return []Finding{notLooked("room", "how much is free at %s is not known (%v)", path, err)}
	}
	return roomOf(path, st.Bavail*uint64(st.Bsize), st.Blocks*uint64(st.Bsize))
}

func roomOf(path string, free, size uint64) []Finding {
	percent, do := free*100/size, "testbox image delete --keep-last 3, then testbox store gc; or a larger disk"
	switch {
	case percent < 3:
		return []Finding{problem("room", do, "only %d %% (%d GiB) are free at %s: backups fail soon", percent, free>>30, path)}
	case percent < 10:
		return []Finding{warning("room", do, "only %d %% (%d GiB) are free at %s", percent, free>>30, path)}
	}
	return []Finding{fine("room", "%d %% (%d GiB) are free at %s", percent, free>>30, path)}
}

// ledgerAge is how old the copy of the ledger may be. It is made each night.
const ledgerAge = 50 * time.Hour

// LedgerCopy looks at the copy of the ledger that the upkeep of the night makes.
func LedgerCopy(cfg *server.Config, now time.Time) []Finding {
	const lost = "if the disk loses bytes of the ledger, names, groups, users and tokens are lost"
	if cfg.Upkeep.At == "" {
		return []Finding{warning("ledger-copy", `at = "03:30" in the section [upkeep] of server.toml`, "the ledger is never copied; %s", lost)}
	}
	main, err := os.Stat(cfg.LedgerFile())
	if errors.Is(err, os.ErrNotExist) {
		return []Finding{fine("ledger-copy", "there is no ledger yet")}
	}
	if err != nil {
		return []Finding{notLooked("ledger-copy", "%v", err)}
	}
	if main.ModTime().After(now.Add(clockOff)) {
		return []Finding{problem("clock", "Set the clock: `timedatectl set-ntp true`.", "%s is dated in the future", cfg.LedgerFile())}
	}
	const do = "The log of the server says at " + "`A step of the upkeep failed`" + " why. The server must be up at the time `at` in " +
		"server.toml."
	st, err := os.Stat(cfg.LedgerCopy())
	switch {
	case errors.Is(err, os.ErrNotExist) && young(cfg, now):
		return []Finding{fine("ledger-copy", "the server is new, and makes its first copy of the ledger at %s", cfg.Upkeep.At)}
	case errors.Is(err, os.ErrNotExist):
		return []Finding{warning("ledger-copy", do, "there is no copy of the ledger yet; %s", lost)}
	case err != nil:
		return []Finding{notLooked("ledger-copy", "%v", err)}
	case now.Sub(st.ModTime()) > ledgerAge:
		return []Finding{problem("ledger-copy", do, "the copy of the ledger is of %s; %s", st.ModTime().UTC().Format(time.RFC3339), lost)}
	}
	return []Finding{fine("ledger-copy", "the ledger was copied at %s", st.ModTime().UTC().Format(time.RFC3339))}
}

// young reports whether a server was set up so short a time ago that no copy is due yet. Its
// key is made once.
func young(cfg *server.Config, now time.Time) bool {
	st, err := os.Stat(filepath.Join(cfg.KeyDir(), "agents.key"))
	return err == nil && now.Sub(st.ModTime()) < ledgerAge
}

// Keys compares the server's key with the one that the boot files name.
func Keys(boot *bootfiles.Folder, key func() (string, error)) (all []Finding) {
	files, err := boot.List()
	if err != nil {
		return []Finding{notLooked("keys", "%v", err)}
	}
	is, err := key()
	if err != nil {
		return []Finding{notLooked("keys", "the certificate for agents cannot be read: %s", errText(err))}
	}
	for _, f := range files {
		if f.Cmdline != nil && f.Cmdline.Mode == bootcfg.ServerMode && f.Cmdline.Key != is {
			all = append(all, problem("keys", "systemctl restart testbox (a server that starts writes its key into the boot files of its jobs)",
				"the boot file of %s names another key of the server than it has, so the box speaks with nobody", f.Addr))
		}
	}
	if len(all) == 0 {
		all = append(all, fine("keys", "the boot files name the server's key"))
	}
	return all
}

// KeyAt is a port at which a server shows its key.
type KeyAt struct {
	URL  string
	File string                           // with the key that it should be
	Want func() (wire.Fingerprint, error) // the key in the file
}

// ServedKeys asks at ports of this machine's server whether it is the server whose keys are in
// the files. ask gives the key that is shown at a URL.
func ServedKeys(ctx context.Context, ports []KeyAt, ask func(context.Context, string) (wire.Fingerprint, error)) (all []Finding) {
	for _, at := range ports {
		want, err := at.Want()
		if err != nil {
			all = append(all, notLooked("keys", "%s cannot be read: %s", at.File, errText(err)))
			continue
		}
		is, err := ask(ctx, at.URL)
		switch {
		case err != nil:
			all = append(all, problem("keys", "Does the server run (systemctl status testbox), and is the address that of this machine (server in "+
				"site.conf)? Does a firewall drop it?", "nobody shows a key at %s, where boxes or admins ask for the server: %v", at.URL, err))
		case is != want:
			all = append(all, problem("keys", "systemctl restart testbox, if the key was made anew. Else another machine has the address of the "+
				"server: find it (ip neigh, on a third machine), and give it another one.",
				"the server that answers at %s has the key %v, and %s has %v: nobody who knows the one takes the other", at.URL, is, at.File, want))
		default:
			all = append(all, fine("keys", "the server at %s shows the key of %s", at.URL, at.File))
		}
	}
	return all
}

// Conditions tries whether object storage keeps conditions on writes. It leaves nothing
// there.
func Conditions(ctx context.Context, blobs blob.Store, onlyWriter bool) []Finding {
	err := blob.Probe(ctx, blobs)
	switch {
	case errors.Is(err, blob.ErrNoConditions) && onlyWriter:
		return []Finding{warning("s3", "Never let another folder or program write there.",
			"%v; you have said that nothing else writes to this bucket and prefix", err)}
	case errors.Is(err, blob.ErrNoConditions):
		return []Finding{problem("s3", "Use another server; the guide names some. Or, if nothing else ever writes there: "+
			"testbox store take-over --only-writer --yes", "%v: two machines that write there would lose backups of each other", err)}
	case err != nil:
		return []Finding{problem("s3", "As it says; docs/troubleshooting.md has the errors of object storage in the section \"A store\".",
			"the object storage: %v", err)}
	}
	return []Finding{fine("s3", "the object storage keeps conditions on writes")}
}

// Here reports whether an address is this machine's.
func Here(a netip.Addr, mine []netip.Prefix) bool {
	for _, p := range mine {
		if p.Addr() == a {
			return true
		}
	}
	return false
}
