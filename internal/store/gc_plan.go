package store

import (
	"fmt"
	"strings"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/words"
)

// GCAction is what a collection does with a pack.
type GCAction int

// The actions.
const (
	GCKeep    GCAction = iota // stays as it is
	GCRemove                  // nothing in it is needed
	GCRewrite                 // its needed objects go to a new pack
)

func (a GCAction) String() string { return [...]string{"keep", "remove", "rewrite"}[a] }

// GCPack is a pack in a plan.
type GCPack struct {
	Name        string // of the blob
	Size        int64  // bytes
	Live        int64  // part of Size that is needed
	Objects     int
	LiveObjects int
	Action      GCAction
	Why         string // reason, if the bytes alone do not explain the action; else ""

	kind    packKind
	number  uint32
	damaged bool
}

// GCPlan is what a collection would do.
type GCPlan struct {
	Records  int      // number of backups
	Sessions int      // backups in progress; the objects that they rely on are kept
	Packs    []GCPack // trees first, then by number
	Missing  []string // images with missing chunks
	Beside   string   // another process that writes; "" if none does
	Fresh    int      // number of packs that it has written since it began; these are kept
	FreshLen int64    // bytes of these packs

	marks *marker
}

// Gain is how many bytes the collection would free.
func (p *GCPlan) Gain() (n int64) {
	for _, pk := range p.Packs {
		if pk.Action != GCKeep {
			n += pk.Size - pk.Live
		}
	}
	return n
}

// count returns how many packs have an action, and their bytes.
func (p *GCPlan) count(a GCAction) (packs int, size, live int64) {
	for _, pk := range p.Packs {
		if pk.Action == a {
			packs, size, live = packs+1, size+pk.Size, live+pk.Live
		}
	}
	return packs, size, live
}

// String describes the plan for people.
func (p *GCPlan) String() string {
	var b strings.Builder
	b.WriteString(words.Count(p.Records, "backup"))
	if p.Sessions > 0 {
		fmt.Fprintf(&b, " and %d in progress", p.Sessions)
	}
	fmt.Fprintf(&b, " in %s\n", words.Count(len(p.Packs), "pack"))
	for _, a := range []GCAction{GCKeep, GCRewrite, GCRemove} {
		n, size, live := p.count(a)
		fmt.Fprintf(&b, "%-8s %5d %s of %s, %s of it needed\n", a, n, words.Noun(n, "pack"), image.SizeText(size), image.SizeText(live))
	}
	fmt.Fprintf(&b, "frees    %s\n", image.SizeText(p.Gain()))
	if p.Beside != "" {
		fmt.Fprintf(&b, "another process writes to the store (%s); %s of %s that it has written since it began %s kept; "+
			"plan again when it has ended\n",
			p.Beside, words.Count(p.Fresh, "pack"), image.SizeText(p.FreshLen), words.Verb(p.Fresh, "is", "are"))
	}
	for _, pk := range p.Packs {
		if pk.Why != "" && (pk.Action == GCKeep || pk.damaged) {
			fmt.Fprintf(&b, "%s %s: %s\n", pk.Action, pk.Name, pk.Why)
		}
	}
	for i, image := range p.Missing {
		if i == maxTold {
			fmt.Fprintf(&b, "%s too\n", words.Count(len(p.Missing)-i, "other image"))
			break
		}
		fmt.Fprintf(&b, "%s lacks some of its chunks; `testbox store scrub` says where\n", image)
	}
	return b.String()
}

// maxTold is the number of images with missing chunks that String names.
const maxTold = 10
