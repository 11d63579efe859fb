package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestTheProxyIsTheOneThatCargoTakes(t *testing.T) {
	const asked = "https://registry.example/index/"
	for name, test := range map[string]struct {
		cargo string
		env   string // NAME=value, separated by spaces
		want  string
	}{
		"none":                       {"", "", ""},
		"environment":                {"", "HTTPS_PROXY=http://p:1", "http://p:1"},
		"lower case first":           {"", "https_proxy=http://q:1 HTTPS_PROXY=http://p:1", "http://q:1"},
		"for everything":             {"", "ALL_PROXY=socks5://p:1", "socks5://p:1"},
		"of http is not of https":    {"", "http_proxy=http://p:1", ""},
		"cargo before environment":   {"http://c:1", "https_proxy=http://q:1", "http://c:1"},
		"as curl completes it":       {"c", "", "http://c:1080"},
		"https proxy":                {"https://c", "", "https://c"},
		"with a password":            {"user:secret@c:1", "", "http://user:secret@c:1"},
		"not for this host":          {"http://c:1", "NO_PROXY=a.test,registry.example", ""},
		"not for hosts under it":     {"", "https_proxy=p:1 no_proxy=.example", ""},
		"for the hosts not named":    {"", "https_proxy=p:1 no_proxy=other.example", "http://p:1"},
		"for no host at all":         {"http://c:1", "no_proxy=*", ""},
		"empty is as good as absent": {"", "https_proxy= HTTPS_PROXY=http://p:1", "http://p:1"},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{}
			for _, pair := range strings.Fields(test.env) {
				key, value, _ := strings.Cut(pair, "=")
				env[key] = value
			}
			proxy, err := ProxySetting{Cargo: test.cargo, Lookup: func(name string) (string, bool) { v, ok := env[name]; return v, ok }}.Proxy()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if u, err := proxy(must(http.NewRequest(http.MethodGet, asked, nil))); err != nil {
				t.Fatal(err)
			} else if u != nil {
				got = u.String()
			}
			if got != test.want {
				t.Errorf("goes by %q, want %q", got, test.want)
			}
		})
	}
}

func TestASettingThatIsNoProxyIsRefusedWithoutBeingShown(t *testing.T) {
	for _, bad := range []string{"ftp://user:secret@p:1", "http://", "http://user:secret@[::1", "://secret"} {
		_, err := ProxySetting{Cargo: bad, Lookup: func(string) (string, bool) { return "", false }}.Proxy()
		if !errors.Is(err, ErrProxy) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func FuzzProxySetting(f *testing.F) {
	for _, seed := range []string{"", "p", "http://p:3128", "socks5://u:p@h", "https://[::1]:1", "http://a b", "%zz"} {
		f.Add(seed)
	}
	r := must(http.NewRequest(http.MethodGet, "https://registry.example/", nil))
	f.Fuzz(func(t *testing.T, setting string) {
		proxy, err := ProxySetting{Cargo: setting, Lookup: func(string) (string, bool) { return "", false }}.Proxy()
		if err != nil {
			return
		}
		if u, err := proxy(r); err == nil && (u == nil) != (setting == "") {
			t.Errorf("%q leads to %v", setting, u)
		}
	})
}
