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
	st.Version = version.String()
	return answer(st, nil)
}
