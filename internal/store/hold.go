package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/object"
)

// holds are the images that are being read in this process. They are neither
// deleted nor collected.
type holds struct {
	mu      sync.Mutex          // guards readers
	readers map[object.Name]int // number of readers of each image, by the name of its root
}

// hold keeps an image until release was called as often as hold.
func (h *holds) hold(root object.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers == nil {
		h.readers = map[object.Name]int{}
	}
	h.readers[root]++
}

func (h *holds) release(root object.Name) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.readers[root]--; h.readers[root] == 0 {
		delete(h.readers, root)
	}
}

// roots returns the images that are being read.
func (h *holds) roots() []object.Name {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.readers))
}

// split separates backups that have an image which is being read from the
// others.
func (h *holds) split(records []*image.Record) (free, held []*image.Record) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range records {
		if slices.ContainsFunc(r.Disks, func(d image.RecordedDisk) bool { return h.readers[d.Root] > 0 }) {
			held = append(held, r)
		} else {
			free = append(free, r)
		}
	}
	return free, held
}

// ErrHeld is matched by the error for backups that are not deleted because they
// are being read.
var ErrHeld = errors.New("in use")

// HeldError names the backups that were not deleted. The others of the same
// call are deleted.
type HeldError struct{ Records []*image.Record }

func (e *HeldError) Error() string {
	var names []string
	for _, r := range e.Records {
		names = append(names, fmt.Sprintf("backup %s of %s", r.ID, r.Box))
	}
	return fmt.Sprintf("not deleted, since an image in it is %v by a restore or another reader: %s; delete it when that has ended",
		ErrHeld, strings.Join(names, ", "))
}

// Is implements the protocol of errors.Is.
func (e *HeldError) Is(target error) bool { return target == ErrHeld }
