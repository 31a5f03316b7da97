package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/bench/rig"
	"testbox-imaging/internal/box"
)

// pages measures what the pages of the server take, over HTTPS, of the processor time of the server's process.
type pages struct {
	*options
	site    *rig.Site
	token   string
	figures requests // tells figures
}

const (
	pageBar   = 100 * time.Millisecond
	pageTimes = 10
)

// newPages starts the server anew, with HTTPS and with schedules.
func newPages(ctx context.Context, o *options, site *rig.Site) (*pages, error) {
	p := &pages{options: o, site: site, figures: requests{options: o, site: site}}
	if err := site.Close(); err != nil {
		return nil, err
	}
	site.API = rig.ServerIP + ":9443"
	begin := time.Now().Add(6 * time.Hour).Hour() // no job is made while pages are measured
	for i := range 2 * groups {
		site.More += fmt.Sprintf("[schedules.s%d]\nwhen = \"%d */2 * * *\"\nboxes = [\"group:rack%d\"]\n", i, i, i%groups) +
			fmt.Sprintf("action = \"backup\"\nwindow = [\"%02d:00-%02d:00\"]\nspread = \"1h\"\n", begin, (begin+10)%24)
	}
	if err := site.Configure(""); err != nil {
		return nil, err
	}
	if err := site.Start(); err != nil {
		return nil, err
	}
	if err := p.settle(); err != nil {
		return nil, err
	}
	var err error
	p.token, err = p.newToken(ctx)
	return p, err
}

// settle waits until the server has done what a start brings, such as reading all records of the store.
func (p *pages) settle() error {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		before, _, err := p.site.Used()
		if err != nil {
			return err
		}
		time.Sleep(3 * time.Second)
		after, _, err := p.site.Used()
		if err != nil || after-before < 30*time.Millisecond {
			return err
		}
	}
	return errors.New("the server is still at work long after its start")
}

// newToken makes a token of an admin.
func (p *pages) newToken(ctx context.Context) (string, error) {
	var made api.Token
	q := api.NewToken{Name: "browser", Role: "admin"}
	err := p.site.Admin.Do(ctx, http.MethodPost, apiclient.Path("tokens"), q, &made)
	return made.Secret, err
}

func (p *pages) run(ctx context.Context) error {
	from, err := box.ParseAddr("10.88.200.1")
	if err != nil {
		return err
	}
	b, err := p.site.NewBrowser(ctx, p.token, from)
	if err != nil {
		return err
	}
	defer b.Close()
	most, any := addrOf(0).String(), addrOf(p.size.Boxes/2).String()
	var backups api.BackupList
	if err := p.site.Admin.Do(ctx, http.MethodGet, apiclient.Path("backups", most), nil, &backups); err != nil {
		return err
	}
	last := backups.Backups[len(backups.Backups)-1].ID
	many := "/act/backup?" + allRows(p.size.Boxes)
	for _, o := range []struct{ what, path, has string }{
		{"all boxes", "/", "box-0001"},
		{"boxes of a group", "/?group=rack1", "box-0001"},
		{"boxes, searched for a word", "/?q=box-0999", "box-0999"},
		{"100 rows of the list of boxes", "/rows?" + someRows(100), "box-0001"},
		{"queue", "/jobs", "schedule s1"},
		{"queue of a box", "/jobs?box=" + most, "schedule s0"},
		{"queue of a person", "/jobs?by=nightly", "nightly"},
		{"queue of somebody without jobs", "/jobs?by=somebody", ""},
		{"jobs that have ended", "/jobs?state=ended", "schedule s1"},
		{"a box", "/boxes/" + any, "box-0500"},
		{"a box with very many backups and jobs", "/boxes/" + most, "box-0000"},
		{"its part that is looked at again", "/boxes/" + most + "/now", "backup"},
		{"its disks", "/boxes/" + most + "/disks?backup=" + last, "svg"},
		{"its older backups", "/boxes/" + most + "?older=" + backups.Backups[len(backups.Backups)/2].ID, "box-0000"},
		{"machines", "/machines", ""},
		{"store", "/store", "svg"},
		{"calendar", "/calendar", "s19"},
		{"audit log", "/audit", "put box"},
		{"audit log of a person", "/audit?who=person-3", "person-3"},
		{"audit log of somebody who did nothing", "/audit?who=somebody", ""},
		{"audit log of a box", "/audit?on=" + any, any},
		{"access", "/access", "browser"},
		{"status", "/status", ""},
		{"what a backup of all boxes would do", many, "box-0001"},
	} {
		length, bar := 0, pageBar
		if o.path == many { // each box is looked at by itself, once before something is done to all of them
			bar = 0
		}
		err := p.figures.measure("page: "+o.what, bar, pageTimes, func() error {
			text, err := b.Get(ctx, o.path)
			if err == nil && !strings.Contains(text, o.has) {
				err = fmt.Errorf("the page lacks %q: %.2000s", o.has, text)
			}
			length = len(text)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Printf("  %.40s has %d KB\n", o.path, length>>10)
	}
	return nil
}

func allRows(n int) string { return rowsOf(n, 0) }

func someRows(n int) string { return rowsOf(n, 1) }

// rowsOf names boxes as a form does.
func rowsOf(n, from int) string {
	q := url.Values{}
	for i := range n {
		q.Add("box", addrOf(from+i).String())
	}
	return q.Encode()
}
