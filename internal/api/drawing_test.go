package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/chunk"
	"testbox-imaging/internal/conform"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/object"
	"testbox-imaging/internal/store"
	"testbox-imaging/internal/usedmap"
)

// laid gives the roots that are put into a session a layout.
type laid struct {
	chunk.Session
	layout []byte
	root   object.Name
}

func (l *laid) Put(ctx context.Context, o object.Object) error {
	if o.Kind != object.Root {
		return l.Session.Put(ctx, o)
	}
	raw, err := o.Decode(nil)
	if err != nil {
		return err
	}
	r, err := chunk.ParseRoot(raw)
	if err != nil {
		return err
	}
	r.Layout = l.layout
	raw = r.Marshal()
	l.root = object.NameOf(raw)
	return l.Session.Put(ctx, object.Encode(object.Key{Kind: object.Root, Name: l.root}, raw, nil))
}

// layDisk makes a backup of one disk.
func layDisk(t *testing.T, s *store.Locked, of string, disk []byte, layout string, unused ...image.Range) string {
	t.Helper()
	b := s.Begin()
	l := &laid{Session: b, layout: []byte(layout)}
	conform.SaveImage(t, l, disk, unused...)
	free := int64(0)
	for _, u := range unused {
		free += u.Len
	}
	size := int64(len(disk))
	r := &image.Record{Format: image.RecordFormat, Box: of, Disks: []image.RecordedDisk{{
		Name: "sda", Disk: image.Identity{Size: size, SectorSize: 512}, Data: size - free, Unused: free, Stored: 77, Root: l.root,
	}}}
	must(t, b.Commit(t.Context(), r))
	must(t, b.Close())
	return r.ID
}

func emptyStore(t *testing.T) *store.Locked {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "store")
	must(t, store.InitDir(t.Context(), dir))
	s, err := store.OpenDir(t.Context(), dir, nil, false, t.Logf)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

// TestDiskMap draws a disk of which a part is in doubt, and another part has changed.
func TestDiskMap(t *testing.T) {
	s := emptyStore(t)
	const mib = 1 << 20
	disk := bytes.Repeat([]byte("contents"), 8*mib/8)
	for i := range disk {
		disk[i] += byte(i >> 12)
	}
	layout, err := json.Marshal(usedmap.Layout{Table: "gpt", Parts: []usedmap.LayoutPart{
		{Kind: usedmap.Gap, Off: 0, Len: mib},
		{Kind: usedmap.Partition, Number: 1, FS: "ext4", Label: "root\x1b[31m", Off: mib, Len: 3 * mib},
		{Kind: usedmap.Partition, Number: 2, FS: "LVM2_member", Off: 4 * mib, Len: 4 * mib, Volumes: []usedmap.LayoutPart{
			{Kind: usedmap.Logical, Name: "home", Off: 5 * mib, Len: 2 * mib, Doubt: "nobody knows <b>it</b>"},
		}},
	}})
	must(t, err)
	free := image.Range{Off: 2 * mib, Len: mib}
	first := layDisk(t, s, "10.0.0.1", disk, string(layout), free)
	disk[3*mib+100]++
	second := layDisk(t, s, "10.0.0.1", disk, string(layout), free)

	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups, cfg.Now = s, nil })
	r.group("rack")
	r.box(ledger.Box{Address: addr(t, "10.0.0.1"), Groups: []string{"rack"}})
	c := r.root()
	at := func(id string) string { return "/api/v1/backups/10.0.0.1/" + id + "/disks/sda/map" }

	var m api.DiskMap
	c.want(200, "GET", at(second)+"?cells=8", nil, &m)
	switch {
	case m.With != first || m.Size != 8*mib || m.Cell != mib || len(m.Cells) != 8 || m.Table != "gpt" || m.Cut || m.Unread != 0:
		t.Errorf("the map is %+v", m)
	case m.Unused != mib || m.Data+m.Zero != 7*mib || m.InDoubt != 2*mib:
		t.Errorf("the counts of the map are %+v", m)
	case m.Changed == 0 || m.Changed > 2*chunk.MaxSize || m.Cells[3].Changed == 0 || m.Cells[0].Changed+m.Cells[6].Changed > 0:
		t.Errorf("the changes of the map are %+v", m)
	case m.Cells[2] != api.MapCell{} || m.Cells[5].InDoubt != mib || m.Cells[4].InDoubt != 0:
		t.Errorf("the cells of the map are %+v", m.Cells)
	case len(m.Parts) != 3 || m.Parts[0].Used != 2*mib || m.Parts[1].Used != 4*mib || m.Parts[2].Used != 2*mib || !m.Parts[2].Volume:
		t.Errorf("the parts of the map are %+v", m.Parts)
	case strings.ContainsRune(m.Parts[0].Label, 0x1b) || m.Parts[0].Changed != m.Changed || m.Parts[2].Doubt == "":
		t.Errorf("the parts of the map are %+v", m.Parts)
	}
	m = api.DiskMap{}
	c.want(200, "GET", at(first), nil, &m)
	if m.With != "" || m.Changed != 0 {
		t.Errorf("the first backup has nothing before it, but: %d bytes differ from %q", m.Changed, m.With)
	}
	m = api.DiskMap{}
	c.want(200, "GET", at(second)+"?with="+second, nil, &m)
	if m.With != second || m.Changed != 0 {
		t.Errorf("nothing differs from itself, but: %d bytes differ from %q", m.Changed, m.With)
	}
	c.want(404, "GET", at("20200101-000000"), nil, nil)
	c.want(404, "GET", at(second)+"?with=20200101-000000", nil, nil)
	c.want(404, "GET", "/api/v1/backups/10.0.0.1/"+second+"/disks/sdb/map", nil, nil)
	c.want(400, "GET", at(second)+"?cells=5000", nil, nil)
	r.with(r.token(ledger.Token{Role: ledger.Viewer, Group: "rack"})).want(200, "GET", at(second), nil, nil)

	var list api.BackupList
	c.want(200, "GET", "/api/v1/backups/10.0.0.1", nil, &list)
	if d := list.Backups[1].Disks[0]; d.Stored != 77 || d.Unused != mib {
		t.Errorf("the backup is listed as %+v", d)
	}
}

