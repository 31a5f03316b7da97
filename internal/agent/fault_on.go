//go:build faults

package agent

import "time"

// fault, at a point named "" or "-disarm", breaks the agent where the word testbox-fault= of the command line
// says: "panic" and "hang" before the action, "hang-disarm" between the
// end of the action and disarming. Only agents built for tests have it.
func (s *session) fault(point string) {
	switch s.cmd.Fault {
	case "panic" + point:
		panic("a panic that was asked for")
	case "hang" + point:
		s.log.Info("hanging, as asked")
		time.Sleep(24 * time.Hour)
	}
}
