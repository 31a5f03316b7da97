package ntfs

import (
	"bytes"
	"testing"
)

// restart is a restart page as Windows writes it.
type restart struct {
	magic        string
	major, minor uint16
	inUse, flags uint16
	torn         bool
	size         int
}

func (p restart) page() []byte {
	size := max(p.size, 4096)
	b := make([]byte, size)
	copy(b, p.magic)
	if p.magic == "" {
		copy(b, "RSTR")
	}
	le.PutUint16(b[4:], 0x1e)
	le.PutUint16(b[6:], uint16(size/stride+1))
	le.PutUint32(b[0x10:], uint32(size))
	le.PutUint32(b[0x14:], uint32(size))
	at := (0x1e + 2*(size/stride+1) + 7) / 8 * 8
	le.PutUint16(b[0x18:], uint16(at))
	le.PutUint16(b[0x1a:], p.minor)
	le.PutUint16(b[0x1c:], p.major)
	le.PutUint16(b[0x1e:], 7) // the update sequence number
	a := b[at:]
	le.PutUint64(a, 0x200123)                  // current_lsn
	le.PutUint16(a[8:], 1)                     // log_clients
	le.PutUint16(a[0x0a:], ^p.inUse&0x8000>>1) // client_free_list
	le.PutUint16(a[0x0c:], p.inUse)
	le.PutUint16(a[0x0e:], p.flags)
	le.PutUint32(a[0x10:], 67-22)
	le.PutUint16(a[0x14:], 0x40+clientRecord)
	le.PutUint16(a[0x16:], 0x40)
	le.PutUint64(a[0x18:], 2<<20)
	le.PutUint16(a[0x24:], 0x30)
	le.PutUint16(a[0x26:], 0x40)
	copy(a[0x40+0x20:], "N\x00T\x00F\x00S\x00")
	fix(b)
	if p.torn {
		b[size-1]++
	}
	return b
}

// log puts restart pages, and records behind them, into $LogFile.
func log(pages ...restart) func(*img) {
	return func(i *img) {
		var b []byte
		for _, p := range pages {
			b = append(b, p.page()...)
		}
		rcrd := make([]byte, 4096)
		copy(rcrd, "RCRD\x28\x00\x09\x00")
		for range 8 {
			b = append(b, rcrd...)
		}
		i.editLog(0, b)
	}
}

func (i *img) editLog(off int64, b []byte) {
	i.Helper()
	f := i.open()
	s, err := f.stream(fileLogFile, typeData, "")
	if err != nil {
		i.Fatal(err)
	}
	copy(i.b[f.place(s, off):], b)
}

func TestLog(t *testing.T) {
	win2000 := restart{major: 1, minor: 1, inUse: noClient}
	winXP := restart{major: 1, minor: 1, flags: 2}
	win10 := restart{major: 2, minor: 0, flags: 3} // with NtfsDisableLfsDowngrade
	open1 := restart{major: 1, minor: 1, flags: 0}
	open2 := restart{major: 2, minor: 0, flags: 1}
	with := func(p restart, do func(*restart)) restart { do(&p); return p }
	raw := func(off int64, b []byte) func(*img) {
		return func(i *img) {
			log(winXP, winXP)(i)
			i.editLog(off, b)
		}
	}
	changes := []change{
		{"left by Windows 2000", log(win2000, win2000), ""},
		{"left by Windows XP", log(winXP, winXP), ""},
		{"left by Windows 10", log(win10, win10), ""},
		{"pages of 64 KiB", log(with(winXP, func(p *restart) { p.size = 64 << 10 }), with(winXP, func(p *restart) { p.size = 64 << 10 })), ""},
		{"open", log(open1, open1), "log is open"},
		{"open, of Windows 10", log(open2, open2), "log is open"},
		{"first open", log(open1, winXP), "log is open"},
		{"second open", log(winXP, open1), "log is open"},
		{"second missing", log(winXP), "no restart page"},
		{"torn", log(winXP, with(winXP, func(p *restart) { p.torn = true })), "as a whole"},
		{"version 1.0", log(with(winXP, func(p *restart) { p.minor = 0 }), winXP), "unknown version 1.0"},
		{"version 2.1", log(with(winXP, func(p *restart) { p.major = 2 }), winXP), "unknown version 2.1"},
		{"chkdsk", log(with(winXP, func(p *restart) { p.magic = "CHKD" }), winXP), "chkdsk"},
		{"chkdsk, second", log(winXP, with(winXP, func(p *restart) { p.magic = "CHKD" })), "chkdsk"},
		{"another client", log(with(winXP, func(p *restart) { p.inUse = 1 }), winXP), "first in use is 1"},
		{"pages of 0 bytes", raw(0x10, make([]byte, 4)), "pages have 0"},
		{"pages of 1 GiB", raw(0x10, []byte{0, 0, 0, 64}), "pages have"},
		{"pages of other sizes", raw(4096+0x10, []byte{0, 32}), "pages have 8192"},
		{"area outside", raw(0x18, []byte{0xf8, 0x0f}), "restart area is at"},
		{"area in the header", raw(0x18, []byte{8, 0}), "restart area is at"},
		{"records outside", raw(0x30+0x16, []byte{0xc0, 0x0f}), "restart area has"},
		{"too many clients", raw(0x30+8, []byte{200}), "restart area has 200"},
		{"zeros", func(i *img) { i.editLog(0, make([]byte, 2<<20)) }, "no restart page"},
		{"not empty to its end", func(i *img) { i.editLog(200_000, []byte{1}) }, "goes on with something else"},
		{"start lost", func(i *img) {
			log(winXP, winXP)(i)
			i.editLog(0, bytes.Repeat([]byte{255}, 8192))
		}, "goes on with something else"},
		{"not written", func(i *img) {
			i.editAttr(fileLogFile, typeData, "", func(a []byte) { le.PutUint64(a[0x38:], 4096) })
		}, "4096 of them written"},
		{"compressed", func(i *img) {
			i.editAttr(fileLogFile, typeData, "", func(a []byte) { a[0x0c] = 1 })
		}, "holes"},
	}
	for _, seed := range seeds {
		try(t, seed, changes)
	}
}

