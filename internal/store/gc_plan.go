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
	GCKeep    GCAction = iota // as it is
	GCRemove                  // nothing in it is needed
	GCRewrite                 // what is needed in it goes to a new pack
)

func (a GCAction) String() string { return [...]string{"keep", "remove", "rewrite"}[a] }

// GCPack is a pack in a plan.
type GCPack struct {
	Name        string // of the blob
	Size        int64  // bytes
	Live        int64  // bytes of Size that are needed
	Objects     int
	LiveObjects int
	Action      GCAction
	Why         string // of a pack that is kept or rewritten otherwise than its bytes say; "" else

	kind    packKind
	number  uint32
	damaged bool
}

// GCPlan is what a collection would do.
type GCPlan struct {
	Records  int      // backups there are
	Sessions int      // backups in progress; what they count on is kept
	Packs    []GCPack // trees first, then by number
	Missing  []string // images that need chunks which are not there
	Beside   string   // another process that writes; "" is none
	Fresh    int      // packs that it has written since it began, which are kept
	FreshLen int64    // bytes of them

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

// count gives how many packs have an action, and their bytes.
func (p *GCPlan) count(a GCAction) (packs int, size, live int64) {
	for _, pk := range p.Packs {
		if pk.Action == a {
			packs, size, live = packs+1, size+pk.Size, live+pk.Live
		}
	}
	return packs, size, live
}

// String is the plan for people.
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

// maxTold is how many images that lack something are told.
const maxTold = 10
