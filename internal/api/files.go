package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/sharedir"
	"testbox-imaging/internal/wire"
)

// folder is the folder of a box that the caller may see.
func (s *Server) folder(ctx context.Context, word string) (*sharedir.Folder, box.Addr, error) {
	var b ledger.Box
	err := s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) (err error) {
		b, err = findBox(tx, callerOf(ctx), word)
		return err
	})
	if err != nil {
		return nil, b.Address, err
	}
	if s.cfg.Area == nil {
		return nil, b.Address, notFound("this server keeps no files of boxes")
	}
	folder := s.cfg.Area.Look(b.Address)
	return folder, b.Address, folder.Own()
}

// open opens a regular file of a box's folder.
func open(path string) (*os.File, fs.FileInfo, error) {
	f, err := sharedir.OpenHere(path)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = errors.New("it is not a regular file")
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, st, nil
}

// LogOffset is the header that says at which byte of the log the answer begins.
const LogOffset = "Testbox-Log-Offset"

func (s *Server) getLog(ctx context.Context, in *struct {
	BoxPath
	Offset int64 `query:"offset" doc:"the first byte that is wanted; if it is negative, so many bytes from the end"`
	Follow bool  `query:"follow" doc:"go on with what comes later"`
}) (*stream, error) {
	folder, addr, err := s.folder(ctx, in.Box)
	if err != nil {
		return nil, err
	}
	t := &tail{s: s, path: folder.Path(box.LogFile), at: in.Offset, leave: func() {}}
	if in.Follow {
		if t.leave, err = s.stream(ctx); err != nil {
			return nil, err
		}
	}
	file, st, err := open(t.path)
	switch {
	case err == nil:
		t.file, t.end = file, st.Size()
	case !errors.Is(err, fs.ErrNotExist):
		t.close()
		return nil, err
	case !in.Follow:
		t.close()
		return nil, notFound("the box %s has no log yet", addr)
	}
	if t.at < 0 {
		t.at = max(0, t.end+t.at)
	}
	if t.at > t.end {
		t.at = 0 // the log was cut or replaced since
	}
	c := callerOf(ctx)
	return &stream{func(hc huma.Context) {
		defer t.close()
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set(LogOffset, strconv.FormatInt(t.at, 10))
		w.WriteHeader(http.StatusOK)
		t.w, t.ctl = w, http.NewResponseController(w)
		err := t.copy()
		for err == nil && in.Follow {
			err = t.wait(ctx, c)
		}
		if err != nil && err != errEnd {
			panic(http.ErrAbortHandler) // the client must see that the answer is not whole
		}
	}}, nil
}

// tail sends a log as it grows.
type tail struct {
	s      *Server
	leave  func()
	path   string
	file   *os.File // nil if there is none
	at     int64    // what was sent
	end    int64    // what is there
	looked time.Time

	w   io.Writer
	ctl *http.ResponseController
}

// errEnd ends an answer that lasts, without an error.
var errEnd = errors.New("the end")

func (t *tail) close() {
	t.leave()
	if t.file != nil {
		t.file.Close()
	}
}

// copy sends what is there and was not sent.
func (t *tail) copy() error {
	for t.file != nil && t.at < t.end {
		t.ctl.SetWriteDeadline(time.Now().Add(t.s.cfg.Patience))
		n, err := io.Copy(t.w, io.NewSectionReader(t.file, t.at, min(t.end-t.at, 1<<20)))
		t.at += n
		if err != nil {
			return err
		}
		if n == 0 { // it was cut meanwhile
			return nil
		}
	}
	t.ctl.SetWriteDeadline(time.Now().Add(t.s.cfg.Patience))
	return t.ctl.Flush()
}

// wait waits for more of the log, and sends it.
func (t *tail) wait(ctx context.Context, c *caller) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.s.hub.done:
		return errEnd
	case <-time.After(t.s.cfg.Poll):
	}
	if now := time.Now(); now.Sub(t.looked) >= t.s.cfg.Heartbeat {
		if t.looked = now; !t.s.still(ctx, c) {
			return errNotStill
		}
	}
	file, st, err := open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	old := t.file
	if old != nil {
		defer old.Close()
		if was, err := old.Stat(); err == nil && !os.SameFile(was, st) {
			t.end = max(t.at, was.Size())
			if err := t.copy(); err != nil { // the rest of a log that was rotated away
				file.Close()
				t.file = nil
				return err
			}
			t.at = 0
		}
	}
	if t.file, t.end = file, st.Size(); t.end < t.at {
		t.at = 0 // the log was cut
	}
	if t.at == t.end {
		return nil
	}
	return t.copy()
}

var errNotStill = errors.New("the token has ended")

// forms are the three forms of the inventory.
var forms = map[string]struct{ file, kind string }{
	"json": {box.InfoJSON, "application/json"},
	"text": {box.InfoText, "text/plain; charset=utf-8"},
	"zip":  {box.InfoZip, "application/zip"},
}

func (s *Server) getInventory(ctx context.Context, in *struct {
	BoxPath
	Form string `query:"form" enum:"json,text,zip" default:"json" doc:"text is for people, and zip has the raw sources too"`
}) (*stream, error) {
	folder, addr, err := s.folder(ctx, in.Box)
	if err != nil {
		return nil, err
	}
	form := forms[in.Form]
	f, st, err := open(folder.Path(form.file))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound("the box %s has no inventory yet; each action takes one, and `testbox refresh-info %s` takes only that", addr, addr)
	case err != nil:
		return nil, err
	case st.Size() > wire.MaxInventory:
		f.Close()
		return nil, errors.New("the inventory is larger than an agent can send")
	}
	return &stream{func(hc huma.Context) {
		defer f.Close()
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", form.kind)
		w.Header().Set("Content-Length", strconv.FormatInt(st.Size(), 10))
		w.Header().Set("Content-Disposition", `attachment; filename="`+form.file+`"`)
		w.WriteHeader(http.StatusOK)
		io.Copy(w, io.LimitReader(f, st.Size()))
	}}, nil
}
