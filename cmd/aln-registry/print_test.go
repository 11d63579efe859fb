package main

import (
	"strings"
	"testing"
)

func TestTableAlignsColouredCells(t *testing.T) {
	var out strings.Builder
	a := &app{out: &out}
	a.table([][]string{{"PACKAGE", "", "REASON"}, {"é@1", green + "ok" + plain, "x"}, {"b@1", red + "FAIL" + plain, "y"}, {"c@1", "-"}})
	want := "PACKAGE        REASON\né@1      ok    x\nb@1      FAIL  y\nc@1      -\n"
	if got := uncolour.Replace(out.String()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if !strings.Contains(out.String(), red+"FAIL"+plain+"  y") {
		t.Errorf("the colour is gone or covers the spaces: %q", out.String())
	}
}

// What a lock file or a registry says cannot move the cursor or write a line of its own.
func TestTableShowsForeignTextTamely(t *testing.T) {
	var out strings.Builder
	a := &app{out: &out}
	a.table([][]string{{"app\x1b[2Jx", "FAIL"}, {"a\nb\u202ec", red + "FAIL" + plain}})
	if got := out.String(); got != "app\uFFFD[2Jx  FAIL\na\uFFFDb\uFFFDc     "+red+"FAIL"+plain+"\n" {
		t.Errorf("%q", got)
	}
}

func TestNearestRole(t *testing.T) {
	for role, want := range map[string]string{
		"publsher": "publisher", "Publisher": "publisher", "publishers": "publisher", "mirorr": "mirror",
		"audit": "auditor", "curator": "", "x": "", "reviwer": "reviewer", "": "",
	} {
		if got := nearestRole(role); got != want {
			t.Errorf("%q: %q, want %q", role, got, want)
		}
	}
}
