package inventory

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestKernelStructSizes(t *testing.T) {
	if n := unsafe.Sizeof(nvmeAdminCmd{}); n != 72 { // as its ioctl number says: 0x48
		t.Errorf("struct nvme_admin_cmd has %d bytes", n)
	}
	if n := unsafe.Sizeof(sgIOHeader{}); n != 88 {
		t.Errorf("struct sg_io_hdr has %d bytes", n)
	}
}

// sectors of SMART data: entries of 12 bytes from byte 2, and the checksum.
func smartSector(entries ...[]byte) []byte {
	b := make([]byte, 512)
	for i, e := range entries {
		copy(b[2+12*i:14+12*i], e)
	}
	var sum byte
	for _, v := range b {
		sum += v
	}
	b[511] = -sum
	return b
}

var (
	someSMART = smartSector(
		[]byte{5, 0x33, 0, 100, 99, 0x10, 0x27, 0, 0, 0, 0},
		[]byte{194, 0x22, 0, 35, 60, 35, 0, 20, 0, 60, 0},
		nil,
		[]byte{250, 0, 0, 1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	)
	someThresholds = smartSector([]byte{5, 36}, []byte{194, 40})
)

func TestParseSMART(t *testing.T) {
	got, err := parseSMART(someSMART, someThresholds)
	if err != nil {
		t.Fatal(err)
	}
	want := []Attribute{
		{ID: 5, Name: "reallocated sectors", Value: 100, Worst: 99, Threshold: 36, Raw: "10000"},
		{ID: 194, Name: "temperature", Value: 35, Worst: 60, Threshold: 40, Raw: "257699348515"}, // below its threshold, but predicts nothing
		{ID: 250, Name: "unknown", Value: 1, Worst: 1, Raw: "281474976710655"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("attributes are %+v, want %+v", got, want)
	}
	if got, err := parseSMART(someSMART, nil); err != nil || len(got) != 3 || got[0].Threshold != 0 {
		t.Errorf("without thresholds: %+v, %v", got, err)
	}
	damaged := slices.Clone(someSMART)
	damaged[5]++
	if _, err := parseSMART(damaged, someThresholds); err == nil {
		t.Error("a wrong checksum is taken")
	}
	if _, err := parseSMART(someSMART[:511], nil); err == nil {
		t.Error("a cut sector is taken")
	}
}

func descriptorSense(mid, high byte) []byte {
	b := make([]byte, 22)
	b[0], b[7], b[8], b[9], b[17], b[19] = 0x72, 14, 0x09, 0x0c, mid, high
	return b
}

func TestATAHealth(t *testing.T) {
	fixed := make([]byte, 18)
	fixed[0], fixed[10], fixed[11] = 0x70, 0xf4, 0x2c
	atThreshold := []Attribute{{ID: 5, Name: "reallocated sectors", Failing: true}}
	for _, c := range []struct {
		name       string
		attributes []Attribute
		sense      []byte
		want       string
	}{
		{"good", nil, descriptorSense(0x4f, 0xc2), healthGood},
		{"failing", nil, descriptorSense(0xf4, 0x2c), healthFailing},
		{"failing, fixed sense", nil, fixed, healthFailing},
		{"no answer", nil, nil, healthUnknown},
		{"other answer", nil, descriptorSense(0, 0), healthUnknown},
		{"says good, but is at a threshold", atThreshold, descriptorSense(0x4f, 0xc2), healthFailing},
	} {
		if h := ataHealth(c.attributes, c.sense); h.Status != c.want || (h.Note == "") != (c.want == healthGood) {
			t.Errorf("%s: %+v, want %s", c.name, h, c.want)
		}
	}
}

func TestParseNVMeHealth(t *testing.T) {
	p := make([]byte, nvmeHealthLen)
	binary.LittleEndian.PutUint16(p[1:], 273+41)
	p[3], p[4], p[5] = 100, 10, 7
	binary.LittleEndian.PutUint64(p[48:], 1<<40) // times 512000 is more than 64 bits hold
	p[160] = 3
	h, err := parseNVMeHealth(p)
	if err != nil || h.Status != healthGood || h.Note != "" {
		t.Fatalf("health is %+v, %v", h, err)
	}
	values := map[string]string{}
	for _, a := range h.Attributes {
		values[a.Name] = a.Raw
	}
	for name, want := range map[string]string{"temperature, C": "41", "life used, %": "7", "written, bytes": "562949953421312000",
		"media errors": "3", "power cycles": "0"} {
		if values[name] != want {
			t.Errorf("%s is %q, want %q", name, values[name], want)
		}
	}
	p[0] = 0x80 | 0x08
	if h, _ := parseNVMeHealth(p); h.Status != healthFailing || h.Note != "it is read-only, warning bit 7" {
		t.Errorf("with warnings: %+v", h)
	}
	if _, err := parseNVMeHealth(p[:100]); err == nil {
		t.Error("a cut page is taken")
	}
}

func TestAskNothing(t *testing.T) {
	for _, kind := range []healthKind{healthATA, healthNVMe} {
		if _, err := askDisk("/dev/null", kind); err == nil || !strings.Contains(err.Error(), "ioctl") {
			t.Errorf("kind %d of /dev/null: %v", kind, err)
		}
		if _, err := askDisk(t.TempDir()+"/none", kind); err == nil {
			t.Errorf("kind %d of a missing file: no error", kind)
		}
	}
}

func FuzzHealth(f *testing.F) {
	f.Add(someSMART, someThresholds, descriptorSense(0x4f, 0xc2))
	f.Add(make([]byte, 512), []byte{}, []byte{0x70})
	f.Fuzz(func(t *testing.T, data, thresholds, sense []byte) {
		attributes, err := parseSMART(data, thresholds)
		if err == nil && (len(data) != 512 || len(attributes) > 30) {
			t.Fatalf("%d attributes of %d bytes", len(attributes), len(data))
		}
		failing, known := smartStatus(sense)
		if failing && !known {
			t.Fatal("failing but not known")
		}
		if h := ataHealth(attributes, sense); failing && h.Status != healthFailing {
			t.Fatalf("the disk's own word is lost: %+v", h)
		}
		if h, err := parseNVMeHealth(data); err == nil && (h.Status == healthGood) != (data[0] == 0) {
			t.Fatalf("warnings %#x make %+v", data[0], h)
		}
	})
}
