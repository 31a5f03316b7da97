package btrfs

import "fmt"

// roots are the trees of the root tree that are read for the map.
type roots struct {
	extent, dev, groups pointer
	halfDeleted         bool // some tree is half deleted
}

// readRoots reads the root tree. Every root that it names must be in use.
func (f *fs) readRoots() (*roots, error) {
	rs := &roots{}
	t := tree{name: "root tree", owner: rootTree, limit: 64 << 20, newest: f.sb.generation}
	t.item = func(k key, data []byte) error {
		if k.kind != rootItem {
			return nil // files of the free space cache, names, states
		}
		p, err := parseRoot(data)
		if err != nil || p.at == 0 {
			return err
		}
		rs.halfDeleted = rs.halfDeleted || halfDeleted(data)
		switch k.object {
		case extentTree:
			rs.extent = p
		case devTree:
			rs.dev = p
		case blockGroupTree:
			rs.groups = p
		}
		return f.need(p.at)
	}
	if err := f.walk(&t, f.sb.root); err != nil {
		return nil, err
	}
	if rs.extent.at == 0 || rs.dev.at == 0 || (rs.groups.at != 0) != (f.sb.compatRO&roBlockGroupTree != 0) {
		return nil, fmt.Errorf("its root tree lacks a tree, or has one too many")
	}
	return rs, nil
}

// parseRoot reads a struct btrfs_root_item. Its later fields may be missing.
func parseRoot(b []byte) (pointer, error) {
	if len(b) < 239 {
		return pointer{}, fmt.Errorf("a root of a tree is cut")
	}
	if b[238] > maxLevel {
		return pointer{}, fmt.Errorf("a tree has %d levels", b[238])
	}
	return pointer{at: le64(b[176:]), generation: le64(b[160:]), level: b[238]}, nil
}

// halfDeleted reports whether the blocks of the tree of a struct
// btrfs_root_item were freed up to some key (drop_progress). Linux knows where
// to continue. But other programs follow the pointers before that key to free
// blocks, for example btrfs check with quotas.
func halfDeleted(b []byte) bool { return parseKey(b[220:]) != key{} }
