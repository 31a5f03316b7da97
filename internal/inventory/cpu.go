package inventory

import (
	"bufio"
	"bytes"
	"strconv"
	"strings"
)

// maxProc is the size limit of a file of /proc. cpuinfo has 1 to 2 KB for each
// processor.
const maxProc = 8 << 20

func (c *collector) collectCPU() {
	if b, err := c.proc.read("cpuinfo", maxProc); err != nil {
		c.problem("processors: %v", err)
	} else {
		c.inv.CPU = parseCPUInfo(b)
	}
	if b, err := c.proc.read("meminfo", maxProc); err != nil {
		c.problem("memory: %v", err)
	} else {
		c.inv.Memory = parseMemTotal(b)
	}
	c.inv.Kernel = c.proc.attr("version")
}

// parseCPUInfo reads /proc/cpuinfo of x86. It has a block of "name : value"
// lines for each processor. All processors of a machine have the same model and
// flags, so those of the first block are used.
func parseCPUInfo(b []byte) CPU {
	var cpu CPU
	sockets, cores := map[string]bool{}, map[string]bool{}
	socket := ""
	for key, value := range fields(b) {
		switch key {
		case "processor":
			cpu.Threads++
		case "physical id":
			socket = value
			sockets[socket] = true
		case "core id": // comes after "physical id"
			cores[socket+"/"+value] = true
		case "model name":
			keepFirst(&cpu.Model, value)
		case "microcode":
			keepFirst(&cpu.Microcode, value)
		case "flags":
			if cpu.Flags == nil {
				cpu.Flags = strings.Fields(cleanTo(value, 16<<10))
			}
		}
	}
	cpu.Sockets, cpu.Cores = len(sockets), len(cores)
	return cpu
}

func keepFirst(dst *string, value string) {
	if *dst == "" {
		*dst = clean(value)
	}
}

// parseMemTotal reads /proc/meminfo and returns bytes, 0 if that is unknown.
func parseMemTotal(b []byte) int64 {
	for key, value := range fields(b) {
		if key == "MemTotal" {
			n, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
			if err != nil || n < 0 || n > 1<<50 {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

// fields yields the "name : value" lines of a file of /proc.
func fields(b []byte) func(yield func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		sc := bufio.NewScanner(bytes.NewReader(b))
		sc.Buffer(nil, 1<<20)
		for sc.Scan() {
			key, value, ok := strings.Cut(sc.Text(), ":")
			if ok && !yield(strings.TrimSpace(key), strings.TrimSpace(value)) {
				return
			}
		}
	}
}
