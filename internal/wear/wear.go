// Package wear tells from the figures of a box's actions whether one of its disks
// wears out. A disk that fails soon often reads slower first, because it tries again
// and again, and it counts errors. Both show before anything is lost.
package wear

import (
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
)

// These say when a disk reads much slower than it used to. Each is chosen so that a
// healthy disk does not seem to be worn out. A disk reads at half of its speed where
// its tracks are short, and one slow action can have many other causes.
const (
	leastBytes = 256 << 20       // that an action has read; less is not measured
	leastTime  = 2 * time.Second // in which it read them
	slowRuns   = 3               // so many actions in a row are slow
	leastRuns  = 5               // so many actions before them
	mostRuns   = 20              // the latest of them count
	slowFactor = 2.0             // so much faster they were, at least
)

// Speed is how fast an action read a disk.
type Speed struct {
	Disk  string  // what the disk is known by, as Key gives it
	Name  string  // the disk's kernel name at that time
	Stage string  // of the receipt
	Rate  float64 // bytes in a second, while the disk was being read
}

// Key is what a disk is known by in later actions. It is "" for a disk that tells
// neither a WWN nor a serial number.
func Key(d image.Identity) string {
	key := ""
	switch {
	case d.WWN != "":
		key = "WWN " + d.WWN
	case d.Serial != "":
		if key = "serial number " + d.Serial; d.NamespaceID != 0 {
			key += fmt.Sprintf(", namespace %d", d.NamespaceID)
		}
	}
	return strings.ToValidUTF8(key[:min(len(key), maxKey)], "")
}

// maxKey is how many bytes a key has at most. Real ones have less than 60.
const maxKey = 120

// maxSpeeds is how many speeds of one action count.
const maxSpeeds = 50

// Speeds takes the speeds from the receipts of an action, 50 at most. It leaves out
// what is too little to tell anything.
func Speeds(receipts []image.Receipt) []Speed {
	var all []Speed
	for i := range receipts {
		r := &receipts[i]
		key := Key(r.Identity)
		for _, st := range r.Stages {
			if len(all) == maxSpeeds {
				return all
			}
			if key != "" && st.Bytes >= leastBytes && st.Active >= leastTime && st.ReadRate() > 0 {
				all = append(all, Speed{Disk: key, Name: r.Disk, Stage: st.Name, Rate: st.ReadRate()})
			}
		}
	}
	return all
}

// Slow says of the disk of a speed that it reads much slower than it used to, and
// returns "" if it does not. past are the speeds of earlier actions of the box, the
// latest first. Speeds of other disks and other stages do not count.
func Slow(now Speed, past []Speed) string {
	rates := []float64{now.Rate}
	for _, s := range past {
		if s.Disk == now.Disk && s.Stage == now.Stage {
			rates = append(rates, s.Rate)
		}
	}
	if len(rates) < slowRuns+leastRuns {
		return ""
	}
	usual := median(rates[slowRuns:min(len(rates), slowRuns+mostRuns)])
	if slices.Max(rates[:slowRuns])*slowFactor > usual {
		return ""
	}
	return fmt.Sprintf("the disk %s (%s) reads %.0f MB/s, and it used to read %.0f MB/s", now.Name, now.Disk, now.Rate/1e6, usual/1e6)
}

// median does not change the list.
func median(list []float64) float64 {
	s := slices.Sorted(slices.Values(list))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// counters are the numbers of the SMART attributes that count what a healthy disk does
// not do: sectors that were replaced, cannot be read or wait for that, errors inside of
// the disk, and a motor that had to be started again. Cable errors (199) are left out,
// because they are not the disk's, and so is what makers count in their own ways.
var counters = []int{5, 10, 184, 187, 196, 197, 198}

// nvmeCounter is the name of the only such counter of NVMe.
const nvmeCounter = "media errors"

// Counts reports whether an attribute of a disk's health counts errors of the disk.
func Counts(a inventory.Attribute) bool {
	return slices.Contains(counters, a.ID) || a.ID == 0 && a.Name == nvmeCounter
}

// Grown says which disks have counted more errors since an earlier inventory was taken,
// or have begun to say that they are failing.
func Grown(past, now []inventory.Disk) []string {
	before := map[string]inventory.Disk{}
	several := func(disks []inventory.Disk, key string) bool { // as bridges do that all have one serial number
		n := 0
		for _, d := range disks {
			if Key(d.Identity) == key {
				n++
			}
		}
		return n > 1
	}
	for _, d := range past {
		if key := Key(d.Identity); key != "" && !several(past, key) && !several(now, key) {
			before[key] = d
		}
	}
	var all []string
	for _, d := range now {
		was, known := before[Key(d.Identity)]
		name := fmt.Sprintf("the disk %s (%s)", d.Name, Key(d.Identity))
		if Key(d.Identity) == "" {
			name = "the disk " + d.Name
		}
		if d.Health.Failing() && !was.Health.Failing() {
			all = append(all, fmt.Sprintf("%s says that it is failing: %s", name, d.Health.Note))
		}
		if !known {
			continue
		}
		for _, a := range d.Health.Attributes {
			if more := grown(was.Health.Attributes, a); more != "" {
				all = append(all, fmt.Sprintf("%s has counted more %s: %s", name, a.Name, more))
			}
		}
	}
	return all
}

// grown says how a counter has grown, or "".
func grown(before []inventory.Attribute, a inventory.Attribute) string {
	if !Counts(a) {
		return ""
	}
	same := func(b inventory.Attribute) bool { return b.ID == a.ID && b.Name == a.Name }
	i := slices.IndexFunc(before, same)
	if i < 0 {
		return ""
	}
	was, okWas := number(before[i].Raw)
	is, okIs := number(a.Raw)
	if !okWas || !okIs || is.Cmp(was) <= 0 {
		return ""
	}
	return fmt.Sprintf("%s, and %s before", is, was)
}

// number reads a counter of up to 128 bits.
func number(s string) (*big.Int, bool) {
	if len(s) > 40 {
		return nil, false
	}
	return new(big.Int).SetString(s, 10)
}
