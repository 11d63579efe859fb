package catalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// secretPlaces are where a password may stand in what is given as an address, or is put by mistake.
var secretPlaces = map[string]string{
	"behind the user":        "postgres://u:%s@host/d?sslmode=disable",
	"without a user":         "postgresql://:%s@host/d?sslmode=disable",
	"among many hosts":       "postgres://u:%s@one:5432,two:5433/d?sslmode=disable&target_session_attrs=any",
	"before a socket":        "postgres://u:%s@%%2Fvar%%2Frun/d",
	"before a named socket":  "postgres://u:%s@/d?host=/var/run/none",
	"a parameter":            "postgres://u@host/d?sslmode=disable&password=%s",
	"the first parameter":    "postgres://u@host/d?password=%s&sslmode=disable&application_name=x",
	"an encoded name":        "postgres://u@host/d?sslmode=disable&pass%%77ord=%s",
	"capital letters":        "postgres://u@host/d?sslmode=disable&PASSWORD=%s",
	"a slip":                 "postgres://u@host/d?sslmode=disable&passwd=%s",
	"a key's password":       "postgres://u@host/d?sslmode=disable&sslpassword=%s",
	"no question mark":       "postgres://u@host/d&password=%s",
	"a semicolon":            "postgres://u@host/d?sslmode=disable;password=%s",
	"a second question mark": "postgres://u@host/d?sslmode=disable?password=%s",
	"inside a value":         "postgres://u@host/d?sslmode=disable%%26password%%3D%s",
	"no equals sign":         "postgres://u@host/d?sslmode=disable&password:%s",
	"encoded with the user":  "postgres://u%%3A%s@host/d",
	"a fragment":             "postgres://u@host/d#password=%s",
	"keys and values":        "host=h user=u password=%s",
	"keys in a URL":          "postgres://host=h user=u password=%s",
	"another scheme":         "mysql://u:%s@host/d",
	"another case":           "POSTGRES://u:%s@host/d",
}

// otherPlaces hold no password but by a slip; an & ends what is there.
var otherPlaces = map[string]string{
	"a passfile's content": "postgres://u@host/d?sslmode=disable&passfile=host:5432:d:u:%s",
	"a service":            "postgres://u@host/d?sslmode=disable&service=%s",
	"a service's file":     "postgres://u@host/d?sslmode=disable&service=x&servicefile=%s",
}

// placed is the address with text in the place of form; where text would end it, there is none.
func placed(form, text string) (address string, ok bool) {
	for _, other := range otherPlaces {
		if form == other && strings.Contains(text, "&") {
			return "", false
		}
	}
	return fmt.Sprintf(form, text), true
}

// allPlaces are both.
func allPlaces() map[string]string {
	all := maps.Clone(secretPlaces)
	maps.Copy(all, otherPlaces)
	return all
}

// wantUntold fails the test where anything that is said of an address tells the secret in
// it, or a name or address that holds it is asked for.
func wantUntold(t *testing.T, text, secret string) {
	t.Helper()
	said := []string{ShowAddress(text), fmt.Sprintf("%v", CheckAddress(text))}
	config, err := postgresConfig(text)
	if err == nil {
		config.LookupFunc = func(_ context.Context, host string) ([]string, error) {
			said = append(said, host)
			return nil, errors.New("no such host")
		}
		config.DialFunc = func(_ context.Context, _, address string) (net.Conn, error) {
			said = append(said, address)
			return nil, errors.New("nobody there")
		}
		said = append(said, whereabouts(config))
		_, err = pgx.ConnectConfig(t.Context(), config)
		err = failed(t.Context(), "connect", err)
	}
	said = append(said, fmt.Sprintf("%v %+v %q", err, err, err))
	for _, s := range said {
		if strings.Contains(s, secret) {
			t.Errorf("%q is told as %q", text, s)
		}
	}
}

// around is what may stand beside the rest of a password, raw.
var around = []string{
	"", "@", "ss@", "/", "12/", "?", "12?", "12?a=b&", "#", "12#", ";", "&", "&a=", "&host=", "a&b=c&search_path=",
	":", "%", "%zz", " ", "\n", "[", "]", ",", "=", "@a,b/", "+", "é", "\x00",
}