// TestDiskMapHostile draws disks whose layouts say what cannot be. A box writes them.
func TestDiskMapHostile(t *testing.T) {
	s := emptyStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups, cfg.Now = s, nil })
	r.box(ledger.Box{Address: addr(t, "10.0.0.1")})
	part := func(n int, off, len int64, more string) string {
		return fmt.Sprintf(`{"kind":"partition","number":%d,"off":%d,"len":%d%s}`, n, off, len, more)
	}
	var many, same []string
	for i := range 1000 {
		many = append(many, part(i, int64(i)*512, 512, `,"doubt":"why"`))
		same = append(same, part(i, 0, 1<<19, `,"doubt":"why"`))
	}
	for what, test := range map[string]struct {
		parts string
		left  int
	}{
		"far away":    {part(1, 1<<62, 1<<62, `,"doubt":"why"`), 0},
		"negative":    {part(1, -5, 1<<40, `,"doubt":"why"`) + "," + part(2, 0, -1, ""), 0},
		"many":        {strings.Join(many, ","), 256},
		"overlapping": {strings.Join(same, ","), 1},
		"volumes": {part(1, 0, 1<<19, `,"volumes":[{"kind":"volume","name":"a","off":0,"len":4096},{"kind":"volume","off":512,"len":4096},`+
			`{"kind":"volume","off":-1,"len":9,"ranges":[{"off":9223372036854775807,"len":9223372036854775807}]}]`), 1},
	} {
		disk := bytes.Repeat([]byte{1}, 1<<20)
		id := layDisk(t, s, "10.0.0.1", disk, `{"table":"gpt","parts":[`+test.parts+`]}`)
		var m api.DiskMap
		r.root().want(200, "GET", "/api/v1/backups/10.0.0.1/"+id+"/disks/sda/map?cells=7", nil, &m)
		if len(m.Parts) != test.left || !m.Cut || m.InDoubt > m.Size {
			t.Errorf("%s: %d parts, %d bytes in doubt, cut: %v", what, len(m.Parts), m.InDoubt, m.Cut)
		}
	}
}

// lost is a store that lacks its images.
type lost struct{ *store.Locked }

func (lost) OpenImage(context.Context, *image.Record, string) (*chunk.Image, error) {
	return nil, fmt.Errorf("the root is %w", chunk.ErrMissing)
}

func TestDiskMapOfLostImage(t *testing.T) {
	s, ids := newStore(t)
	r := newRigWith(t, func(cfg *api.Config) { cfg.Backups, cfg.Now = lost{s}, nil })
	var p api.Problem
	r.root().want(409, "GET", "/api/v1/backups/10.0.0.1/"+ids[1]+"/disks/sda/map", nil, &p)
	if !strings.Contains(p.Detail, "the store lacks some of it") {
		t.Errorf("the problem is %q", p.Detail)
	}
}
