package lab

import (
	"bufio"
	"fmt"
	"strings"
	"testing"
)

func TestQMP(t *testing.T) {
	q, theirs, err := qmpPair()
	if err != nil {
		t.Fatal(err)
	}
	defer q.close()
	answers := map[string]string{
		"qmp_capabilities": `{"return": {}}`,
		"system_reset":     `{"event": "RESET", "data": {"guest": false}} {"return": {}}`,
		"nonsense":         `{"error": {"class": "CommandNotFound", "desc": "no such command"}}`,
	}
	go func() {
		defer theirs.Close()
		fmt.Fprintln(theirs, `{"QMP": {"version": {}, "capabilities": []}}`)
		for in := bufio.NewScanner(theirs); in.Scan(); {
			for command, answer := range answers {
				if strings.Contains(in.Text(), `"`+command+`"`) {
					fmt.Fprintln(theirs, answer)
				}
			}
			if strings.Contains(in.Text(), "quit") {
				return
			}
		}
	}()
	if err := q.hello(); err != nil {
		t.Error(err)
	}
	if err := q.do("nonsense"); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Errorf("QEMU's refusal is not told: %v", err)
	}
	if err := q.do("system_reset"); err != nil {
		t.Errorf("an event before the answer: %v", err)
	}
	if err := q.do("quit"); err == nil {
		t.Error("a connection that ended gave an answer")
	}
}
