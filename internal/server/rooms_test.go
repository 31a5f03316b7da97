package server

import (
	"path/filepath"
	"reflect"
	"testing"

	"testbox-imaging/internal/box"
	"testbox-imaging/internal/boxapi"
	"testbox-imaging/internal/ledger"
)

// TestRoomConfig reads what is set for rooms, and writes it.
func TestRoomConfig(t *testing.T) {
	cfg, err := ParseConfig([]byte("[room]\npeers = false\noff = [\"10.0.0.0/24\"]\nupload = 50_000_000\nzones = []\nunit = 262144\n"))
	must(t, err)
	want := Room{Peers: false, Off: []string{"10.0.0.0/24"}, Upload: 50e6, Unit: 256 << 10}
	if !reflect.DeepEqual(cfg.Room, want) {
		t.Errorf("read as %+v", cfg.Room)
	}
	if again, err := ParseConfig(ConfigText(cfg)); err != nil || !reflect.DeepEqual(*again, *cfg) {
		t.Errorf("what was written is read as %+v, %v", again, err)
	}
}

// TestRoomSetting: what holds for a box is said by itself, its groups, its network and the configuration, and its label or
// its network says where it is.
func TestRoomSetting(t *testing.T) {
	book, err := ledger.Open(t.Context(), filepath.Join(t.TempDir(), "ledger.db"), ledger.Options{})
	must(t, err)
	defer book.Close()
	at := func(s string) box.Addr {
		a, err := box.ParseAddr(s)
		must(t, err)
		return a
	}
	must(t, book.Update(t.Context(), func(tx *ledger.Tx) error {
		must(t, tx.PutGroup(ledger.Group{Name: "alone", Settings: []byte(`{"peers":"off"}`)}))
		for _, b := range []ledger.Box{
			{Address: at("10.0.0.1")}, {Address: at("10.0.0.2"), Groups: []string{"alone"}},
			{Address: at("10.0.9.1"), Labels: []string{"a", "switch=s3"}},
			{Address: at("10.0.9.2"), Settings: []byte(`{"peers":"on"}`)}, {Address: at("10.0.4.9")},
			{Address: at("10.0.0.3"), Settings: []byte(`{"later":1}`)},
		} {
			b.Health = ledger.Good
			must(t, tx.PutBox(b))
		}
		return nil
	}))
	cfg, err := ParseConfig([]byte("[room]\noff = [\"10.0.9.0/24\"]\nzones = [\"10.0.4.0/22\"]\nupload = 1048576\n"))
	must(t, err)
	on := func(zone string) boxapi.RoomSetting {
		return boxapi.RoomSetting{On: true, Unit: 8 << 20, Upload: 1 << 20, Zone: zone}
	}
	for addr, want := range map[string]boxapi.RoomSetting{
		"10.0.0.1": on("10.0.0.0/24"), "10.0.0.2": {}, "10.0.9.1": {}, "10.0.9.2": on("10.0.9.0/24"), "10.0.4.9": on("10.0.4.0/22"),
		"10.0.0.3": {}, "10.0.0.99": on("10.0.0.0/24"),
	} {
		if got, err := cfg.roomSetting(t.Context(), book, at(addr)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", addr, got, err)
		}
	}
	cfg.Room.Off = nil
	if got, err := cfg.roomSetting(t.Context(), book, at("10.0.9.1")); err != nil || got != on("switch=s3") {
		t.Errorf("a box with a label: %+v, %v", got, err)
	}
	cfg.Room.Peers = false
	if got, err := cfg.roomSetting(t.Context(), book, at("10.0.0.1")); err != nil || got.On {
		t.Errorf("where boxes have no peers: %+v, %v", got, err)
	}
	must(t, book.Close())
	if got, err := cfg.roomSetting(t.Context(), book, at("10.0.9.2")); err == nil || got.On {
		t.Errorf("when the ledger cannot be read: %+v, %v", got, err)
	}
}
