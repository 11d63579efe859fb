package cargo

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// inspectWith is the crate demo 1.0.0 whose manifest goes on with more.
func inspectWith(t *testing.T, more string) *Crate {
	t.Helper()
	manifest := "[package]\nname = \"demo\"\nversion = \"1.0.0\"\n" + more
	c, err := inspectBytes(crateOf(file("Cargo.toml", manifest)))
	if err != nil {
		t.Fatalf("%s: %v", more, err)
	}
	return c
}

func TestCheckPublishTakesWhatCratesIOTakes(t *testing.T) {
	for name, more := range map[string]string{
		"nothing more":         "",
		"an old license":       `license = "MIT/Apache-2.0"`,
		"a lab's license":      `license = "LicenseRef-Phoenix-Lab"`,
		"a long description":   "description = \"\"\"\nA line.\n\tAnother.\n\"\"\"",
		"five keywords":        `keywords = ["a", "b2", "c_d", "e-f", "g++"]`,
		"a category":           `categories = ["development-tools::testing", "no-std"]`,
		"links":                "homepage = \"https://lab.example/demo\"\nrepository = \"http://lab.example:8080/demo.git?x=1\"",
		"an empty homepage":    `homepage = ""`,
		"a wide requirement":   "[dependencies]\nrand = \">=0.1\"",
		"a partial wildcard":   "[dependencies]\nrand = \"0.*\"",
		"a feature with a dot": "[dependencies]\nrand = { version = \"1\", features = [\"v1.2\", \"std+alloc\"] }",
	} {
		if err := inspectWith(t, more).CheckPublish(IndexSettings{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckPublishRefusesWhatCratesIORefuses(t *testing.T) {
	for name, c := range map[string]struct {
		more, says string
	}{
		"six keywords":                  {`keywords = ["a", "b", "c", "d", "e", "f"]`, "5 keywords"},
		"a long keyword":                {`keywords = ["abcdefghijklmnopqrstu"]`, "20 characters"},
		"a keyword with a space":        {`keywords = ["two words"]`, "two words"},
		"a keyword that is markup":      {`keywords = ["<b>"]`, "<b>"},
		"a keyword of another script":   {`keywords = ["größe"]`, "größe"},
		"a keyword that begins with -":  {`keywords = ["-x"]`, "-x"},
		"an empty keyword":              {`keywords = [""]`, "a keyword has"},
		"six categories":                {`categories = ["a", "b", "c", "d", "e", "f"]`, "5 categories"},
		"a category that is no slug":    {`categories = ["Not A Slug"]`, "slug"},
		"a homepage that is a script":   {`homepage = "javascript:alert(1)"`, "http://"},
		"documentation of data":         {`documentation = "data:text/html,x"`, "http://"},
		"a repository over ssh":         {`repository = "git@lab.example:demo.git"`, "http://"},
		"a repository without a host":   {`repository = "https:///demo"`, "http://"},
		"a link with a password":        {`repository = "https://me:secret@lab.example/demo"`, "user name"},
		"a link that is too long":       {`homepage = "https://lab.example/` + strings.Repeat("x", 2048) + `"`, "2,048"},
		"an escape in the description":  {`description = "\u001b[2J"`, "control"},
		"a NEL in the license":          {`license = "MIT\u0085"`, "control"},
		"a line break in the license":   {`license = "MIT\nApache-2.0"`, "control"},
		"a long license":                {`license = "` + strings.Repeat("MIT OR ", 200) + `MIT"`, "1,024"},
		"any version of a dependency":   {"[dependencies]\nrand = \"*\"", "rand"},
		"any version for tests":         {"[dev-dependencies]\nrand = { version = \"*\" }", "rand"},
		"a feature with a control code": {"[dependencies]\nrand = { version = \"1\", features = [\"a\\u0007\"] }", "feature"},
		"a feature that is markup":      {"[dependencies]\nrand = { version = \"1\", features = [\"<x>\"] }", "feature"},
	} {
		err := inspectWith(t, c.more).CheckPublish(IndexSettings{})
		if !errors.Is(err, ErrManifest) || !strings.Contains(fmt.Sprint(err), c.says) {
			t.Errorf("%s: %v; want one about %q", name, err, c.says)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: repeats the password", name)
		}
	}
}

func TestCheckPublishKeepsTheCompilersNames(t *testing.T) {
	for _, name := range []string{"rustc", "Rustc-Driver", "syntax", "compiler-builtins", "MACROS"} {
		manifest := fmt.Sprintf("[package]\nname = %q\nversion = \"1.0.0\"\n", name)
		data := crateOf(entry('0', name+"-1.0.0/Cargo.toml", manifest))
		c, err := Inspect(strings.NewReader(string(data)), name, "1.0.0", Limits{})
		if err != nil {
			t.Fatalf("%s was published before the rule and must still be read: %v", name, err)
		}
		if err := c.CheckPublish(IndexSettings{}); !errors.Is(err, ErrName) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInspectTakesComposedAndDecomposedAccentsForOneName(t *testing.T) {
	for _, pair := range [][2]string{{"caf\u00e9", "cafe\u0301"}, {"CAF\u00c9", "cafe\u0301"}, {"\u1e9b\u0323", "\u017f\u0323\u0307"}, {"\uac00", "\u1100\u1161"}} {
		_, err := inspectBytes(crateOf(manifestEntry, file(pair[0], "1"), file(pair[1], "2")))
		var p *Problem
		if !errors.As(err, &p) || p.Code != CodeCollision {
			t.Errorf("%q and %q: %v", pair[0], pair[1], err)
		}
	}
	if _, err := inspectBytes(crateOf(manifestEntry, file("cafe", "1"), file("caf\u00e9", "2"))); err != nil {
		t.Errorf("different names: %v", err)
	}
}
