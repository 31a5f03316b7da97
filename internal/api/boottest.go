package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"testbox-imaging/internal/image"
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
	return shown(ctx, backups, r)
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
