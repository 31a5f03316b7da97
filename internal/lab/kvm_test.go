package lab

import (
	"testing"
	"time"

	"testbox-imaging/internal/maintenance"
	"testbox-imaging/internal/testenv"
)

// TestProbe proves by emulation that the probe finds a kernel that boots, since
// most machines of tests have no KVM.
func TestProbe(t *testing.T) {
	needLab(t)
	testenv.Tools(t, "apt-get", "dpkg-deb")
	bare, err := maintenance.FetchBare(t.Context(), maintenance.Options{}, KernelModules...)
	if err != nil {
		t.Fatal(err)
	}
	if !boots(t.Context(), Kernel(*bare), false, time.Minute) {
		t.Error("the probe does not see a kernel that boots")
	}
	if boots(t.Context(), fakeKernel(), false, 5*time.Second) {
		t.Error("the probe takes noise for a kernel that boots")
	}
}
