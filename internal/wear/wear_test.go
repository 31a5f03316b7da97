package wear

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"testbox-imaging/internal/image"
	"testbox-imaging/internal/inventory"
)

func speeds(rates ...float64) (all []Speed) {
	for _, r := range rates {
		all = append(all, Speed{Disk: "serial number S1", Name: "sda", Stage: "read", Rate: r * 1e6})
	}
	return all
}

// longHistory was much faster only long ago.
var longHistory = slices.Concat([]float64{40, 40, 40}, slices.Repeat([]float64{45}, 20), slices.Repeat([]float64{500}, 30))

// TestSlow: a disk is slow only after three slow actions in a row, and beside a history
// that is long enough. Rates are in MB/s, the latest first.
func TestSlow(t *testing.T) {
	for name, c := range map[string]struct {
		rates []float64
		slow  bool
	}{
		"three in a row":              {[]float64{40, 45, 50, 150, 160, 150, 140, 155}, true},
		"exactly half":                {[]float64{75, 75, 75, 150, 150, 150, 150, 150}, true},
		"a little more than half":     {[]float64{76, 76, 76, 150, 150, 150, 150, 150}, false},
		"only two in a row":           {[]float64{40, 45, 150, 150, 160, 150, 140, 155}, false},
		"the latest is quick again":   {[]float64{150, 45, 40, 45, 150, 160, 150, 140}, false},
		"too short a history":         {[]float64{40, 45, 50, 150, 160, 150, 140}, false},
		"nothing else":                {[]float64{40}, false},
		"one slow action before":      {[]float64{40, 45, 50, 150, 10, 150, 140, 155}, true},
		"always slow":                 {[]float64{40, 45, 50, 41, 44, 39, 50, 45}, false},
		"quicker than before":         {[]float64{400, 450, 500, 41, 44, 39, 50, 45}, false},
		"what was long ago is no use": {longHistory, false},
	} {
		all := speeds(c.rates...)
		if text := Slow(all[0], all[1:]); (text != "") != c.slow {
			t.Errorf("%s: %q", name, text)
		}
	}
	all := speeds(40, 45, 50, 150, 160, 150, 140, 155)
	if got, want := Slow(all[0], all[1:]), "the disk sda (serial number S1) reads 40 MB/s, and it used to read 150 MB/s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, change := range []func(*Speed){func(s *Speed) { s.Disk = "serial number S2" }, func(s *Speed) { s.Stage = "compare" }} {
		other := slices.Clone(all)
		for i := range other[1:] {
			change(&other[1+i])
		}
		if text := Slow(other[0], other[1:]); text != "" {
			t.Errorf("another disk or stage counts: %q", text)
		}
	}
}

