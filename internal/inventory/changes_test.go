package inventory

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"testbox-imaging/internal/image"
)

func counted(a Attribute) bool { return a.ID == 5 }

func machine(change func(*Inventory)) []byte {
	inv := &Inventory{Format: Format, Host: "web", Time: time.Unix(1, 0), Memory: 4 << 30,
		CPU:     CPU{Model: "Fast 1", Cores: 4},
		Network: []NIC{{Name: "eth0", MAC: "52:54:00:00:00:01"}},
		Disks: []Disk{{Name: "sda", Identity: image.Identity{Serial: "S1", Model: "Big", Size: 1 << 40},
			Partitions: []Partition{{Name: "sda1", Size: 1 << 30}},
			Health: Health{Status: "good", Attributes: []Attribute{
				{ID: 5, Name: "reallocated sectors", Raw: "0"}, {ID: 9, Name: "hours", Raw: "1"}}}}},
	}
	change(inv)
	return inv.JSON()
}

func TestChanges(t *testing.T) {
	same := machine(func(*Inventory) {})
	for what, test := range map[string]struct {
		change func(*Inventory)
		want   []Change
	}{
		"nothing": {func(*Inventory) {}, nil},
		"what changes by itself": {func(i *Inventory) {
			i.Time, i.KernelLog, i.Disks[0].Health.Attributes[1].Raw = time.Unix(5, 0), []string{"hello"}, "77"
			i.Network[0].Up = true
		}, nil},
		"another name of the same disk": {func(i *Inventory) { i.Disks[0].Name, i.Disks[0].Partitions[0].Name = "sdb", "sdb1" }, nil},
		"memory":                        {func(i *Inventory) { i.Memory = 2 << 30 }, []Change{{"memory", "4.00 GiB", "2.00 GiB"}}},
		"errors": {func(i *Inventory) { i.Disks[0].Health.Attributes[0].Raw = "8" },
			[]Change{{"disk S1, reallocated sectors", "0", "8"}}},
		"a disk that is gone": {func(i *Inventory) { i.Disks = nil }, []Change{
			{"disk S1", "Big 1.00 TiB", ""}, {"disk S1, health", "good", ""}, {"disk S1, reallocated sectors", "0", ""},
			{"disk S1, partition 1", "1.00 GiB", ""}}},
		"a card": {func(i *Inventory) { i.Network = append(i.Network, NIC{Name: "eth1\x1b", MAC: "52:54:00:00:00:02"}) },
			[]Change{{"network card 52:54:00:00:00:02", "", image.Printable("eth1\x1b")}}},
	} {
		got, more, err := Changes(same, machine(test.change), counted)
		if err != nil || more || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %q, %v, %v", what, got, more, err)
		}
	}
	if at := TimeOf(same); at.Unix() != 1 {
		t.Errorf("the inventory is of %v", at)
	}
}

func TestChangesHostile(t *testing.T) {
	same := machine(func(*Inventory) {})
	long := strings.Repeat("x", 1<<16)
	twins := machine(func(i *Inventory) {
		for range 5000 {
			i.Network = append(i.Network, NIC{Name: "eth0", MAC: "00:00:00:00:00:00"})
		}
	})
	for what, data := range map[string][]byte{
		"many cards":     twins,
		"a long name":    machine(func(i *Inventory) { i.Host = long }),
		"many disks":     []byte(`{"format":1,"disks":[` + strings.Repeat("{},", 1<<20) + `{}]}`),
		"a long section": []byte(`{"format":1,"network":[{"name":"eth0","mac":"x","unknown":"` + strings.Repeat("x", 300<<10) + `"}]}`),
		"many fields":    []byte(`{"format":1,"pci":[` + strings.Repeat(`{"address":"a","vendor":"1"},`, 8000) + `{}]}`),
	} {
		got, more, err := Changes(same, data, counted)
		if err != nil || len(got) > maxChanges {
			t.Errorf("%s: %d changes, %v", what, len(got), err)
		}
		if what != "a long name" && !more {
			t.Errorf("%s: nothing says that there is more", what)
		}
		for _, c := range got {
			if len(c.What)+len(c.Was)+len(c.Is) > 4*maxValue {
				t.Errorf("%s: a change of %d bytes", what, len(fmt.Sprint(c)))
			}
		}
	}
	for _, data := range []string{"", "{", "[]", `{"format":2}`, `{"format":1,"cpu":7}`} {
		if _, _, err := Changes(same, []byte(data), counted); err == nil {
			t.Errorf("%q was compared", data)
		}
		if _, _, err := Changes([]byte(data), same, counted); err == nil {
			t.Errorf("%q was compared", data)
		}
	}
	TimeOf([]byte("{"))
}

func FuzzChanges(f *testing.F) {
	same := machine(func(*Inventory) {})
	f.Add(same)
	f.Fuzz(func(t *testing.T, data []byte) {
		a, _, err := Changes(data, data, counted)
		if err == nil && len(a) > 0 {
			t.Errorf("an inventory differs from itself: %q", a)
		}
		Changes(same, data, counted)
	})
}
