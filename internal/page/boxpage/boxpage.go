// Package boxpage makes the pages of one box and of one job. It asks the admin API for
// everything, as whoever opened the page, so that it shows and does what the role allows
// and no more. What a box can say is text here, whatever it says: html/template
// escapes it, and the script puts it into the page as text alone.
package boxpage

import (
	"context"
	"embed"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/image"
	"testbox-imaging/internal/ledger"
	"testbox-imaging/internal/words"
)

// API makes requests of the admin API for one visitor. It is an *api.Visitor.
type API interface {
	// Ask makes the request of a route, which is named as in package api ("get-box").
	// params are what stands in its path and query. body and answer are pointers to the
	// types of the route, or nil. An error of the API matches *api.Problem.
	Ask(ctx context.Context, route string, params Params, body, answer any) error
}

// Params are the parameters of a request.
type Params = api.Params

// Page is the inside of a page.
type Page struct {
	Title string
	Body  template.HTML
}

// Pages makes pages.
type Pages struct {
	Now func() time.Time // nil means time.Now

	once      sync.Once // reads the templates
	templates Templates
}

//go:embed *.tmpl
var files embed.FS

// Style and Script belong to the pages of this package. Both are files of the site.
var (
	//go:embed boxpage.css
	Style []byte
	//go:embed boxpage.js
	Script []byte
)

// functions are what templates of all pages may call.
func functions(now func() time.Time) template.FuncMap {
	if now == nil {
		now = time.Now
	}
	return template.FuncMap{
		"size":  image.SizeText,
		"count": words.Count[int],
		"time": func(t time.Time) template.HTML {
			if t.IsZero() {
				return "unknown"
			}
			return timeText(t, ago(now().Sub(t)))
		},
		"since": func(t time.Time) template.HTML {
			if t.IsZero() {
				return "for an unknown time"
			}
			return timeText(t, lasting(now().Sub(t)))
		},
		"date":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04") },
		"sources":  image.SourcesText,
		"took":     func(d time.Duration) string { return d.Round(100 * time.Millisecond).String() },
		"rate":     rateText,
		"short":    func(s string) string { return s[:min(len(s), 12)] },
		"join":     func(list []string) string { return strings.Join(list, ", ") },
		"percent":  Percent,
		"held":     HeldText,
		"upper":    upper,
		"path":     url.PathEscape,
		"query":    url.QueryEscape,
		"seconds":  func(n int64) string { return Span(time.Duration(n) * time.Second) },
		"sum":      func(list ...int64) (n int64) { return total(list) },
		"boxtitle": boxName,
		"class":    classOf.Replace,
		"deadline": func(t time.Time) string { return in(t.Sub(now())) },
	}
}

var classOf = strings.NewReplacer(" ", "-", ",", "")

func total(list []int64) (n int64) {
	for _, v := range list {
		n += v
	}
	return n
}

// upper makes the first letter of a text a capital one.
func upper(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	if r == utf8.RuneError {
		return s
	}
	return string(unicode.ToUpper(r)) + s[n:]
}

// timeText is a time as text, with the time itself for those who want to know it.
func timeText(t time.Time, text string) template.HTML {
	t = t.UTC()
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, t.Format(time.RFC3339),
		t.Format("2006-01-02 15:04:05 UTC"), text))
}

// ago says how long ago something was, in words.
func ago(d time.Duration) string {
	switch {
	case d < -time.Minute:
		return in(-d)
	case d < time.Minute:
		return "just now"
	}
	return Span(d) + " ago"
}

// lasting says for how long something has been so.
func lasting(d time.Duration) string {
	if d < time.Minute {
		return "since a moment ago"
	}
	return "for " + Span(d)
}

func in(d time.Duration) string {
	if d < time.Minute {
		return "in less than a minute"
	}
	return "in " + Span(d)
}

func rateText(v float64) string {
	if !(v > 0) {
		return ""
	}
	return fmt.Sprintf("%.0f MB/s", v/1e6)
}

// Percent writes a share. It is rounded down, so that only the whole is 100 %.
func Percent(part, all int64) string {
	if all <= 0 || part <= 0 {
		return "0 %"
	}
	p := float64(part) / float64(all) * 100
	if p < 1 {
		return "under 1 %"
	}
	return fmt.Sprintf("%d %%", int(min(p, 100)))
}

// HeldText says what a held box is, and what can be done about it. why is what its job says.
func HeldText(why string) string {
	return strings.TrimSpace("It is held in maintenance, since its disks are not fit to run. " +
		"Restore it, or release it to let it run all the same. " + why)
}

func (p *Pages) render(name, title string, data any) (Page, error) {
	p.once.Do(func() { p.templates = ReadTemplates(files, "*.tmpl", p.Now) })
	body, err := p.templates.Render(name, data)
	return Page{Plain(title), body}, err
}

// visitor is what a template may offer.
type visitor struct {
	Name     string
	Operator bool
	Admin    bool
}

func whoIs(ctx context.Context, a API) (v visitor, err error) {
	var me api.Me
	err = a.Ask(ctx, "get-me", nil, nil, &me)
	v.Name = me.Name
	v.Operator = me.Role == ledger.Operator || me.Role == ledger.Admin
	v.Admin = me.Role == ledger.Admin
	return v, err
}

// why is what is said in place of a part of a page that cannot be shown. A part that is
// not there spoils no other part.
func why(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
