package cratesioproxy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSettingsAreReadAsTyped(t *testing.T) {
	for name, c := range map[string]struct {
		texts []string
		want  []string
	}{
		"nothing said":                 {nil, []string{"crates-io=sparse+https://index.crates.io/"}},
		"none":                         {[]string{"none"}, []string{}},
		"another place for crates.io":  {[]string{"sparse+https://mirror.example/index"}, []string{"crates-io=sparse+https://mirror.example/index/"}},
		"crates.io by its name":        {[]string{"crates-io=sparse+https://mirror.example/"}, []string{"crates-io=sparse+https://mirror.example/"}},
		"another beside crates.io":     {[]string{"acme=sparse+https://acme.example:8443/a/b/"}, []string{"crates-io=sparse+https://index.crates.io/", "acme=sparse+https://acme.example:8443/a/b/"}},
		"another alone":                {[]string{"none", "acme=sparse+https://acme.example"}, []string{"acme=sparse+https://acme.example/"}},
		"all parameters":               {[]string{"none", "a-1=sparse+https://h/?proxy=http://p:3128/&token_file=/t%20f&ca=/c"}, []string{"a-1=sparse+https://h/?token_file=%2Ft+f&ca=%2Fc&proxy=http%3A%2F%2Fp%3A3128"}},
		"a host of its crates":         {[]string{"none", "a=sparse+https://h/?token_file=/t&token_host=f.example:8443"}, []string{"a=sparse+https://h/?token_file=%2Ft&token_host=f.example%3A8443"}},
		"plain http on this computer":  {[]string{"none", "a=sparse+http://127.0.0.1:80/x/"}, []string{"a=sparse+http://127.0.0.1:80/x/"}},
		"plain http on this computer6": {[]string{"none", "a=sparse+http://[::1]:80/"}, []string{"a=sparse+http://[::1]:80/"}},
	} {
		t.Run(name, func(t *testing.T) {
			settings, err := ParseSettings(c.texts)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{}
			for _, s := range settings {
				got = append(got, s.String())
				if again, err := ParseSetting(s.String()); err != nil || again != s {
					t.Errorf("typed again, %s is %v, %v", s, again, err)
				}
			}
			if strings.Join(got, " ") != strings.Join(c.want, " ") {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestSettingsAreRefusedWithWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		texts []string
		want  string
	}{
		"no sparse+":                {[]string{"https://h/"}, "begin with sparse+"},
		"git":                       {[]string{"a=git+https://h/"}, "begin with sparse+"},
		"credentials":               {[]string{"a=sparse+https://me:s3cr3t@h/"}, "?token_file=FILE"},
		"a user":                    {[]string{"a=sparse+https://s3cr3t@h/"}, "?token_file=FILE"},
		"a token":                   {[]string{"a=sparse+https://h/?token=s3cr3t"}, "?token_file=FILE"},
		"a parameter":               {[]string{"a=sparse+https://h/?s3cr3t=1"}, "token_file, ca and proxy"},
		"bad parameters":            {[]string{"a=sparse+https://h/?ca=%zzs3cr3t"}, "not parameters"},
		"twice a parameter":         {[]string{"a=sparse+https://h/?ca=s3cr3t&ca=b"}, "given twice"},
		"empty":                     {[]string{"a=sparse+https://h/?ca="}, "ca is empty"},
		"plain http":                {[]string{"a=sparse+http://h/"}, "use https://"},
		"ca on plain http":          {[]string{"a=sparse+http://localhost/?ca=f"}, "ca is for"},
		"no host":                   {[]string{"a=sparse+https:///s3cr3t"}, "https and a host"},
		"no URL":                    {[]string{"a=sparse+https://h:s3cr3t/"}, "not a URL"},
		"a fragment":                {[]string{"a=sparse+https://h/#s3cr3t"}, "https and a host"},
		"a path upwards":            {[]string{"a=sparse+https://h/../s3cr3t"}, "its path"},
		"a bad name":                {[]string{"A_s3cr3t=sparse+https://h/"}, "its name"},
		"the name none":             {[]string{"none=sparse+https://h/"}, "its name"},
		"one name twice":            {[]string{"a=sparse+https://h/", "a=sparse+https://i/"}, "a name of its own"},
		"two for crates.io":         {[]string{"sparse+https://h/", "crates-io=sparse+https://i/"}, "a name of its own"},
		"none and crates.io":        {[]string{"none", "sparse+https://h/"}, "leave one of them out"},
		"credentials of a proxy":    {[]string{"a=sparse+https://h/?proxy=http://u:s3cr3t@p:1"}, "HTTPS_PROXY="},
		"a proxy that is none":      {[]string{"a=sparse+https://h/?proxy=s3cr3t"}, "proxy=http://host"},
		"a host that is an address": {[]string{"a=sparse+https://h/?token_file=t&token_host=https://s3cr3t/"}, "token_host=files.example"},
		"a host without a token":    {[]string{"a=sparse+https://h/?token_host=s3cr3t"}, "token_host=files.example"},
		"a control character":       {[]string{"a=sparse+https://h/?ca=a%0as3cr3t"}, "control character"},
		"too long":                  {[]string{"a=sparse+https://h/" + strings.Repeat("s3cr3t", 1000)}, "characters"},
		"something else altogether": {[]string{"s3cr3t"}, "sparse+https://"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSettings(c.texts)
			if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one that says %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("what may be a secret is shown: %v", err)
			}
		})
	}
}

func TestFilesOfASettingAreReadAtTheStart(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, s := range map[string]Setting{
		"no token file":    {TokenFile: filepath.Join(folder, "none")},
		"an empty one":     {TokenFile: write("empty", "\n")},
		"two lines":        {TokenFile: write("two", "s3cr3t\ns3cr3t")},
		"a huge one":       {TokenFile: write("huge", strings.Repeat("s3cr3t", 10_000))},
		"no certificates":  {CA: filepath.Join(folder, "none")},
		"none in the file": {CA: write("ca", "s3cr3t")},
	} {
		t.Run(name, func(t *testing.T) {
			s.Name, s.Index = "a", "https://h/"
			_, err := New(Config{}, []Setting{s})
			if !errors.Is(err, ErrSetting) || strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("got %v", err)
			}
		})
	}
	s := Setting{Name: "a", TokenFile: write("token", "  Bearer x \r\n")}
	if token, err := s.token(); err != nil || token != "Bearer x" {
		t.Errorf("got %q, %v", token, err)
	}
}

func FuzzParseSetting(f *testing.F) {
	for _, s := range []string{"none", "a=sparse+https://h/?token_file=f&ca=g&proxy=http://p:1", "sparse+https://u:p@h/", "x=sparse+http://[::1]:1/a?b=%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSetting(text)
		if err != nil {
			if !errors.Is(err, ErrSetting) {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if again, err := ParseSetting(s.String()); err != nil || again != s {
			t.Errorf("%q is %+v, and typed again %+v, %v", text, s, again, err)
		}
	})
}
