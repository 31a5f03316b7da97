package inventory

import (
	"archive/zip"
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"

	"testbox-imaging/internal/box"
)

func TestText(t *testing.T) {
	inv := Collect(t.Context(), options(t))
	text := string(inv.Text())
	for _, want := range []string{
		"Testbox 10.40.41.42 (box42)\n",
		"  hexadecimal address  0A28292A\n",
		"  time                 2026-11-22T08:00:00Z\n",
		"  maintenance system   1.2\n",
		"  system               Maker, Server 9000, version v1, serial S123, SKU SKU7, family Rack\n",
		"  socket CPU1: Intel Xeon X, 288 cores, 576 threads, up to 3700 MHz\n",
		"  DIMM_A1 Bank 0: 34359738368 bytes (32.0 GiB) DDR4, 3200 MT/s, Samsung M393, serial 00AB\n",
		"  Secure Boot          on\n",
		"  boot order 2: Boot000A debian (not active)\n",
		"  eth0  00:25:90:ab:cd:ef  0000:00:19.0  link 1000 Mbit/s  driver e1000e\n",
		"  sda  1000000000000 bytes (931.3 GiB), 512-byte sectors, ata, rotating\n",
		"    serial             W1\n",
		"    partition sda1     at 1048576, 536870912 bytes (512.0 MiB)\n",
		"      5 reallocated sectors      value 100 worst 100 threshold  36 raw 0\n",
		"  0000:00:19.0  Ethernet controller  8086:10d3  Intel Corporation 82574L Gigabit Network Connection\n",
		"  partition sda2: its start is not readable\n",
		"\nKernel log\n  first line\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q", want)
		}
	}
	if strings.ContainsAny(text, "\x1b\x07") {
		t.Error("the text has control characters")
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	inv := Collect(t.Context(), options(t))
	got, err := ParseJSON(inv.JSON())
	if err != nil {
		t.Fatal(err)
	}
	inv.raw, inv.skipped = nil, nil
	if !reflect.DeepEqual(got, inv) {
		t.Errorf("read back as %+v, want %+v", got, inv)
	}
	if !bytes.Contains(inv.JSON(), []byte(`"mac": "00:25:90:ab:cd:ef"`)) {
		t.Error("network[].mac is not where programs look for it")
	}
	for _, bad := range []string{"", "[]", `{"format":2}`, `{"format":1}{`, `{"format":1,"network":5}`} {
		if _, err := ParseJSON([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := ParseJSON(make([]byte, MaxJSON+1)); err == nil {
		t.Error("an inventory over the limit is taken")
	}
}

func TestFiles(t *testing.T) {
	made, err := Collect(t.Context(), options(t)).Files()
	if err != nil || len(made) != 3 {
		t.Fatalf("%d files, %v", len(made), err)
	}
	for i, name := range []string{box.InfoText, box.InfoJSON, box.InfoZip} {
		if made[i].Name != name || len(made[i].Data) == 0 {
			t.Errorf("%s has %d bytes, it should be %s", made[i].Name, len(made[i].Data), name)
		}
	}
	r, err := zip.NewReader(bytes.NewReader(made[2].Data), int64(len(made[2].Data)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, f := range r.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name] = string(b)
	}
	if files["proc/cpuinfo"] != cpuinfo || files["sys/firmware/acpi/tables/DSDT"] != "DSDT..." ||
		files["sys/firmware/dmi/tables/DMI"] != string(machineTable()) {
		t.Error("raw tables are missing or changed")
	}
	for name := range files {
		if strings.Contains(name, "raw_event_log") || strings.Contains(name, "Setup-") {
			t.Errorf("%s must not be in the zip", name)
		}
	}
	if s := files[skippedName]; !strings.Contains(s, "raw_event_log: reading it can hang") || !strings.Contains(s, "can hold secrets") {
		t.Errorf("%s says %q", skippedName, s)
	}
}

// TestParseDisks: it gives the disks that ParseJSON gives, and refuses what would take much
// memory.
func TestParseDisks(t *testing.T) {
	inv := &Inventory{Format: Format, KernelLog: []string{"x"}, Disks: []Disk{{Name: "sda", Health: Health{Status: healthFailing, Note: "n",
		Attributes: []Attribute{{ID: 5, Raw: "8"}}}}, {Name: "sdb"}}}
	got, err := ParseDisks(inv.JSON())
	if err != nil || !reflect.DeepEqual(got, inv.Disks) || !got[0].Health.Failing() || got[1].Health.Failing() {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := ParseDisks([]byte(`{"format":1}`)); err != nil || len(got) > 0 {
		t.Errorf("without disks: %+v, %v", got, err)
	}
	for _, bad := range []string{"", "[]", `{"format":2}`, `{"format":1,"disks":5}`, `{"format":1,"disks":["x"]}`,
		`{"format":1,"disks":[` + strings.Repeat("{},", maxDisksJSON/3) + `{}]}`, `{"format":1}` + strings.Repeat(" ", MaxJSON)} {
		if got, err := ParseDisks([]byte(bad)); err == nil {
			t.Errorf("%.40q: %d disks", bad, len(got))
		}
	}
}

func FuzzParseDisks(f *testing.F) {
	f.Add([]byte(`{"format":1,"disks":[{"name":"sda","health":{"status":"good","attributes":[{"id":5,"raw":"8"}]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ParseDisks(data)
		inv, wantErr := ParseJSON(data)
		if wantErr == nil && err == nil && len(inv.Disks) != len(all) {
			t.Errorf("%d disks, want %d", len(all), len(inv.Disks))
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	f.Add([]byte(`{"format":1,"network":[{"mac":"52:54:00:12:34:56"}]}`))
	f.Add([]byte(`{"format":1,"disks":[{"name":"sda","size":-1,"rotational":true}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		inv, err := ParseJSON(data)
		if err != nil {
			return
		}
		inv.Text()
		if again, err := ParseJSON(inv.JSON()); err != nil || !bytes.Equal(again.JSON(), inv.JSON()) {
			t.Fatalf("JSON does not survive being read: %v", err)
		}
	})
}

func FuzzLoadOption(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x04\x00d\x00e\x00b\x00\x00\x00\x7f\xff\x04\x00"))
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 0xd8, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		name, active, err := parseLoadOption(b)
		if err == nil && (name != clean(name) || active != (b[0]&1 == 1)) {
			t.Fatalf("name %q, active %v of %x", name, active, b)
		}
	})
}

func FuzzProc(f *testing.F) {
	f.Add([]byte(cpuinfo))
	f.Add([]byte("MemTotal: 99999999999999999999 kB\nprocessor\t:\n:\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := parseMemTotal(b); n < 0 {
			t.Fatalf("memory %d", n)
		}
		cpu := parseCPUInfo(b)
		if n := bytes.Count(b, []byte("\n")) + 1; cpu.Threads > n || cpu.Cores > n || cpu.Sockets > n {
			t.Fatalf("%+v of %d lines", cpu, n)
		}
		if cpu.Model != clean(cpu.Model) {
			t.Fatalf("unsafe model %q", cpu.Model)
		}
	})
}
