package sharedir

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
)

// commitPlan has the steps that put a backup in place. Writing it durably as
// commit.json is the commit point. From then on the new backup is the box's
// backup, and the next agent in the folder completes the plan. The plan can be
// carried out again from any state that a crash leaves (see carryOut).
type commitPlan struct {
	Format int        `json:"format"` // planFormat
	Arming box.Arming `json:"arming"` // arming of the new backup, which is in the names of its files (newFile)
	New    []planFile `json:"new"`    // image files and sidecars that get their names
	Retire []string   `json:"retire"` // files of the previous backup, which get oldExt
	Drop   []string   `json:"drop"`   // files, without oldExt, whose older .old file is removed
}

// planFile is a file of the new backup.
type planFile struct {
	Name string `json:"name"` // without the part that newFile adds
	Size int64  `json:"size"` // bytes
}

const (
	planFormat = 1
	maxPlan    = 1 << 20 // bytes
)

// parsePlan reads commit.json. It accepts only what marshal writes, and only
// names of image files. So no plan moves anything out of the folder or touches
// its other files.
func parsePlan(data []byte) (*commitPlan, error) {
	if len(data) > maxPlan {
		return nil, fmt.Errorf("it is larger than %d bytes", maxPlan)
	}
	var p commitPlan
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&p); err != nil {
		return nil, fmt.Errorf("it is not readable: %w", err)
	}
	if err := p.validate(); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.marshal(), data) {
		return nil, errors.New("it is not as this program writes it")
	}
	return &p, nil
}

func (p *commitPlan) marshal() []byte {
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		panic(err) // cannot happen with plain fields
	}
	return append(b, '\n')
}

func (p *commitPlan) validate() error {
	if p.Format != planFormat {
		return fmt.Errorf("it has format %d, this program reads format %d", p.Format, planFormat)
	}
	if _, err := box.ParseArming(string(p.Arming)); err != nil {
		return err
	}
	if err := p.validateNew(); err != nil {
		return err
	}
	old := map[string]bool{}
	for _, file := range append(append([]string{}, p.Retire...), p.Drop...) {
		if _, _, ok := splitFile(file); !ok || old[file] {
			return fmt.Errorf("it has the file %q, which is no image's or is named twice", file)
		}
		old[file] = true
	}
	return nil
}

// validateNew checks that the new files are pairs of image and sidecar, in the
// order in which Set makes them.
func (p *commitPlan) validateNew() error {
	if len(p.New) == 0 || len(p.New)%2 != 0 {
		return errors.New("its new files are not pairs of image and sidecar")
	}
	seen := map[string]bool{}
	for i := 0; i < len(p.New); i += 2 {
		img, side := p.New[i], p.New[i+1]
		name, ext, ok := splitFile(img.Name)
		if !ok || ext != rawgzExt || side.Name != name+sidecarExt || seen[name] {
			return fmt.Errorf("its new files %q and %q are no image and its sidecar, or are named twice", img.Name, side.Name)
		}
		if img.Size <= 0 || side.Size <= 0 || side.Size > image.MaxFacts {
			return fmt.Errorf("its new file %q or the sidecar has a size that cannot be", img.Name)
		}
		seen[name] = true
	}
	return nil
}

// isNew reports whether the plan puts a new file in place under this name.
func (p *commitPlan) isNew(file string) bool {
	for _, n := range p.New {
		if n.Name == file {
			return true
		}
	}
	return false
}
