package pid1

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"testbox-imaging/internal/kmod"
)

// TestMountEFI: UEFI variables are mounted where the firmware has them, and what goes
// wrong there does not keep the box from its action.
func TestMountEFI(t *testing.T) {
	for name, c := range map[string]struct {
		uefi bool
		err  error
	}{"BIOS": {}, "UEFI": {uefi: true}, "mounted already": {true, os.ErrExist}, "broken": {true, os.ErrInvalid}} {
		sys := t.TempDir()
		dir := filepath.Join(sys, "firmware/efi/efivars")
		if c.uefi {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var loaded, mounted []string
		s := newSystem()
		load := func(name string) error { loaded = append(loaded, name); return nil }
		s.drivers = newModules(&kmod.Table{Modules: []kmod.Module{{Name: "efivarfs"}}}, os.DirFS(sys), load, s.say, func() {})
		s.mountEFI(sys, func(dir string) error { mounted = append(mounted, dir); return c.err })
		if want := []string{"efivarfs"}; c.uefi && (!slices.Equal(loaded, want) || !slices.Equal(mounted, []string{dir})) {
			t.Errorf("%s: loaded %v, mounted %v", name, loaded, mounted)
		}
		if !c.uefi && len(loaded)+len(mounted) > 0 {
			t.Errorf("%s: loaded %v, mounted %v", name, loaded, mounted)
		}
	}
}
