package btrfs

import (
	"cmp"
	"fmt"
	"slices"

	"testbox-imaging/internal/image"
)

// maxLog is how many blocks and extents of a log are collected.
const maxLog = 1 << 18

// readLog returns the logical addresses that the log uses, in order.
//
// fsync writes changes into log trees, one for each subvolume that it touched,
// and sets the superblock's log_root to a tree of their roots. The next mount
// replays them, and the next commit drops them. Until then their blocks, and
// new data that their items name, are not in the extent tree. But they are in
// chunks that were committed: after a new chunk, the next fsync commits
// everything instead (btrfs_set_log_full_commit).
func (f *fs) readLog() ([]image.Range, error) {
	if f.sb.logRoot == 0 {
		return nil, nil
	}
	var out []image.Range
	// Log trees are written in the transaction after the last commit.
	t := tree{name: "log", owner: logTree, limit: 64 << 20, newest: f.sb.generation + 1}
	t.block = func(at uint64) { out = append(out, image.Range{Off: int64(at), Len: f.sb.node}) }
	var logs []pointer
	t.item = func(k key, data []byte) error {
		if k.object != logTree || k.kind != rootItem {
			return t.unknown(k)
		}
		p, err := parseRoot(data)
		logs = append(logs, p)
		return err
	}
	err := f.walk(&t, pointer{at: f.sb.logRoot, generation: f.sb.generation + 1, level: f.sb.logLevel})
	if err != nil {
		return nil, err
	}
	for _, p := range logs {
		t.began = false
		t.item = func(k key, data []byte) error {
			if len(out) > maxLog {
				return errLarge
			}
			if k.kind != extentData {
				return nil
			}
			r, err := f.logged(data)
			if r.Len > 0 {
				out = append(out, r)
			}
			return err
		}
		if err := f.walk(&t, p); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b image.Range) int { return cmp.Compare(a.Off, b.Off) })
	return out, nil
}

// logged is the extent that a struct btrfs_file_extent_item names. It is empty
// if there is none.
func (f *fs) logged(b []byte) (r image.Range, err error) {
	const inline, regular, prealloc = 0, 1, 2
	if len(b) < 21 || b[20] > prealloc || b[20] != inline && len(b) < 53 {
		return r, fmt.Errorf("its log has an extent that cannot be read")
	}
	if b[20] == inline || le64(b[21:]) == 0 { // a hole
		return r, nil
	}
	at, n := le64(b[21:]), le64(b[29:])
	if n == 0 || n > maxAddress {
		return r, fmt.Errorf("its log has an extent of %d bytes", n)
	}
	if _, err := f.chunkOf(at, int64(n)); err != nil {
		return r, err
	}
	return image.Range{Off: int64(at), Len: int64(n)}, nil
}
