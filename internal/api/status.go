package api

import (
	"context"
	"time"

	"testbox-imaging/internal/version"
)

// The states of a part of a server.
const (
	PartOn       = "on"
	PartOff      = "off" // so it is configured
	PartStarting = "starting"
	PartFailed   = "failed"
)

// Part is a part of a server, such as its TFTP server.
type Part struct {
	Name    string   `json:"name" example:"TFTP"`
	State   string   `json:"state" enum:"on,off,starting,failed" doc:"off: so it is configured"`
	At      []string `json:"at,omitempty" example:"10.40.41.1:69" doc:"addresses or network cards at which it answers"`
	Text    string   `json:"text,omitempty" doc:"what it does, or who does it instead, for people"`
	Missing []string `json:"missing,omitempty" doc:"what keeps boxes from being served, and what to do; each is a sentence for people"`
	// Heard is nil if this is no DHCP server, or if it did not ask the others yet.
	Heard *HeardDHCP `json:"heard,omitempty" doc:"of the DHCP server: which other DHCP servers it heard; missing until it has asked"`
}

// HeardDHCP is what a server heard of other DHCP servers.
type HeardDHCP struct {
	Time   time.Time   `json:"time" doc:"when they were last asked"`
	Offers []DHCPOffer `json:"offers" doc:"what they offered; empty if none answered"`
	Faults []DHCPFault `json:"faults,omitempty" doc:"what is wrong with that"`
	Chosen string      `json:"chosen,omitempty" doc:"address of another server whose offer a machine took lately"`
}

// DHCPOffer is what another DHCP server offered to a question of ours.
type DHCPOffer struct {
	Card       string `json:"card" doc:"our network card at which it was heard"`
	As         string `json:"as" doc:"what we asked as: machine, BIOS or UEFI"`
	Server     string `json:"server" doc:"its address"`
	Address    string `json:"address,omitempty" doc:"address that it offered; a ProxyDHCP server offers none"`
	NextServer string `json:"nextServer,omitempty" doc:"where it sends machines for their boot file"`
	File       string `json:"file,omitempty" doc:"boot file that it names"`
	Class      string `json:"class,omitempty" doc:"its option 60"`
}

// DHCPFault is something wrong with what other DHCP servers offered.
type DHCPFault struct {
	Check string `json:"check" example:"option-43" doc:"a word for what it is, as in docs/troubleshooting.md"`
	Sure  bool   `json:"sure" doc:"boxes do not start by it; else they may not"`
	Text  string `json:"text" doc:"what was seen; the field missing of the part has it too, as a sentence, unless this is no-dhcp"`
	Do    string `json:"do" doc:"what to do"`
}

// ServerStatus says which part of a server does what.
type ServerStatus struct {
	Version string    `json:"version" doc:"the server's"`
	Started time.Time `json:"started"`
	Boxes   int       `json:"boxes" doc:"how many boxes it knows"`
	Parts   []Part    `json:"parts"`
}

func (s *Server) getStatus(context.Context, *struct{}) (*body[ServerStatus], error) {
	st := ServerStatus{Parts: []Part{}}
	if s.cfg.Status != nil {
		st = s.cfg.Status()
	}
	for _, p := range st.Parts {
		if p.Heard == nil {
			continue
		}
		for i := range p.Heard.Offers { // other machines have said this
			o := &p.Heard.Offers[i]
			o.File, o.Class = clean(o.File), clean(o.Class)
		}
	}
	st.Version = version.String()
	return answer(st, nil)
}
