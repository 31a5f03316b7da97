package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/problem"
)

// BootTest is the result of the latest boot test of a backup.
type BootTest struct {
	Time     time.Time     `json:"time" doc:"when it ended"`
	Verdict  image.Verdict `json:"verdict" enum:"passed,unproven,failed" doc:"unproven: neither proof was seen in time"`
	Sign     image.Sign    `json:"sign" enum:"nothing,read,serial,screen,written,login,expected" doc:"the strongest sign of life; login and expected alone are a pass"`
	Text     string        `json:"text" maxLength:"1000" doc:"what was seen, for people"`
	Firmware string        `json:"firmware" enum:"bios,uefi"`
	Seconds  int           `json:"seconds" doc:"for how long the machine ran"`
	HasImage bool          `json:"hasPicture,omitempty" doc:"there is a picture of the last screen"`
}

// NewBootTest is the result of a boot test that was made elsewhere.
type NewBootTest struct {
	BootTest
	Picture []byte `json:"picture,omitempty" doc:"the last screen, a PNG of at most 32 KiB"`
}

func bootOf(b *image.BootTest) *BootTest {
	if b == nil {
		return nil
	}
	return &BootTest{b.Time, b.Verdict, b.Sign, clean(b.Text), b.Firmware, b.Seconds, len(b.Picture) > 0}
}

// BootTestEvent says that a boot test of a backup has ended.
type BootTestEvent struct {
	Box    string    `json:"box" doc:"whose backup it is: the address of a box, or another name that the store has"`
	Name   string    `json:"name,omitempty" doc:"name of the box"`
	Backup string    `json:"backup" doc:"id of the backup"`
	By     string    `json:"by,omitempty" doc:"who made the test; without it the server did"`
	Time   time.Time `json:"time"`
	Boot   *BootTest `json:"boot,omitempty" doc:"the result; without it there is none, and error says why"`
	Error  string    `json:"error,omitempty"`
}

// BootTesting says how far the server's own boot tests of backups are.
type BootTesting struct {
	Window  string         `json:"window" example:"20:00-06:00" doc:"when a test may begin; always is at any time"`
	Next    *time.Time     `json:"next,omitempty" doc:"when one may begin next; without it that is now"`
	Waiting int            `json:"waiting" doc:"latest backups of boxes that wait for their test"`
	Held    string         `json:"held,omitempty" doc:"why they wait although a test may begin, for people"`
	Testing *TestingBackup `json:"testing,omitempty" doc:"what is tested now"`
}

// TestingBackup is a backup that is started in a virtual machine now.
type TestingBackup struct {
	Box    string    `json:"box" doc:"address of the box"`
	Name   string    `json:"name,omitempty" doc:"name of the box"`
	Backup string    `json:"backup" doc:"id of the backup"`
	Begun  time.Time `json:"begun"`
}

// BootTestOf is the event of a test of a backup. by is who made it, and "" the server. If err is not nil, there was
// no result.
func BootTestOf(r *image.Record, name, by string, at time.Time, err error) BootTestEvent {
	e := BootTestEvent{Box: clean(r.Box), Name: name, Backup: r.ID, By: by, Time: at.UTC()}
	if err != nil {
		e.Error = clean(err.Error())
	} else {
		e.Boot = bootOf(r.Boot)
	}
	return e
}

// TellBootTest tells all who want to know of a boot test that has ended. It does not wait for them.
func (s *Server) TellBootTest(e BootTestEvent) {
	verdict := "none"
	if e.Boot != nil {
		verdict = string(e.Boot.Verdict)
	}
	s.metrics.booted.WithLabelValues(verdict).Inc()
	data, err := json.Marshal(e)
	if err != nil {
		s.cfg.Log.Error("an event of a boot test cannot be passed on", "error", err)
		return
	}
	addr, _ := box.ParseAddr(e.Box) // what is no box's is not told to who sees a group alone
	s.hub.push(change{event: "boot-test", box: addr, data: data})
	if s.cfg.BootTested != nil {
		s.cfg.BootTested(e)
	}
}

func (s *Server) setBoot(ctx context.Context, in *struct {
	BackupPath
	Body NewBootTest
}) (*body[Backup], error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	q := in.Body
	result := &image.BootTest{Time: q.Time.UTC().Truncate(time.Second), Verdict: q.Verdict, Sign: q.Sign, Text: q.Text, Firmware: q.Firmware,
		Seconds: q.Seconds, Picture: q.Picture}
	if err := result.Check(); err != nil {
		return nil, problem.Wrongf("%w", err)
	}
	if _, err := backups.Record(ctx, in.Owner, in.Backup); err != nil {
		return nil, err
	}
	if err := s.noteBackup(ctx, "set boot test", in.BackupPath, string(q.Verdict)); err != nil {
		return nil, err
	}
	if err := backups.SetBoot(ctx, in.Owner, in.Backup, result); err != nil {
		return nil, err
	}
	r, err := backups.Record(ctx, in.Owner, in.Backup)
	if err != nil {
		return nil, err
	}
	s.TellBootTest(BootTestOf(r, s.nameOf(ctx, r.Box), callerOf(ctx).name, s.cfg.Now(), nil))
	return shown(ctx, backups, r)
}

// nameOf is the name of the box that has an address, or "".
func (s *Server) nameOf(ctx context.Context, owner string) (name string) {
	if addr, err := box.ParseAddr(owner); err == nil {
		s.cfg.Ledger.View(ctx, func(tx *ledger.Tx) error {
			b, err := tx.Box(addr)
			name = b.Name
			return err
		})
	}
	return name
}

func (s *Server) getBootPicture(ctx context.Context, in *BackupPath) (*stream, error) {
	backups, err := s.backupsOf(ctx, in.Owner)
	if err != nil {
		return nil, err
	}
	r, err := backups.Record(ctx, in.Owner, in.Backup)
	if err != nil {
		return nil, err
	}
	if r.Boot == nil || len(r.Boot.Picture) == 0 {
		return nil, notFound("backup %s of %s has no picture of a boot test", r.ID, r.Box)
	}
	return &stream{func(hc huma.Context) {
		_, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Content-Length", strconv.Itoa(len(r.Boot.Picture)))
		w.WriteHeader(http.StatusOK)
		w.Write(r.Boot.Picture)
	}}, nil
}
