package maintenance

import (
	"debug/elf"
	"os"

	"testbox-imaging/internal/problem"
)

// readAgent reads the agent's program. It makes sure that the program can run
// as the init, which means that it is static and for this processor.
func readAgent(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, agentError("the agent cannot be read: %w", err)
	}
	file, err := elf.Open(path)
	if err != nil {
		return nil, agentError("the agent %s is no program: %w", path, err)
	}
	defer file.Close()
	if file.Machine != elf.EM_X86_64 || file.Type != elf.ET_EXEC && file.Type != elf.ET_DYN {
		return nil, agentError("the agent %s is %v for %v, no program for amd64", path, file.Type, file.Machine)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, agentError("the agent %s needs shared libraries, which the maintenance system does not have", path)
		}
	}
	return data, nil
}

func agentError(format string, args ...any) error {
	return problem.Wrongf(format+"; `make build` makes it, bin/testbox-maintenance; --agent names it", args...)
}
