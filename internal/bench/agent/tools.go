package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"testbox-imaging/internal/bench/measure"
)

// bench is the state of one call.
type bench struct {
	bin, dir string
	results  map[string]*result // by tool
}

// tool is one way to make an image of the disk and to write it back.
type tool struct {
	name            string
	image           string // where the image is
	backup, restore func() *exec.Cmd
}

// result is what was measured of a tool.
type result struct {
	backups, restores []measure.Usage
	verifies          []time.Duration // the agent's read-backs, which are part of its restores
	size              int64           // of the image, bytes
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }
func (b *bench) disk() string            { return b.path("disk") }
func (b *bench) target() string          { return b.path("dev/sda") }

// tools are the agent and what it is measured against. All leave their output
// durable.
func (b *bench) tools() []tool {
	pipe := func(name, pack, unpack string) tool {
		image := b.path(name + ".gz")
		return tool{
			name:  name,
			image: image,
			backup: func() *exec.Cmd {
				return measure.Shell("dd if=%s bs=256K status=none | %s -c > %s && sync %s", b.target(), pack, image, image)
			},
			restore: func() *exec.Cmd {
				return measure.Shell("%s -c %s | dd of=%s bs=256K conv=notrunc,fsync status=none", unpack, image, b.target())
			},
		}
	}
	return []tool{
		pipe("gzip", "gzip", "gunzip"),
		pipe("pigz", "pigz", "unpigz"),
		{name: "agent", image: b.path("testbox-backup/" + boxAddr + "/sda.raw.gz"), backup: b.agent, restore: b.agent},
	}
}

// turn backs the disk up, spoils it, and restores it.
func (b *bench) turn(t tool) error {
	r := b.results[t.name]
	if r == nil {
		r = new(result)
		b.results[t.name] = r
	}
	if err := b.arm(t, "backup"); err != nil {
		return err
	}
	u, err := measure.Run(t.backup(), b.target())
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	r.backups = append(r.backups, u)
	st, err := os.Stat(t.image)
	if err != nil {
		return err
	}
	r.size = st.Size()
	if err := b.spoil(); err != nil {
		return err
	}
	if err := b.arm(t, "restore"); err != nil {
		return err
	}
	if u, err = measure.Run(t.restore(), t.image); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	r.restores = append(r.restores, u)
	if err := measure.Command("cmp", b.disk(), b.target()); err != nil {
		return fmt.Errorf("the restored disk is not the same: %w", err)
	}
	if t.name != "agent" {
		return os.Remove(t.image)
	}
	return b.afterAgent(t, r)
}

// afterAgent looks at what the agent left, and removes it.
func (b *bench) afterAgent(t tool, r *result) error {
	v, err := b.verifyTime()
	if err != nil {
		return err
	}
	r.verifies = append(r.verifies, v)
	if err := measure.Shell("gunzip -c %s | cmp - %s", t.image, b.disk()).Run(); err != nil {
		return fmt.Errorf("gunzip does not give the disk from the agent's image: %w", err)
	}
	return os.RemoveAll(filepath.Dir(t.image))
}

// spoil overwrites what is on the target, so that a restore that does nothing
// is found out.
func (b *bench) spoil() error {
	return measure.Command("bash", "-c", fmt.Sprintf("yes spoilt | dd of=%s bs=1M count=%d iflag=fullblock conv=notrunc status=none",
		b.target(), diskSize>>20))
}
