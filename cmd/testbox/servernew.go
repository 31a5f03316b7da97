package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"testbox-imaging/internal/api"
	"testbox-imaging/internal/apiclient"
	"testbox-imaging/internal/words"
)

// listNew lists the machines that nobody knows.
func listNew(ctx context.Context, c *apiclient.Client, p printer, asJSON bool) error {
	var list api.MachineList
	if err := c.Do(ctx, "GET", apiclient.Path("machines"), nil, &list); err != nil {
		return err
	}
	if asJSON {
		return printJSON(p, list.Machines)
	}
	if len(list.Machines) == 0 {
		p.tellf("no machine that is not a box has asked this server for boot files")
		return nil
	}
	var rows []string
	for _, m := range list.Machines {
		last := ""
		if n := len(m.Asked); n > 0 {
			last = askText(m.Asked[n-1])
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", printable(m.MAC), printable(m.Address), printable(m.UUID),
			printable(m.Arch), shortTime(m.FirstSeen), shortTime(m.LastSeen), printable(last), printable(machineNote(m))))
	}
	table(p, "MAC\tADDRESS\tUUID\tARCH\tFIRST SEEN\tLAST SEEN\tASKED LAST\tNOTE", rows)
	return nil
}

// askText says what a machine asked for and was given.
func askText(a api.Ask) string {
	switch a.Given {
	case "":
		return fmt.Sprintf("%s: %s, got nothing", a.Over, a.Asked)
	case a.Asked:
		return fmt.Sprintf("%s: %s", a.Over, a.Asked)
	}
	return fmt.Sprintf("%s: %s, got %s", a.Over, a.Asked, a.Given)
}

func machineNote(m api.Machine) string {
	var all []string
	if m.Before != "" {
		all = append(all, "was at "+m.Before)
	}
	if m.Shares != "" {
		all = append(all, "shares its address with "+m.Shares)
	}
	return strings.Join(all, ", ")
}

// noteOf says in a few words what somebody should look at.
func noteOf(b api.Box) string {
	var all []string
	switch {
	case b.Lost:
		all = append(all, "LOST")
	case !b.SilentSince.IsZero():
		all = append(all, "SILENT")
	}
	if b.Moved != nil {
		all = append(all, "MOVED to "+b.Moved.Address)
	}
	if b.Shared != nil {
		all = append(all, strings.TrimSpace("SHARES "+b.Shared.MAC))
	}
	if f := b.Firmware; f != nil && f.Needs {
		all = append(all, "BOOT ORDER "+string(f.BootOrder))
	}
	return strings.Join(all, ", ")
}

// printBoxFirmware prints what the latest start of the maintenance system noted of a box's firmware.
func printBoxFirmware(line func(name, value string), b api.Box) {
	f := b.Firmware
	if f == nil {
		return
	}
	line("firmware", strings.TrimSuffix(f.Kind+", "+f.Version, ", ")+", as of "+shortTime(f.Time))
	line("Secure Boot", f.SecureBoot)
	if f.BootOrder == "" {
		return
	}
	text := string(f.BootOrder)
	if f.Why != "" {
		text += ". " + f.Why
	}
	if f.Needs {
		text = strings.Join([]string{text, f.BootOrder.Means(), f.BootOrder.Do(), "Then: testbox refresh-info " + b.Address}, " ")
	}
	line("boot order", text)
}

// printSight prints what was seen of a box at its start.
func printSight(line func(name, value string), b api.Box) {
	if b.UsualPause > 0 {
		line("usual pause", words.Duration(time.Duration(b.UsualPause)*time.Second)+" at most")
	}
	switch {
	case b.Lost:
		line("lost", "it was to start anew after its action, and has not asked for its boot files since, which was found "+
			shortTime(b.SilentSince)+"; is it on, and does its firmware try the network first?")
	case !b.SilentSince.IsZero():
		line("silent", "it was not seen for longer than is usual for it, which was found "+shortTime(b.SilentSince))
	}
	if m := b.Moved; m != nil {
		line("moved", fmt.Sprintf("its machine asks from %s since %s; if it is to stay there: testbox box readdress %s %s", m.Address,
			shortTime(m.Since), b.Address, m.Address))
	}
	if o := b.Shared; o != nil {
		who := "another machine"
		if o.MAC != "" {
			who = "the machine " + o.MAC
		}
		line("shared", fmt.Sprintf("%s asked from its address too, last %s", who, shortTime(o.Last)))
	}
	for _, m := range b.Machines {
		for _, a := range m.Asked {
			line("asked", shortTime(a.Time)+" "+askText(a))
		}
	}
}
