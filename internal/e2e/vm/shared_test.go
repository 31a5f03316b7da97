package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/lab"
	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
)

// What all tests use is made once, by the first that asks for it.
var (
	sharedDir     string // removed when the tests have ended
	builtPrograms = sync.OnceValues(buildPrograms)
	ownKernel     = sync.OnceValues(fetchKernel)
	ownLoaders    = sync.OnceValues(fetchLoaders)

	// Versions of the form ram in sharedDir; the second one's agent breaks on demand.
	plainRAM  = sync.OnceValues(func() (string, error) { return buildRAM(func(p programs) string { return p.agent }) })
	faultsRAM = sync.OnceValues(func() (string, error) { return buildRAM(func(p programs) string { return p.faults }) })
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if sharedDir, err = os.MkdirTemp("", "testbox-e2e-"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e/vm:", err)
			return 1
		}
		defer os.RemoveAll(sharedDir)
		return m.Run()
	}())
}

// sharedParts makes what tests share, but for faultsRAM.
func sharedParts() error {
	_, err1 := ownKernel()
	_, err2 := ownLoaders()
	_, err3 := plainRAM()
	return errors.Join(err1, err2, err3)
}

// programs are the paths of the two programs, and of an agent that breaks on
// demand.
type programs struct{ testbox, agent, faults string }

// buildPrograms builds them, the first two as `make build` does.
func buildPrograms() (programs, error) {
	p := programs{filepath.Join(sharedDir, "testbox"), filepath.Join(sharedDir, "testbox-maintenance"), filepath.Join(sharedDir, "faults")}
	return p, errors.Join(goBuild("-o", sharedDir+"/", "./cmd/..."), goBuild("-tags", "faults", "-o", p.faults, "./cmd/testbox-maintenance"))
}

func goBuild(args ...string) error {
	// Without -s -w the maintenance system is larger than loaders should load.
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-ldflags", "-s -w"}, args...)...)
	cmd.Dir = testenv.Top()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	return nil
}

// fetchKernel gets the kernel of the boxes' own systems.
func fetchKernel() (*lab.Kernel, error) {
	bare, err := maintenance.FetchBare(context.Background(), maintenance.Options{}, lab.KernelModules...)
	return (*lab.Kernel)(bare), err
}

// fetched is what boxes with UEFI start by, besides what a maintenance system has.
type fetched struct {
	*lab.Loaders        // of own systems
	rom          string // Debian 13's ROM of a network card, in sharedDir
}

func fetchLoaders() (*fetched, error) {
	files, err := maintenance.FetchFiles(context.Background(), maintenance.Options{},
		maintenance.PackageFile{Package: lab.ShimPackage, File: lab.ShimFile},
		maintenance.PackageFile{Package: lab.GRUBPackage, File: lab.GRUBFile},
		maintenance.PackageFile{Package: lab.ROMPackage, File: lab.ROMFile})
	if err != nil {
		return nil, err
	}
	f := &fetched{&lab.Loaders{Shim: files[0], GRUB: files[1]}, filepath.Join(sharedDir, "e1000e.rom")}
	return f, os.WriteFile(f.rom, files[2], 0o644)
}

// buildRAM builds the form ram with an agent into sharedDir, and returns its
// version.
func buildRAM(agent func(programs) string) (string, error) {
	p, err := builtPrograms()
	if err != nil {
		return "", err
	}
	r, err := maintenance.Build(context.Background(), maintenance.Options{TFTP: sharedDir, Agent: agent(p)})
	if err != nil {
		return "", err
	}
	return r.Version.Version, nil
}

// install puts a maintenance system of the form ram into the lab.
func (b *bench) install(t *testing.T, build func() (string, error)) (version string) {
	t.Helper()
	version, err := build()
	must(t, err)
	place := filepath.Join(bootcfg.MaintDir, version)
	must(t, os.CopyFS(filepath.Join(b.lab.TFTP(), place), os.DirFS(filepath.Join(sharedDir, place))))
	b.step(t, "maintenance system %s", version)
	return version
}
