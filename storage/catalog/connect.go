package catalog

import (
	"errors"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// unconnected is why there is no connection, in one line that says what to look at.
type unconnected struct{ error }

func (e unconnected) Unwrap() error { return e.error }

// connecting makes an error of the driver's that is about a new connection one.
func connecting(err error) error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) || errors.As(err, new(unconnected)) {
		return err
	}
	return unconnected{err}
}

// Error implements error. The driver has a line for each address that it has tried, and
// each way, with TLS and without; several say the same.
func (e unconnected) Error() string {
	head, tried, _ := strings.Cut(e.error.Error(), "\n")
	var ways []string
	for way := range strings.Lines(tried) {
		if way = strings.TrimSpace(way); way != "" && !slices.Contains(ways, way) {
			ways = append(ways, way)
		}
	}
	text := strings.TrimSpace(head + " " + strings.Join(ways, "; "))
	if server := (*pgconn.PgError)(nil); errors.As(e.error, &server) {
		return text + advice[server.Code]
	}
	return text
}

// advice is by the codes of PostgreSQL's manual, appendix A.
var advice = map[string]string{
	// invalid_password, invalid_authorization_specification
	"28P01": "; the password comes from PGPASSWORD or PGPASSFILE (is that readable, for this user alone?), the role from the URL",
	"28000": "; is the role in the URL the right one, and does pg_hba.conf let it in from here?",
	// undefined_object
	"42704": "; what follows the ? of the URL is sslmode=…, sslrootcert=… and settings of PostgreSQL: is one mistyped?",
	// invalid_catalog_name
	"3D000": "; make it with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0, or correct the URL",
}