// TestSpeeds: only what was read from the disk counts, in the time in which it was read.
func TestSpeeds(t *testing.T) {
	id := image.Identity{Serial: "S1", Model: "M"}
	gib := int64(1 << 30)
	stage := func(name string, bytes int64, active time.Duration) image.Stage {
		return image.Stage{Name: name, Bytes: bytes, Elapsed: time.Hour, Active: active}
	}
	got := Speeds([]image.Receipt{
		{Disk: "sda", Identity: id, Stages: []image.Stage{
			stage("read", gib, 10*time.Second), stage("hash", gib, 10*time.Second), stage("compare", gib, 4*time.Second),
			stage("write", gib, time.Minute),
		}},
		{Disk: "sdb", Identity: image.Identity{WWN: "naa.5"}, Stages: []image.Stage{
			stage("read", leastBytes-1, time.Minute), stage("read", gib, leastTime-1), stage("read", gib, 0),
			stage("compare", leastBytes, leastTime),
		}},
		{Disk: "sdc", Stages: []image.Stage{stage("read", gib, 10*time.Second)}}, // nothing tells this disk from others
	})
	want := []Speed{
		{"serial number S1", "sda", "read", float64(gib) / 10}, {"serial number S1", "sda", "compare", float64(gib) / 4},
		{"WWN naa.5", "sdb", "compare", leastBytes / leastTime.Seconds()},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	many := slices.Repeat([]image.Receipt{{Disk: "sda", Identity: id, Stages: []image.Stage{stage("read", gib, time.Minute)}}}, 1000)
	if n := len(Speeds(many)); n != maxSpeeds {
		t.Errorf("%d speeds of one action", n)
	}
}

func TestKey(t *testing.T) {
	for want, id := range map[string]image.Identity{
		"":                             {Model: "M", Path: "pci-1", Size: 1},
		"WWN naa.5":                    {WWN: "naa.5", Serial: "S"},
		"serial number S":              {Serial: "S", Model: "M"},
		"serial number S, namespace 2": {Serial: "S", NamespaceID: 2},
	} {
		if got := Key(id); got != want {
			t.Errorf("%+v: %q, want %q", id, got, want)
		}
	}
	for _, serial := range []string{strings.Repeat("x", 5000), strings.Repeat("ü", 5000), "x" + strings.Repeat("ü", 5000)} {
		if k := Key(image.Identity{Serial: serial}); len(k) > maxKey || !utf8.ValidString(k) {
			t.Errorf("a key of %d bytes: %q", len(k), k)
		}
	}
}

func disk(name, serial, status string, attributes ...inventory.Attribute) inventory.Disk {
	return inventory.Disk{Name: name, Identity: image.Identity{Serial: serial},
		Health: inventory.Health{Status: status, Note: "it says so", Attributes: attributes}}
}

func ata(id int, raw any) inventory.Attribute {
	return inventory.Attribute{ID: id, Name: fmt.Sprint("attribute ", id), Raw: fmt.Sprint(raw)}
}

// TestGrown: the counters of errors are compared disk by disk, whatever the disks are
// called, and a disk that has begun to fail is said once.
func TestGrown(t *testing.T) {
	media := func(raw string) inventory.Attribute { return inventory.Attribute{Name: nvmeCounter, Raw: raw} }
	nvme := func(a inventory.Attribute) []inventory.Disk {
		return []inventory.Disk{disk("nvme0n1", "N1", "good", a)}
	}
	past := []inventory.Disk{
		disk("sda", "S1", "good", ata(5, 8), ata(9, 1000), ata(197, 0), ata(199, 5)),
		disk("sdb", "S2", "failing", ata(5, 8)),
		disk("nvme0n1", "N1", "good", media("3"), inventory.Attribute{Name: "power-on hours", Raw: "5"}),
	}
	for name, c := range map[string]struct {
		now  []inventory.Disk
		want []string // beginnings
	}{
		"the same":            {past, nil},
		"hours and the cable": {[]inventory.Disk{disk("sda", "S1", "good", ata(5, 8), ata(9, 2000), ata(197, 0), ata(199, 50))}, nil},
		"reallocated": {[]inventory.Disk{disk("sdx", "S1", "good", ata(5, 9), ata(197, 0))},
			[]string{"the disk sdx (serial number S1) has counted more attribute 5: 9, and 8 before"}},
		"two counters": {[]inventory.Disk{disk("sda", "S1", "good", ata(5, 9), ata(197, 4))}, []string{"the disk sda", "the disk sda"}},
		"less":         {[]inventory.Disk{disk("sda", "S1", "good", ata(5, 7))}, nil},
		"another disk": {[]inventory.Disk{disk("sda", "S9", "good", ata(5, 900))}, nil},
		"it fails now": {[]inventory.Disk{disk("sda", "S1", "failing", ata(5, 8))},
			[]string{"the disk sda (serial number S1) says that it is failing: it says so"}},
		"it fails still":          {[]inventory.Disk{disk("sdb", "S2", "failing", ata(5, 8))}, nil},
		"a new disk that fails":   {[]inventory.Disk{disk("sdd", "", "failing")}, []string{"the disk sdd says that it is failing"}},
		"a new counter":           {[]inventory.Disk{disk("sda", "S1", "good", ata(187, 5))}, nil},
		"NVMe":                    {nvme(media("4")), []string{"the disk nvme0n1 (serial number N1) has counted more media errors"}},
		"more than 64 bits":       {nvme(media("340282366920938463463374607431768211455")), []string{"the disk"}},
		"NVMe, its hours":         {nvme(inventory.Attribute{Name: "power-on hours", Raw: "9"}), nil},
		"no number":               {[]inventory.Disk{disk("sda", "S1", "good", ata(5, "many"))}, nil},
		"a number without an end": {[]inventory.Disk{disk("sda", "S1", "good", ata(5, strings.Repeat("9", 1<<20)))}, nil},
	} {
		got := Grown(past, c.now)
		ok := len(got) == len(c.want)
		for i := range min(len(got), len(c.want)) {
			ok = ok && strings.HasPrefix(got[i], c.want[i])
		}
		if !ok {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	bridges := []inventory.Disk{disk("sdc", "0123456789", "good", ata(5, 0)), disk("sdd", "0123456789", "good", ata(5, 7))}
	for _, was := range [][]inventory.Disk{bridges, {bridges[1], bridges[0]}, bridges[:1]} {
		if got := Grown(was, bridges); len(got) != 0 {
			t.Errorf("two disks that are known by one number: %q", got)
		}
	}
	if got := Grown(nil, past); len(got) != 1 || !strings.Contains(got[0], "sdb") {
		t.Errorf("without an earlier inventory: %q", got)
	}
}

func FuzzGrown(f *testing.F) {
	f.Add("5", "6", 5)
	f.Add("340282366920938463463374607431768211455", "-1", 197)
	f.Add("", "0x", 10)
	f.Fuzz(func(t *testing.T, was, is string, id int) {
		Grown([]inventory.Disk{disk("sda", "S", "good", ata(id, was))}, []inventory.Disk{disk("sda", "S", "good", ata(id, is))})
	})
}

// TestNoSpeed: figures that cannot be are no speeds, and divide nothing by zero.
func TestNoSpeed(t *testing.T) {
	for _, s := range Speeds([]image.Receipt{{Identity: image.Identity{Serial: "S"}, Stages: []image.Stage{
		{Name: "read", Bytes: math.MaxInt64, Active: leastTime}, {Name: "read", Bytes: math.MaxInt64, Active: -1},
		{Name: "read", Bytes: -1, Active: time.Hour},
	}}}) {
		if math.IsNaN(s.Rate) || math.IsInf(s.Rate, 0) || s.Rate <= 0 {
			t.Errorf("%+v", s)
		}
	}
}
