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
	newROM        = sync.OnceValues(fetchROM)

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

// fetchLoaders gets the loaders of own systems that start by UEFI.
func fetchLoaders() (*lab.Loaders, error) {
	shim, err := maintenance.FetchFile(context.Background(), maintenance.Options{}, lab.ShimPackage, lab.ShimFile)
	if err != nil {
		return nil, err
	}
	grub, err := maintenance.FetchFile(context.Background(), maintenance.Options{}, lab.GRUBPackage, lab.GRUBFile)
	return &lab.Loaders{Shim: shim, GRUB: grub}, err
}

// fetchROM gets Debian 13's ROM of a network card, and puts it into sharedDir.
func fetchROM() (string, error) {
	rom, err := maintenance.FetchFile(context.Background(), maintenance.Options{}, lab.ROMPackage, lab.ROMFile)
	if err != nil {
		return "", err
	}
	path := filepath.Join(sharedDir, "e1000e.rom")
	return path, os.WriteFile(path, rom, 0o644)
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
