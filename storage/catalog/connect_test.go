package catalog

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"phoenix-lab.org/aln-registry/integration/testbed"
)

// Why there is no connection is one line, says nothing twice, and says what to look at.
func TestNoConnectionIsOneLineWithAdvice(t *testing.T) {
	t.Parallel()
	server := testbed.SharedPostgres(t).URL
	bare := strings.TrimSuffix(server, "?sslmode=disable")
	for name, c := range map[string]struct{ url, want, tells string }{
		"nobody there":        {"postgres://u@127.0.0.1:1/d", "", "connection refused"},
		"an unknown role":     {strings.Replace(bare, "postgres@", "nobody@", 1), "; is the role in the URL the right one", `role "nobody" does not exist`},
		"an unknown setting":  {bare + "?sslmod=disable", ": is one mistyped?", `"sslmod"`},
		"an unknown database": {strings.Replace(server, "/aln", "/none-", 1), "; make it with CREATE DATABASE", "does not exist"},
	} {
		_, err := OpenPostgres(t.Context(), c.url)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		text := err.Error()
		if strings.ContainsAny(text, "\n\t") || !strings.Contains(text, c.tells) || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, without %q", name, text, c.want)
		}
		if name == "nobody there" && strings.Count(text, "connection refused") != 1 {
			t.Errorf("%s: twice: %q", name, text)
		}
	}
	if text := (unconnected{&pgconn.PgError{Code: "28P01", Message: "password authentication failed"}}).Error(); !strings.Contains(text, "comes from PGPASSWORD or PGPASSFILE") {
		t.Errorf("a wrong password: %s", text)
	}
}
