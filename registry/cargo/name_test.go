package cargo

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for _, name := range []string{"a", "Z9", "serde", "serde_json", "rand-core", "demo-one", "core2", "con1", strings.Repeat("a", 64)} {
		if err := ValidateName(name); err != nil {
			t.Errorf("ValidateName(%q) = %v", name, err)
		}
	}
	for _, name := range []string{
		"", "1a", "-a", "_a", "a.b", "a/b", "a b", "é", "aé", "a\x00", "a\n", "..", `a\b`, strings.Repeat("a", 65),
		"nul", "NUL", "Con", "aux", "prn", "com1", "LPT9", "std", "core", "proc-macro", "Proc_Macro", "test",
	} {
		if err := ValidateName(name); !errors.Is(err, ErrName) {
			t.Errorf("ValidateName(%q) = %v, want ErrName", name, err)
		}
	}
}

func TestCanonicalNameJoinsCaseDashAndUnderscore(t *testing.T) {
	for _, name := range []string{"Demo-One", "demo_one", "DEMO-ONE", "demo-one"} {
		if got := CanonicalName(name); got != "demo_one" {
			t.Errorf("CanonicalName(%q) = %q", name, got)
		}
	}
}

func TestIndexPath(t *testing.T) {
	for name, want := range map[string]string{
		"a": "1/a", "ab": "2/ab", "abc": "3/a/abc", "cargo": "ca/rg/cargo", "cargo-x": "ca/rg/cargo-x",
		"A": "1/a", "MyCrate": "my/cr/mycrate", "ABC": "3/a/abc",
	} {
		if got := IndexPath(name); got != want {
			t.Errorf("IndexPath(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestANameHasSeveralSpellings(t *testing.T) {
	for name, want := range map[string][]string{
		"Serde": {"serde"}, "a-B_c": {"a-b-c", "a-b_c", "a_b-c", "a_b_c"}, "a-b_c_d_e": {"a-b-c-d-e", "a-b_c_d_e", "a_b_c_d_e"},
	} {
		if got := Spellings(name); !slices.Equal(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
