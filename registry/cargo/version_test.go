package cargo

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustVersion(t testing.TB, s string) Version {
	t.Helper()
	v, err := ParseVersion(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestParseVersionRefusesWhatSemVerDoes(t *testing.T) {
	for _, s := range []string{
		"", "1", "1.2", "1.2.3.4", "v1.2.3", " 1.2.3", "1.2.3 ", "01.2.3", "1.02.3", "1.2.03", "-1.2.3", "+1.2.3", "1.2.x",
		"1.2.3-", "1.2.3-a..b", "1.2.3-.a", "1.2.3-a.", "1.2.3-01", "1.2.3-a_b", "1.2.3+", "1.2.3+a..b", "1.2.3+a+b", "1.2.3-é",
		"18446744073709551616.0.0", "1.2.3\n", "1..3", "1.2.", "１.2.3", "1.2.3-" + strings.Repeat("a", MaxVersionBytes),
	} {
		if v, err := ParseVersion(s); !errors.Is(err, ErrVersion) || v != (Version{}) {
			t.Errorf("ParseVersion(%q) = %v, %v; want ErrVersion", s, v, err)
		}
	}
}

func TestVersionKeepsItsSpelling(t *testing.T) {
	for s, bare := range map[string]string{
		"0.0.0": "0.0.0", "1.2.3": "1.2.3", "18446744073709551615.0.1": "18446744073709551615.0.1",
		"1.0.0-alpha.1": "1.0.0-alpha.1", "1.0.0+001": "1.0.0", "1.0.0-rc.1+b.-.02": "1.0.0-rc.1", "1.0.0--": "1.0.0--", "1.0.0-0a": "1.0.0-0a",
	} {
		v := mustVersion(t, s)
		if v.String() != s || v.WithoutBuild() != bare || v.IsPrerelease() != strings.Contains(bare, "-") {
			t.Errorf("%q: String %q, WithoutBuild %q, IsPrerelease %v", s, v, v.WithoutBuild(), v.IsPrerelease())
		}
	}
}

// The order is that of SemVer 2.0.0 §11, with numbers beyond 64 bits.
func TestVersionOrder(t *testing.T) {
	ordered := []string{
		"0.0.0-0", "0.0.0", "0.9.10", "1.0.0-1", "1.0.0-2", "1.0.0-10", "1.0.0-99999999999999999999", "1.0.0-100000000000000000000", "1.0.0--", "1.0.0-Z",
		"1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.1.0", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0-rc.1", "1.0.0", "1.0.1", "1.10.0", "10.0.0",
	}
	for i, a := range ordered {
		for j, b := range ordered {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := mustVersion(t, a).Compare(mustVersion(t, b)); got != want {
				t.Errorf("Compare(%s, %s) = %d, want %d", a, b, got, want)
			}
		}
	}
	if mustVersion(t, "1.0.0+a").Compare(mustVersion(t, "1.0.0+b")) != 0 {
		t.Error("build metadata takes part in precedence")
	}
}

// testdata/semver.txt was written by the Rust crate semver itself.
func TestReqAgreesWithRust(t *testing.T) {
	data, err := os.ReadFile("testdata/semver.txt")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	versions := strings.Fields(lines[1])
	if len(lines) < 300 || len(versions) < 40 {
		t.Fatalf("%d lines, %d versions", len(lines), len(versions))
	}
	for _, line := range lines[2:] {
		fields := strings.Split(line, "\t")
		text, err := strconv.Unquote(fields[0])
		if err != nil {
			t.Fatal(line, err)
		}
		req, err := ParseReq(text)
		if fields[1] == "!" {
			if !errors.Is(err, ErrVersion) {
				t.Errorf("ParseReq(%q) = %q, %v; Rust refuses it", text, req, err)
			}
			continue
		}
		if err != nil || req.String() != fields[1] {
			t.Errorf("ParseReq(%q) = %q, %v; Rust has %q", text, req, err, fields[1])
			continue
		}
		for i, v := range versions {
			if got, want := req.Matches(mustVersion(t, v)), fields[2][i] == '1'; got != want {
				t.Errorf("%q matches %s: %v, Rust says %v", text, v, got, want)
			}
		}
	}
}

func TestParseReqBoundsItsInput(t *testing.T) {
	if _, err := ParseReq("1" + strings.Repeat(" ", maxReqBytes)); !errors.Is(err, ErrVersion) {
		t.Errorf("an over-long requirement: %v", err)
	}
}

// Whatever 1.2.3 may stand for, ^ and ~ are the ranges that the Cargo book spells out.
func TestCaretAndTildeAreRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.Uint64Range(0, 3)
		number := func(n uint64) string { return strconv.FormatUint(n, 10) }
		x, y, z := part.Draw(t, "x"), part.Draw(t, "y"), part.Draw(t, "z")
		base := number(x) + "." + number(y) + "." + number(z)
		caret, tilde := number(x+1)+".0.0", number(x)+"."+number(y+1)+".0"
		if x == 0 && y > 0 {
			caret = "0." + number(y+1) + ".0"
		} else if x == 0 {
			caret = "0.0." + number(z+1)
		}
		v := Version{major: part.Draw(t, "a"), minor: part.Draw(t, "b"), patch: part.Draw(t, "c")}
		for op, end := range map[string]string{"^": caret, "~": tilde} {
			short, _ := ParseReq(op + base)
			long, err := ParseReq(">=" + base + ", <" + end)
			if err != nil || short.Matches(v) != long.Matches(v) {
				t.Fatalf("%s%s and %s disagree on %s (%v)", op, base, long, v, err)
			}
		}
	})
}

