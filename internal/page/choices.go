package page

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/bootcfg"
	"testbox-imaging/internal/box"
)

// choices are what somebody asks for besides an action that uses a backup. They are kept as they were typed, so that
// a page which refuses them shows them again.
type choices struct {
	Image  string // a backup, as Options of the API has it
	From   string // another box
	Map    string // IMAGE=DISK, with commas between
	Shrink bool
	Hooks  []string
}

// choicesOf reads the choices of a form or of a link.
func choicesOf(q url.Values) choices {
	c := choices{Image: strings.TrimSpace(q.Get("image")), From: strings.TrimSpace(q.Get("from")), Map: strings.TrimSpace(q.Get("map")),
		Shrink: q.Get("shrink") != ""}
	for _, word := range q["hook"] {
		if word != "" && !slices.Contains(c.Hooks, word) {
			c.Hooks = append(c.Hooks, word)
		}
	}
	return c
}

// values is what choicesOf reads.
func (c choices) values() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{"image": c.Image, "from": c.From, "map": c.Map} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if c.Shrink {
		q.Set("shrink", "1")
	}
	for _, h := range c.Hooks {
		q.Add("hook", h)
	}
	return q
}

// Shown stands for the choices with which a preview was made. What was chosen since then has not been shown.
func (c choices) Shown() string { return c.values().Encode() }

// Rare reports whether anything was chosen that most restores do without.
func (c choices) Rare() bool { return c.From+c.Map != "" || c.Shrink || len(c.Hooks) > 0 }

// mapped takes the map apart. People put blanks behind commas.
func (c choices) mapped() ([]string, error) {
	if c.Map == "" {
		return nil, nil
	}
	words := strings.Split(c.Map, ",")
	for i := range words {
		words[i] = strings.TrimSpace(words[i])
	}
	all, err := bootcfg.ParseMap(strings.Join(words, ","))
	if err != nil {
		return nil, refused(http.StatusBadRequest, "where images go: %v", err)
	}
	return all, nil
}

// options are the choices as the API takes them.
func (c choices) options() (api.Options, error) {
	o := api.Options{Image: c.Image, From: c.From, ShrinkTable: c.Shrink}
	for _, word := range c.Hooks {
		o.Hooks = append(o.Hooks, box.Hook(word))
	}
	if _, err := box.CheckHooks(o.Hooks); err != nil {
		return o, refused(http.StatusBadRequest, "%v", err)
	}
	var err error
	o.Map, err = c.mapped()
	return o, err
}

// hookChoice is a hook that can be chosen.
type hookChoice struct {
	Name, About string
	Chosen      bool
}

var hookAbout = map[box.Hook]string{
	box.HookHostname:  "The system is called as its box.",
	box.HookMachineID: "The system makes a machine-id of its own at its next start.",
	box.HookSSHKeys:   "Its ssh server gets new host keys.",
}

// choose adds the choices to the preview of an action that has some.
func (p *preview) choose(ctx context.Context, v *api.Visitor, c choices) {
	p.Choices = &c
	if p.Action.Job == box.Restore {
		for _, h := range box.Hooks {
			p.Hooks = append(p.Hooks, hookChoice{string(h), hookAbout[h], slices.Contains(c.Hooks, string(h))})
		}
	}
	if len(p.Boxes) == 1 { // whoever says where images go wants to know which disks there are
		var is api.InventoryChanges
		if err := v.Ask(ctx, "get-changes", of(p.Boxes[0].Box), nil, &is); err == nil {
			p.Disks, p.Alike = is.Disks, is.Alike
		}
	}
	mapped, err := c.mapped()
	if err != nil {
		return // the preview says so
	}
	for i := range p.Boxes {
		p.Boxes[i].goes(mapped)
	}
}

// goes notes where the map sends the images of a box's backup.
func (t *target) goes(mapped []string) {
	t.To = map[string]string{}
	for _, item := range mapped {
		image, disk, _ := strings.Cut(item, "=")
		t.To[image] = disk
		if t.Backup != nil && !slices.ContainsFunc(t.Backup.Disks, func(d api.BackupDisk) bool { return d.Name == image }) {
			t.Astray = append(t.Astray, image)
		}
	}
}

// Foreign reports whether the backup is that of another box.
func (t target) Foreign() bool { return t.Backup != nil && t.Backup.Box != t.Box }

// NewMachineID reports whether the restored system gets a machine-id of its own.
func (p *preview) NewMachineID() bool {
	return slices.Contains(p.Choices.Hooks, string(box.HookMachineID))
}

// wrong reports whether an error is about what was chosen, so that it can be mended.
func (c choices) wrong(err error) bool {
	var p *api.Problem
	return c.Shown() != "" && errors.As(err, &p) && p.Status < http.StatusInternalServerError &&
		p.Status != http.StatusUnauthorized && p.Status != http.StatusForbidden
}

// chosen is the path of the preview of what a form asks for. All that was typed is in it.
func (a *action) chosen(q url.Values) string {
	to := choicesOf(q).values()
	to["box"] = append(slices.Clone(q["box"]), q["left"]...)
	for _, name := range []string{"why", "up"} {
		if q.Get(name) != "" {
			to.Set(name, q.Get(name))
		}
	}
	return "/act/" + a.Name + "?" + to.Encode()
}
