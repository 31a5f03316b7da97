package main

import (
	"strings"
	"testing"
)

// TestListIsUpToDate: each entry can be applied to the code as it is now, and
// the tests that it names are there.
func TestListIsUpToDate(t *testing.T) {
	all, err := readLists("list")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("there are no mutants")
	}
	seen := map[string]string{}
	for _, m := range all {
		if err := m.check("../../.."); err != nil {
			t.Errorf("%s: %s: %v", m.where, m.what, err)
		}
		if key := m.file + "\n" + m.before + "\n" + m.after; seen[key] != "" {
			t.Errorf("%s is the same as %s", m.where, seen[key])
		} else {
			seen[key] = m.where
		}
	}
}

func TestParseList(t *testing.T) {
	const entry = "# a remark\n= it is broken\nfile internal/e2e/mutants/list.go\ntest internal/e2e/mutants TestParseList\n" +
		"-// mutant is one change of the code for the worse, and the tests that must\n+// Mutant is\n // notice it.\n"
	list, err := parseList("list", entry)
	if err != nil || len(list) != 1 || list[0].what != "it is broken" || list[0].where != "list:2" {
		t.Fatal(list, err)
	}
	if err := list[0].check("../../.."); err != nil {
		t.Fatal(err)
	}
	if text, err := list[0].apply("../../.."); err != nil || !strings.Contains(text, "\n// Mutant is\n// notice it.\n") {
		t.Fatal(err)
	}
	changed := func(old, text string) string { return strings.Replace(entry, old, text, 1) }
	hunk := entry[strings.Index(entry, "-"):]
	for want, bad := range map[string]string{
		"not \"nonsense\"":      entry + "nonsense\n",
		"an entry begins with":  "file x\n",
		"is not in":             changed("one change", "two changes"),
		"times in":              changed(hunk, "-\t\treturn nil, err\n+\t\treturn nil, nil\n"),
		"there is no test":      changed("TestParseList", "TestGone"),
		"no test is named":      changed(" TestParseList", ""),
		"it changes nothing":    changed("+// Mutant is", "+// mutant is one change of the code for the worse, and the tests that must"),
		"is no Go":              changed("+// Mutant is", "+{"),
		"gone.go: no such file": changed("list.go", "gone.go"),
		"gone: no such file":    changed("test internal/e2e/mutants", "test internal/gone"),
	} {
		list, err := parseList("list", bad)
		for _, m := range list {
			if err == nil {
				err = m.check("../../..")
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("instead of %q: %v", want, err)
		}
	}
}
