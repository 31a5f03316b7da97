package box

import "testing"

func TestParseHooks(t *testing.T) {
	for text, want := range map[string]string{
		"hostname": "hostname", "ssh-keys,hostname": "hostname,ssh-keys", JoinHooks(Hooks): JoinHooks(Hooks),
		"": "", "hostname,": "", "hostname,hostname": "", "Hostname": "", "all": "", " hostname": "",
	} {
		got, err := ParseHooks(text)
		if JoinHooks(got) != want || (err == nil) != (want != "") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