func TestHibernation(t *testing.T) {
	begin := func(s string) func(*img) {
		return func(i *img) {
			f, _, s1 := i.hiberfil()
			copy(i.b[f.place(s1, 0):], s)
		}
	}
	for _, seed := range seeds {
		try(t, seed, []change{
			{"awake, Windows 7 and later", begin("\x00\x00\x00\x00"), ""},
			{"awake, before", begin("wake"), ""},
			{"hibernated", begin("hibr"), "that hibernates"},
			{"hibernated, Windows 8 and later", begin("HIBR"), "that hibernates"},
			{"wakening", begin("RSTR"), "not known"},
			{"elsewhere", begin("link"), "not known"},
			{"something late in the page", func(i *img) {
				f, _, s := i.hiberfil()
				i.b[f.place(s, 4095)] = 1
			}, "not known"},
			{"another page", func(i *img) {
				f, _, s := i.hiberfil()
				copy(i.b[f.place(s, 4096):], "hibr")
			}, ""},
			{"short", func(i *img) {
				_, no, _ := i.hiberfil()
				i.editAttr(no, typeData, "", func(a []byte) {
					le.PutUint64(a[0x30:], 4095)
					le.PutUint64(a[0x38:], 4095)
				})
			}, "shorter than a page"},
			{"never written", func(i *img) { // its bytes are zeros, whatever is there
				begin("hibr")(i)
				_, no, _ := i.hiberfil()
				i.editAttr(no, typeData, "", func(a []byte) { le.PutUint64(a[0x38:], 0) })
			}, ""},
			{"compressed", func(i *img) {
				_, no, _ := i.hiberfil()
				i.editAttr(no, typeData, "", func(a []byte) { a[0x0c] = 1 })
			}, "compressed"},
			{"no data", func(i *img) {
				_, no, _ := i.hiberfil()
				i.editAttr(no, typeData, "", func(a []byte) { a[1] = 1 })
			}, "missing"},
			{"of another time", func(i *img) {
				_, no, _ := i.hiberfil()
				i.edit(no, func(r record) { r[0x10]++ })
			}, "another file"},
			{"deleted", func(i *img) {
				_, no, _ := i.hiberfil()
				i.edit(no, func(r record) { r[0x16] = 0 })
			}, "not in use"},
		})
	}
}

// TestHibernationIsTold: the other file systems of the disk learn of it.
func TestHibernationIsTold(t *testing.T) {
	for sign, sleeps := range map[string]bool{"hibr": true, "HIBR": true, "RSTR": true, "wake": false, "\x00\x00\x00\x00": false} {
		i := load(t, "plain")
		f, _, s := i.hiberfil()
		copy(i.b[f.place(s, 0):], sign)
		if found, err := i.read(); found.Suspended != sleeps || (err != nil) != sleeps {
			t.Errorf("%q: %v, %v", sign, found.Suspended, err)
		}
	}
}

// hiberfil finds the file. It stands in the middle of an index of several
// blocks, spelled HiberFil.sys.
func (i *img) hiberfil() (*fileSystem, int64, *stream) {
	i.Helper()
	f := i.open()
	refs, err := f.lookup(fileRoot, "hiberfil.sys")
	if err != nil || len(refs) != 1 {
		i.Fatalf("%d entries: %v", len(refs), err)
	}
	s, err := f.stream(number(refs[0]), typeData, "")
	if err != nil {
		i.Fatal(err)
	}
	return f, number(refs[0]), s
}
