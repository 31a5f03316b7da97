package sharedir

import (
	"testbox-imaging/internal/box"
	"testbox-imaging/internal/durable"
	"testbox-imaging/internal/efi"
)

// Note reads what the latest start of the box noted of its firmware. The error is fs.ErrNotExist if there is no
// note. One that is another box's, by a link, is an error, since it would be shown as this box's.
func (f *Folder) Note() (*efi.Note, error) {
	if err := f.Own(); err != nil {
		return nil, err
	}
	data, err := durable.ReadFile(here{f.fsys}, f.Path(box.FirmwareFile), efi.MaxNote)
	if err != nil {
		return nil, err
	}
	return efi.ParseNote(data)
}

// here opens no file by a link, on file systems that have some.
type here struct{ durable.FS }

func (h here) Open(path string) (durable.Readable, error) {
	if fsys, ok := h.FS.(interface {
		OpenHere(string) (durable.Readable, error)
	}); ok {
		return fsys.OpenHere(path)
	}
	return h.FS.Open(path)
}
