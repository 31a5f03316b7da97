package labpage

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/page/boxpage"
)

const (
	maxBoxes      = 20000 // boxes of a lab that a page looks through
	shownMachines = 100
)

// machinesData is what the page of the machines shows.
type machinesData struct {
	All      int
	Machines []machine
	Next     string
	Boxes    []api.Box // those whose machine asks from elsewhere, or that share their address
	More     int       // of them that are not shown
	May      struct{ Add, Readdress, Accept bool }
}

type machine struct{ api.Machine }

// Word finds the machine.
func (m machine) Word() string { return cmp.Or(m.MAC, m.UUID, m.Address) }

func (p *Pages) machines(r *http.Request, v Visitor) (any, error) {
	var found api.MachineList
	if err := v.Ask(r.Context(), "list-machines", nil, nil, &found); err != nil {
		return nil, err
	}
	d := &machinesData{All: len(found.Machines)}
	some, next := part(found.Machines, r.URL.Query(), shownMachines, "/machines")
	d.Next = next
	for _, m := range some {
		slices.Reverse(m.Asked) // the latest first
		d.Machines = append(d.Machines, machine{m})
	}
	d.May.Add, d.May.Readdress, d.May.Accept = v.May("add-box"), v.May("readdress-box"), v.May("accept-box")
	boxes, err := allBoxes(r.Context(), v)
	d.Boxes = slices.DeleteFunc(boxes, func(b api.Box) bool { return b.Moved == nil && b.Shared == nil })
	if len(d.Boxes) > shownMachines {
		d.Boxes, d.More = d.Boxes[:shownMachines], len(d.Boxes)-shownMachines
	}
	return d, err
}

var machineTasks = []*task{
	{Name: "add-box", Title: "Make a box of a machine", Button: "Add the box", Back: "/machines", route: "add-box", fill: fillAdd,
		send:  sendAdd,
		About: "The machine becomes a box, with the address and the names below. It gets no job by that."},
	{Name: "readdress", Title: "Give a box another address", Button: "Change the address", Danger: true, Back: "/machines",
		route: "readdress-box", fill: fillReaddress, send: sendReaddress,
		About: "The jobs, logs, settings and backups of the box go with it to the new address. It must have no job that has not ended."},
	{Name: "accept", Title: "Accept another machine as a box", Button: "Accept the machine", Danger: true, Back: "/machines",
		route: "accept-box",
		fill:  fillAccept, send: sendAccept,
		About: "The machine that says hello next from the address of the box is taken for it, also for restores."},
}

func fillAdd(ctx context.Context, v Visitor, f *form) error {
	var found api.MachineList
	if err := v.Ask(ctx, "list-machines", nil, nil, &found); err != nil {
		return err
	}
	i := slices.IndexFunc(found.Machines, func(m api.Machine) bool { return f.On != "" && machine{m}.Word() == f.On })
	if i < 0 {
		return refused(http.StatusNotFound, "no new machine %.80q has asked for boot files; it may be a box already", f.On)
	}
	m := found.Machines[i]
	f.say("MAC", m.MAC)
	f.say("UUID", m.UUID)
	f.say("Firmware", m.Arch)
	f.say("Seen last", m.LastSeen.UTC().Format("2006-01-02 15:04 UTC"))
	if m.Shares != "" {
		f.say("Shares its address with", m.Shares)
	}
	f.ask(field{Name: "address", Label: "Address", Value: m.Address, Required: true, Max: 15,
		Hint: "The IPv4 address with which it boots."})
	f.ask(field{Name: "name", Label: "Name", Max: 253})
	f.ask(field{Name: "groups", Label: "Groups", Hint: "Separated by commas. They must exist."})
	f.ask(field{Name: "labels", Label: "Labels", Hint: "Separated by commas."})
	return nil
}

func sendAdd(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	word := q.Get("on")
	if word == "" {
		return "", nil, refused(http.StatusBadRequest, "the form does not name a machine")
	}
	ask := api.NewBox{Machine: word, Address: strings.TrimSpace(q.Get("address")), Name: strings.TrimSpace(q.Get("name")),
		Groups: list(q.Get("groups")), Labels: list(q.Get("labels")), Why: q.Get("why")}
	var b api.Box
	if err := v.Ask(ctx, "add-box", nil, ask, &b); err != nil {
		return "", nil, err
	}
	return boxPath(b.Address), nil, nil
}

// boxOf reads the box that a form is about.
func boxOf(ctx context.Context, v Visitor, f *form) (b api.Box, err error) {
	if err := v.Ask(ctx, "get-box", boxpage.Params{"box": f.On}, nil, &b); err != nil {
		return b, err
	}
	f.say("Name", b.Name)
	f.say("Address", b.Address)
	f.say("Network cards", strings.Join(b.MACs, ", "))
	return b, nil
}

func fillReaddress(ctx context.Context, v Visitor, f *form) error {
	b, err := boxOf(ctx, v, f)
	if err != nil {
		return err
	}
	now := ""
	if b.Moved != nil {
		now = b.Moved.Address
		f.say("It asks from", now)
	}
	f.ask(field{Name: "address", Label: "New address", Value: now, Required: true, Max: 15})
	return nil
}

func sendReaddress(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	var b api.Box
	err := v.Ask(ctx, "readdress-box", boxpage.Params{"box": q.Get("on")},
		api.NewAddress{Address: strings.TrimSpace(q.Get("address")), Why: q.Get("why")}, &b)
	return boxPath(b.Address), nil, err
}

func fillAccept(ctx context.Context, v Visitor, f *form) error {
	b, err := boxOf(ctx, v, f)
	if err != nil {
		return err
	}
	mac := ""
	if b.Shared != nil {
		mac = b.Shared.MAC
		f.say("This machine asks too", mac)
	}
	f.ask(field{Name: "macs", Label: "Network cards of the new machine", Value: mac,
		Hint: "MAC addresses, separated by commas. They are wanted if this server gives the addresses by DHCP."})
	return nil
}

func sendAccept(ctx context.Context, v Visitor, q url.Values) (string, *done, error) {
	var b api.Box
	err := v.Ask(ctx, "accept-box", boxpage.Params{"box": q.Get("on")}, api.AcceptBox{MACs: list(q.Get("macs")), Why: q.Get("why")}, &b)
	return boxPath(b.Address), nil, err
}