// Wherever a password stands, and whatever is in it, nothing tells it.
func TestAnAddressIsToldWithoutItsPassword(t *testing.T) {
	t.Parallel()
	for place, form := range allPlaces() {
		for _, around := range around {
			for _, raw := range []string{around + "s3cr3t", "s3cr3t" + around, "p" + around + "s3cr3t" + around + "q"} {
				for _, given := range []string{raw, url.QueryEscape(raw), url.PathEscape(raw)} {
					if text, ok := placed(form, given); ok {
						wantUntold(t, text, "s3cr3t")
					}
					if t.Failed() {
						t.Fatal(place)
					}
				}
			}
		}
	}
}

// FuzzAddress puts a password between other bytes.
func FuzzAddress(f *testing.F) {
	f.Add("", "")
	f.Add("p@ss/", ";x")
	f.Add("12?a=b&host=", "&c")
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, form := range allPlaces() {
			if text, ok := placed(form, before+"s3cr3tMARK"+after); ok {
				wantUntold(t, text, "s3cr3tMARK")
			}
		}
	})
}

// What two programs may read differently is refused, and by a word that helps.
func TestAddressesOfTwoReadingsAreRefused(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{
		"postgres://u@h/db?sslmode=disable&password=sec;retA": "%3B",
		"postgres://u:p@ss@retF@127.0.0.1/db":                 "%40",
		"postgres://u:12/ss@h/db":                             "%40",
		"postgres://u:12?ss@h/db":                             "%40",
		"postgres://h/db?password=a@b":                        "%40",
		"postgres://u@h/db?password=a&b":                      "%3D",
		"postgres://u@h/db?password=a&b=c":                    "beside a password",
		"postgres://u@h/db?password=a&host=other":             "beside a password",
		"postgres://u@h/db?Password=a":                        "PGPASSFILE",
		"postgres://u@h:secret/db":                            "PGPASSFILE",
		"postgres://u@h/db&password=a":                        "PGPASSFILE",
		"postgres://u@h/db#a":                                 "%XX",
		"postgres://u:%zz@h/db":                               "%XX",
		"postgres://u@h%2Cother/db":                           "two ways",
		"postgres://u@/db":                                    "no host",
		"host=h password=x":                                   "postgres://",
	} {
		_, err := postgresConfig(text)
		if err == nil || !errors.Is(err, errBadURL) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want one that says %q", text, err, says)
		}
	}
}

func TestAddressesAreShownAsTyped(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres://u@h/db":                               "",
		"postgres://u:secret@h:5432/db?sslmode=disable":   "postgres://u@h:5432/db?sslmode=disable",
		"postgresql://:secret@h/db":                       "postgresql://h/db",
		"postgres://u@one:1,two:2,[::1]:3/db":             "",
		"postgres://u@%2Fvar%2Frun/db":                    "",
		"postgres:///db?host=/var/run&user=u":             "",
		"postgres://u@h/db?search_path=lab%2Cpublic":      "",
		"postgres://u%40host@h/d%20b?connect_timeout=3":   "",
		"postgres://u@h/db?sslmode=disable&password=a":    "postgres://u@h/db?sslmode=disable",
		"postgres://u@h/db?password=a&sslmode=disable":    "postgres://u@h/db",
		"postgres://u@h/db?options=-ca%3Db&sslmode=allow": "postgres://u@h/db?sslmode=allow",
		"postgres://u@h/db?passfile=/p&sslmode=allow":     "postgres://u@h/db?sslmode=allow",
		"postgres://u@h/db?application_name=a%26b":        "postgres://u@h/db",
	} {
		if want == "" {
			want = text
		}
		if got := ShowAddress(text); got != want {
			t.Errorf("%s is shown as %s, want %s", text, got, want)
		}
		if _, err := postgresConfig(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// What is shown and what pgx asks are the same, whatever the way of writing.
func TestTheHostIsTheOneThatIsShown(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres://u:p%40ss%40retF@127.0.0.1/db?sslmode=disable": "db at 127.0.0.1:5432",
		"postgres://u@[::1]:1/db":                                 "db at [::1]:1",
		"postgres://u@one,two:2/db":                               "db at one:5432",
		"postgres://u@%2Frun/db":                                  "db at /run:5432",
	} {
		config, err := postgresConfig(text)
		if err != nil || whereabouts(config) != want {
			t.Errorf("%s: %v, %v, want %s", text, config, err, want)
		}
	}
	if _, err := postgresConfig("postgres://u@h/db?sslmode=verify-full&sslrootcert=" + filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a missing authority: %v", err)
	}
}
