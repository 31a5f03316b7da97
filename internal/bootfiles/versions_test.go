package bootfiles

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/durable"
)

// TestOpenVersion: a version that was built before is made readable for the
// TFTP server's user, and keeps what an admin allowed beyond that.
func TestOpenVersion(t *testing.T) {
	tftp := t.TempDir()
	v := bootcfg.Version{Version: "1"}
	for path, mode := range map[string]fs.FileMode{v.KernelPath(): 0o600, v.InitrdPath(): 0o660} {
		if err := write(filepath.Join(tftp, path), "x"); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(tftp, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{filepath.Dir(v.KernelPath()), bootcfg.MaintDir} {
		if err := os.Chmod(filepath.Join(tftp, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := New(durable.OS{}, filepath.Join(tftp, bootcfg.ConfigDir)).OpenVersion(&v); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]fs.FileMode{
		v.KernelPath(): 0o644, v.InitrdPath(): 0o664, filepath.Dir(v.KernelPath()): 0o755, bootcfg.MaintDir: 0o755,
	} {
		st, err := os.Stat(filepath.Join(tftp, path))
		if err != nil {
			t.Fatal(err)
		}
		if got := st.Mode().Perm(); got != want {
			t.Errorf("%s has mode %v, want %v", path, got, want)
		}
	}
}

// TestBuildCommand: the command names the folder of the areas if it has to.
func TestBuildCommand(t *testing.T) {
	for area, want := range map[string]string{
		bootcfg.Export + "/" + bootcfg.TFTPArea: "`testbox maintenance build --form debian`",
		"/srv/share/" + bootcfg.TFTPArea:        "`testbox maintenance build --form debian /srv/share`",
		bootcfg.TFTPMount: "`testbox maintenance build --form debian` on the storage server, " +
			"there with the folder of the areas if that is not /export",
	} {
		if got := New(durable.OS{}, filepath.Join(area, bootcfg.ConfigDir)).BuildCommand("--form debian"); got != want {
			t.Errorf("%s: %s", area, got)
		}
	}
}

func write(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
