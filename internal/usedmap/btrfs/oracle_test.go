package btrfs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/realfs"
	"testbox-imaging/internal/usedmap/volume"
)

// lines of `btrfs inspect-internal dump-tree` and dump-super
var (
	chunkKey    = regexp.MustCompile(`key \(FIRST_CHUNK_TREE CHUNK_ITEM (\d+)\)`)
	chunkLength = regexp.MustCompile(`^\s*length (\d+) owner .* type (\S+)`)
	chunkPlace  = regexp.MustCompile(`stripe \d+ devid \d+ offset (\d+)`)
	extentKey   = regexp.MustCompile(`item \d+ key \((\d+) (EXTENT_ITEM|METADATA_ITEM) (\d+)\)`)
	superField  = regexp.MustCompile(`(?m)^(nodesize|dev_item.total_bytes)\s+(\d+)$`)
)

// oracle is what is free by the words of btrfs-progs: the device without its
// first MiB, the copies of the superblock, all places of all extents, and the
// chunks of the type keep, if that is not empty.
func oracle(t testing.TB, img, keep string) []image.Range {
	t.Helper()
	super := map[string]int64{}
	for _, m := range superField.FindAllStringSubmatch(realfs.Run(t, "btrfs", "inspect-internal", "dump-super", img), -1) {
		super[m[1]] = number(m[2])
	}
	size := super["dev_item.total_bytes"]
	chunks := dumpedChunks(t, img)
	used := []image.Range{{Off: 0, Len: 1 << 20}, {Off: 64 << 20, Len: 64 << 10}, {Off: 256 << 30, Len: 64 << 10}}
	for _, c := range chunks {
		if keep != "" && c.kind == keep {
			for _, off := range c.places {
				used = append(used, image.Range{Off: off, Len: c.length})
			}
		}
	}
	for line := range strings.Lines(dumpTree(t, img, "extent")) {
		m := extentKey.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		at, n := number(m[1]), number(m[3])
		if m[2] == "METADATA_ITEM" {
			n = super["nodesize"]
		}
		for _, c := range chunks {
			if at >= c.start && at < c.start+c.length {
				for _, off := range c.places {
					used = append(used, image.Range{Off: off + at - c.start, Len: n})
				}
			}
		}
	}
	var free, covered volume.Free // the second is used: what a Free is good at is sets
	for _, r := range used {
		covered.Add(r.Off, r.Len)
	}
	at := int64(0)
	for _, r := range covered.Ranges() {
		free.Add(at, min(r.Off, size)-at)
		at = r.End()
	}
	free.Add(at, size-at)
	return free.Ranges()
}

type dumped struct {
	start, length int64
	kind          string
	places        []int64
}

func dumpTree(t testing.TB, img, tree string) string {
	t.Helper()
	return realfs.Run(t, "btrfs", "inspect-internal", "dump-tree", "--noscan", "--hide-names", "-t", tree, img)
}

func dumpedChunks(t testing.TB, img string) []dumped {
	t.Helper()
	var chunks []dumped
	for line := range strings.Lines(dumpTree(t, img, "chunk")) {
		last := len(chunks) - 1
		if m := chunkKey.FindStringSubmatch(line); m != nil {
			chunks = append(chunks, dumped{start: number(m[1])})
		} else if m := chunkLength.FindStringSubmatch(line); m != nil && last >= 0 {
			chunks[last].length = number(m[1])
			chunks[last].kind, _, _ = strings.Cut(m[2], "|")
		} else if m := chunkPlace.FindStringSubmatch(line); m != nil && last >= 0 {
			chunks[last].places = append(chunks[last].places, number(m[1]))
		}
	}
	if len(chunks) < 2 {
		t.Fatal(fmt.Sprint("btrfs-progs shows the chunks ", chunks))
	}
	return chunks
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}