// A rule that shuts versions out is not escaped by a pre-release or by +build.
func TestCovers(t *testing.T) {
	cases := []struct {
		req, version string
		want         bool
	}{
		{"=1.2.0", "1.2.0", true}, {"=1.2.0", "1.2.1", false}, {"=1.2.0", "1.2.0+x", true}, {"=1.2.0+y", "1.2.0+x", true},
		{"=1.2.0", "1.2.0-rc.1", true}, {"=1.2.0", "1.2.0-rc.1+x", true}, {"=1.2.0", "1.2.1-rc.1", false},
		{"*", "1.2.0-rc.1", true}, {"1.*", "1.2.0-rc.1", true}, {"1.*", "2.0.0-rc.1", false},
		{"<1.2.0", "1.2.0-rc.1", true}, {"<1.2", "1.2.0-rc.1", true}, {"<2", "2.0.0-alpha", true}, {"<2", "2.0.1-alpha", false}, {"<2", "2.0.0", false},
		{"<1.2.0-rc.2", "1.2.0-rc.1", true}, {"<1.2.0-rc.2", "1.2.0-rc.3", false},
		{"<=1.2.0", "1.2.0-rc.1", true}, {"<=1.2", "1.2.9-rc.1", true}, {"<=1.2.0", "1.2.1-rc.1", false},
		{">1.2.0", "1.2.0-rc.1", false}, {">1.2.0", "1.2.1-rc.1", true}, {">=1.2.0", "1.2.0-rc.1", true},
		{">=1.5.0, <1.5.1", "1.5.1-rc.1", true}, {">=1.5.0, <1.5.1", "1.5.0-rc.1", true}, {">1.5.0-rc.2, <1.5.0", "1.5.0-rc.1", false},
		{"~1.2", "1.2.3-rc.1", true}, {"~1.2", "1.3.0-rc.1", false}, {"^0.0.3", "0.0.3-a", true}, {"^0.0.3", "0.0.4-a", false},
	}
	for _, c := range cases {
		req, err := ParseReq(c.req)
		if err != nil {
			t.Fatal(err)
		}
		if got := req.Covers(mustVersion(t, c.version)); got != c.want {
			t.Errorf("%q covers %s: %v", c.req, c.version, got)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{"1.2.3", "1.0.0-rc.1+b", "01.2.3", "1.2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := ParseVersion(s)
		if err == nil && (v.String() != s || v.Compare(v) != 0) {
			t.Errorf("%q became %q", s, v)
		}
	})
}

func FuzzParseReq(f *testing.F) {
	for _, s := range []string{"1.0", ">=1, <2", "*", "1.*", "~1.2.3-rc.1", "=1.x.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		req, err := ParseReq(s)
		if err != nil {
			if !errors.Is(err, ErrVersion) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		again, err := ParseReq(req.String())
		if err != nil || again.String() != req.String() {
			t.Errorf("%q becomes %q becomes %q (%v)", s, req, again, err)
		}
		for _, v := range []string{"0.0.0", "1.0.0", "1.2.3-rc.1", "1.2.3"} {
			if v := mustVersion(t, v); req.Matches(v) != again.Matches(v) {
				t.Errorf("%q and %q disagree on %s", s, again, v)
			}
			if v := mustVersion(t, v); req.Matches(v) && !req.Covers(v) || v.pre == "" && req.Covers(v) != req.Matches(v) {
				t.Errorf("%q covers and matches %s otherwise than it should", s, v)
			}
		}
	})
}
