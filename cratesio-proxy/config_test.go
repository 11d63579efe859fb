package cratesioproxy

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestADownloadIsWhereCargoLooksForIt(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for name, c := range map[string]struct{ dl, crate, want string }{
		"crates.io's":    {"https://static.crates.io/crates", "serde", "https://static.crates.io/crates/serde/1.0.0+x/download"},
		"a slash at end": {"https://h/api/", "serde", "https://h/api//serde/1.0.0+x/download"},
		"all markers":    {"https://h/{prefix}/{lowerprefix}/{crate}-{version}/{sha256-checksum}.crate", "MyCrate", "https://h/My/Cr/my/cr/MyCrate-1.0.0+x/" + sum + ".crate"},
		"one letter":     {"https://h/{prefix}/{crate}", "a", "https://h/1/a"},
		"two":            {"https://h/{prefix}/{crate}", "aB", "https://h/2/aB"},
		"three":          {"https://h/{lowerprefix}/{crate}", "ABc", "https://h/3/a/ABc"},
		"a query":        {"https://h/d?n={crate}&v={version}", "abcd", "https://h/d?n=abcd&v=1.0.0+x"},
		"another host":   {"https://other:8443/{crate}", "abcd", "https://other:8443/abcd"},
		"unknown marker": {"https://h/{what}/{crate}", "abcd", "https://h/{what}/abcd"},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := ParseIndexConfig([]byte(`{"dl":"`+c.dl+`","more":[1]}`), "https://index/")
			if err != nil {
				t.Fatal(err)
			}
			if got, err := config.url(c.crate, "1.0.0+x", sum); err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestAnUnsafeConfigIsNotUsed(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":            `<html>`,
		"no dl":               `{}`,
		"of plain http":       `{"dl":"http://h/"}`,
		"of a file":           `{"dl":"file:///etc/{crate}"}`,
		"relative":            `{"dl":"/d/{crate}"}`,
		"credentials":         `{"dl":"https://u:p@h/"}`,
		"a host of markers":   `{"dl":"https://{crate}.h/"}`,
		"no host":             `{"dl":"https:///{crate}"}`,
		"a fragment":          `{"dl":"https://h/{crate}#x"}`,
		"a bad port":          `{"dl":"https://h:x/{crate}"}`,
		"dl twice":            `{"dl":"https://h/","dl":"https://i/"}`,
		"dl beyond bounds":    `{"dl":"https://h/` + strings.Repeat("x", maxDL) + `"}`,
		"a control character": `{"dl":"https://h/\n{crate}"}`,
		"all beyond bounds":   `{"dl":"https://h/"}` + strings.Repeat(" ", maxConfigBytes),
	} {
		t.Run(name, func(t *testing.T) {
			if c, err := ParseIndexConfig([]byte(text), "https://index/"); !errors.Is(err, ErrBroken) {
				t.Errorf("got %+v, %v", c, err)
			}
		})
	}
}

func FuzzParseIndexConfig(f *testing.F) {
	f.Add([]byte(`{"dl":"https://h/{crate}/{version}/{prefix}/{lowerprefix}/{sha256-checksum}","auth-required":true}`))
	f.Add([]byte(`{"dl":"https://h@i/","api":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseIndexConfig(data, "https://index/")
		if err != nil {
			if !errors.Is(err, ErrBroken) {
				t.Errorf("%q: %v", data, err)
			}
			return
		}
		host := ""
		for _, name := range []string{"a", "Ab", "abc", "abcd-EF"} {
			text, err := c.url(name, "1.0.0-a.1+b", strings.Repeat("0", 64))
			if err != nil {
				continue
			}
			u, err := url.Parse(text)
			if err != nil || u.Scheme != "https" || u.User != nil || host != "" && u.Host != host {
				t.Fatalf("%q makes %q", data, text)
			}
			host = u.Host
		}
	})
}
