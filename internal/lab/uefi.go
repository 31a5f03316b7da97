package lab

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ovmf is where the firmware of Debian's package ovmf is.
const ovmf = "/usr/share/OVMF/"

// machine is QEMU's name for a machine that this firmware fits in. With Secure Boot, OVMF keeps its
// variables from the operating system by the processor's system management mode.
func (f Firmware) machine() string {
	if f == UEFISecure {
		return "q35,smm=on"
	}
	return "q35"
}

// code and vars are the files of the firmware, and of the variables with which it begins.
func (f Firmware) code() string {
	if f == UEFISecure {
		return ovmf + "OVMF_CODE_4M.ms.fd"
	}
	return ovmf + "OVMF_CODE_4M.fd"
}

func (f Firmware) vars() string {
	if f == UEFISecure {
		return ovmf + "OVMF_VARS_4M.ms.fd"
	}
	return ovmf + "OVMF_VARS_4M.fd"
}

// rom is QEMU's word for the ROM of the network card that boots. OVMF has a driver for virtio and for no other
// card, so any other one needs a ROM. QEMU's are iPXE, and that of Debian 12 is from 2019: it gives shim a loader with
// something behind its end. With Secure Boot, shim then refuses the loader and waits for a key. That of Debian 13
// does not.
func (s Spec) rom() string {
	switch {
	case s.Firmware == BIOS:
		return ""
	case s.Cards[0] == "virtio-net-pci":
		return ",romfile="
	case s.ROM != "":
		return ",romfile=" + s.ROM
	}
	return ""
}

// The package that has the ROM of an e1000e in Debian 13, and its file there.
const (
	ROMPackage = "ipxe-qemu"
	ROMFile    = "usr/share/qemu/efi-e1000e.rom"
)

// nvram is the file with the firmware's variables. It stays when the machine is switched off.
func (m *Machine) nvram() string { return filepath.Join(m.lab.Dir, m.Addr.String()+"-nvram") }

// prepareNVRAM makes the firmware's variables if there are none, and reports whether it did.
func (m *Machine) prepareNVRAM() (fresh bool, err error) {
	if m.spec.Firmware == BIOS || exists(m.nvram()) {
		return false, nil
	}
	return true, copyFile(m.nvram(), m.spec.Firmware.vars(), 0o600)
}

// ForgetNVRAM gives the machine another mainboard: the firmware knows no boot entries any more, and is set to
// start from the network first. The machine must be off.
func (m *Machine) ForgetNVRAM() error {
	if m.alive() == nil {
		return errors.New("the machine is on")
	}
	if err := os.Remove(m.nvram()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// uefiArgs are the parts of QEMU's command for a machine with UEFI. Without IPv6, OVMF waits less.
func (m *Machine) uefiArgs() (a []string) {
	if m.spec.Firmware == BIOS {
		return nil
	}
	if m.spec.Firmware == UEFISecure {
		a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	a = append(a, "-drive", "if=pflash,format=raw,unit=0,readonly=on,file="+m.spec.Firmware.code(),
		"-drive", "if=pflash,format=raw,unit=1,file="+m.nvram(),
		"-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n", "-fw_cfg", "name=opt/org.tianocore/IPv6Support,string=n")
	if m.spec.NoPXE {
		a = append(a, "-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n")
	}
	return a
}
